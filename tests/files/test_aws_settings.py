import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from ctc_ray.files.aws_settings import bucket_region, bucket_settings
from ctc_ray.files.retries import UnusableStoreError

PUT = Callable[[str, str], None]


@pytest.fixture
def profiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PUT:
    """Writes the credentials and the config file of AWS; the environment has no keys."""
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "PROFILE", "SKIP_SIGNATURE", "REGION"):
        monkeypatch.delenv(f"AWS_{name}", raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))

    def put(credentials: str, config: str = "") -> None:
        (tmp_path / "credentials").write_text(credentials)
        (tmp_path / "config").write_text(config)

    return put


def test_keys_of_the_environment_win_and_obstore_reads_them(profiles, monkeypatch):
    profiles("[default]\naws_access_key_id = A\naws_secret_access_key = B\n")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "C")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:2")
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    assert bucket_settings("b") == {"endpoint": "http://127.0.0.1:2", "region": "eu-west-1"}


def test_keys_of_the_profile_are_found(profiles, monkeypatch):
    profiles(
        "[default]\naws_access_key_id = A\naws_secret_access_key = B%C\n"
        "[mine]\naws_access_key_id = D\naws_secret_access_key = E\naws_session_token = F\n"
    )
    settings = {"endpoint": "http://127.0.0.1:1", "region": "us-east-1"}
    keys = {"access_key_id": "A", "secret_access_key": "B%C"}
    assert bucket_settings("b") == {**settings, **keys}
    monkeypatch.setenv("AWS_PROFILE", "mine")
    keys = {"access_key_id": "D", "secret_access_key": "E", "session_token": "F"}
    assert bucket_settings("b") == {**settings, **keys}


@pytest.mark.parametrize(
    ("credentials", "config", "profile", "message"),
    [
        ("", "", "mine", "AWS_PROFILE: ~/.aws has no profile 'mine'"),
        ("", "[profile mine]\nsso_session = x\n", "mine", "aws configure export-credentials"),
        ("", "[default]\nrole_arn = x\nsource_profile = y\n", "", "export-credentials"),
        ("no section", "", "", "~/.aws cannot be read: .*no section"),
    ],
)
def test_a_profile_that_gives_no_keys_is_told(
    profiles, monkeypatch, credentials, config, profile, message
):
    profiles(credentials, config)
    monkeypatch.setenv("AWS_PROFILE", profile)
    with pytest.raises(UnusableStoreError, match=message):
        bucket_settings("b")


def test_nobody_is_asked_for_credentials_where_nobody_has_any(profiles, monkeypatch):
    profiles("")
    assert set(bucket_settings("b")) == {"endpoint", "region"}  # the machine may have a role
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(UnusableStoreError, match="no credentials for S3; set AWS_ACCESS_KEY_ID"):
        bucket_settings("b")
    monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")
    assert set(bucket_settings("b")) == {"endpoint", "region"}


class _Aws(BaseHTTPRequestHandler):
    """Answers as AWS answers a stranger: of the region, not of the bucket."""

    def do_HEAD(self) -> None:
        status = {"/mine": 403, "/far": 301, "/open": 200}.get(self.path, 404)
        self.send_response(status)
        if status == 301:
            self.send_header("Location", "/missing")
        if status != 404:
            self.send_header("x-amz-bucket-region", f"eu-{self.path[1:]}")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def aws() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), _Aws)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("bucket", ["mine", "far", "open"])
def test_the_region_of_a_bucket_is_asked_for(aws, bucket):
    assert bucket_region(f"{aws}/{bucket}") == f"eu-{bucket}"


def test_without_an_endpoint_the_region_of_the_bucket_wins(aws, profiles, monkeypatch):
    profiles("")
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    monkeypatch.setenv("AWS_REGION", "ap-south-1")
    assert bucket_settings("far", aws=aws) == {"region": "eu-far"}
    with pytest.raises(FileNotFoundError, match="no such bucket"):
        bucket_settings("nowhere", aws=aws)
