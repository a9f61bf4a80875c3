import pytest
from obstore import exceptions

from ctc_ray.errors import ConfigError
from ctc_ray.files import storage
from ctc_ray.files.object_store import locate
from ctc_ray.files.object_store_errors import explained
from ctc_ray.files.retries import UnusableStoreError

TOLD = "Error performing GET http://host/b/a in 3ms - Server returned non-2xx status code: "


def xml(code: str) -> str:
    return f"<Error><Code>{code}</Code><Message>m</Message></Error> Debug source: X"


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (FileNotFoundError(TOLD + xml("NoSuchKey")), FileNotFoundError, "no such object"),
        (FileNotFoundError(TOLD + xml("NoSuchBucket")), FileNotFoundError, "no such bucket"),
        (exceptions.GenericError(TOLD + xml("NoSuchBucket")), FileNotFoundError, "no such bucket"),
        (
            exceptions.PermissionDeniedError(TOLD + "403 Forbidden: " + xml("AccessDenied")),
            PermissionError,
            "the store refuses access (AccessDenied: m)",
        ),
        (
            exceptions.GenericError(TOLD + "403 Forbidden: Debug source: X"),
            PermissionError,
            "the store refuses access (403 Forbidden)",
        ),
        (
            exceptions.PermissionDeniedError(TOLD + xml("InvalidAccessKeyId")),
            UnusableStoreError,
            "the store does not accept the credentials (InvalidAccessKeyId: m)",
        ),
        (
            exceptions.GenericError(TOLD + "400 Bad Request: " + xml("ExpiredToken")),
            UnusableStoreError,
            "the store does not accept the credentials (ExpiredToken: m)",
        ),
        (
            exceptions.GenericError("Received redirect without LOCATION, an incorrect region"),
            UnusableStoreError,
            "the bucket is in another region; set AWS_REGION",
        ),
        (
            exceptions.GenericError("PUT http://169.254.169.254/latest/api/token in 1ms - no"),
            UnusableStoreError,
            "no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE; "
            "for a public bucket AWS_SKIP_SIGNATURE=true",
        ),
        (
            exceptions.GenericError(TOLD + "503 Service Unavailable: " + xml("SlowDown")),
            ConnectionError,
            "the object store fails (SlowDown: m)",
        ),
        (exceptions.AlreadyExistsError(TOLD + xml("PreconditionFailed")), FileExistsError, ""),
        (exceptions.InvalidPathError("empty path segment"), ConfigError, "empty path segment"),
    ],
)
def test_every_error_is_one_line_of_its_kind(error, kind, message):
    told = explained("s3://b/a", error)
    assert type(told) is kind
    assert str(told).startswith(f"s3://b/a: {message}")
    assert "\n" not in str(told)
    assert "Debug" not in str(told)


@pytest.mark.s3
@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("http://127.0.0.1:1", "Connection refused"),
        ("http://no-such-host.invalid", "failed to lookup address"),
    ],
)
def test_a_store_that_cannot_be_reached_is_told_with_the_reason(
    flaky_uri, monkeypatch, address, reason
):
    monkeypatch.setenv("AWS_ENDPOINT_URL", address)
    with pytest.raises(ConnectionError, match=rf"/a: the object store fails \(.*{reason}"):
        storage.read_bytes(f"{flaky_uri}/a")


@pytest.mark.s3
def test_a_cut_answer_is_told_as_that(flaky_uri, faults):
    storage.write_bytes(f"{flaky_uri}/a", bytes(5000))
    faults.cut_every = 1
    with pytest.raises(ConnectionError, match=r"fails \(request or response body error: Incomp"):
        storage.read_bytes(f"{flaky_uri}/a")


@pytest.mark.s3
def test_a_store_without_credentials_is_not_asked_again(flaky_uri, faults, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    with pytest.raises(UnusableStoreError, match=f"^{flaky_uri}: no credentials for S3; set AWS_"):
        locate(f"{flaky_uri}/a")


def test_a_bucket_of_google_without_credentials_is_told_how_to_get_some():
    error = exceptions.GenericError("http://metadata.google.internal/computeMetadata: no")
    told = explained("gs://b/a", error)
    assert "GOOGLE_APPLICATION_CREDENTIALS" in str(told)
