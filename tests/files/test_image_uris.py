"""What rows of other people's tables may name, and a wrong root that is noticed at once."""

import time
from pathlib import Path

import pytest

from ctc_ray.errors import ConfigError, holds_credentials, masked
from ctc_ray.files import storage
from ctc_ray.files.image_uris import image_uri, require_reachable
from ctc_ray.files.prefetch import fetch, prefetch_files
from ctc_ray.schemas import Failure

NO = Failure.NOT_ALLOWED


@pytest.mark.parametrize(
    ("root", "uri", "allow", "found"),
    [
        ("/root", "a/b.jpg", (), "/root/a/b.jpg"),
        ("/root", "/a/b.jpg", (), "/root/a/b.jpg"),
        ("/root", "a..b/c..jpg", (), "/root/a..b/c..jpg"),
        ("/root", "../etc/passwd", (), NO),
        ("/root", "a/../../b.jpg", (), NO),
        ("/root", "..", (), NO),
        ("s3://b/p", "../other/x.jpg", (), NO),
        ("/root", "s3://b/x.jpg", (), NO),
        ("/root", "s3://b/x.jpg", ("s3",), "s3://b/x.jpg"),
        ("/root", "file:///etc/passwd", (), NO),
        ("/root", "FILE:///etc/passwd", (), NO),
        ("/root", "file:///etc/passwd", ("file",), "file:///etc/passwd"),
        (None, "file:///etc/passwd", (), NO),
        ("/root", "file:///a%E9.jpg", (), "file:///a%E9.jpg"),  # not UTF-8: it has no other name
        ("s3://b/p", "s3://c/x.jpg", (), "s3://c/x.jpg"),
        ("s3://b/p", "gs://c/x.jpg", (), NO),
        ("s3://b/p", "https://c/x.jpg", (), NO),
        (None, "s3://c/x.jpg", (), "s3://c/x.jpg"),
        (None, "../a.jpg", (), NO),
        (None, "s3://[::1]/x", (), NO),
        (None, "s3://b/x.jpg?X-Amz-Signature=1f", (), NO),
        (None, "s3://169.254.169.254/x.jpg", (), NO),
        ("s3://b", "s3://169.254.169.254/latest/meta-data", ("s3",), NO),
        (None, "s3://key:secret@bucket/x.jpg", (), NO),
        (None, "s3://bucket/a@b.jpg", (), "s3://bucket/a@b.jpg"),
        (None, "s3://bucket/1.2.3.4/x.jpg", (), "s3://bucket/1.2.3.4/x.jpg"),
    ],
)
def test_a_row_names_only_what_lies_below_the_root(root, uri, allow, found) -> None:
    assert image_uri(root, uri, allow=allow) == found


def test_what_is_not_allowed_is_not_read_and_costs_no_time(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"1")
    rows = ["a.jpg", "../secret", "s3://169.254.169.254/x.jpg"] * 20
    began = time.monotonic()
    uris = [image_uri(str(tmp_path), uri) for uri in rows]
    contents = [file.raw for group in prefetch_files(uris, None) for file in group]
    assert contents == [b"1", NO, NO] * 20
    assert time.monotonic() - began < 5  # 57 s for one such row before
    assert fetch(NO) is NO


@pytest.mark.parametrize("root", [None, "right", "wrong"])
def test_a_wrong_root_is_told_with_the_first_path_that_was_tried(
    tmp_path: Path, monkeypatch, root: str | None
) -> None:
    (tmp_path / "right" / "x").mkdir(parents=True)
    (tmp_path / "wrong").mkdir()
    (tmp_path / "right" / "x" / "7.jpg").write_bytes(b"1")
    monkeypatch.chdir(tmp_path)
    uris = [f"x/{n}.jpg" for n in range(9)]
    where = None if root is None else str(tmp_path / root)
    if root == "right":
        require_reachable(uris, root_uri=where, allow=(), n_rows=9)
        return
    first = "x/0.jpg" if where is None else f"{where}/x/0.jpg"
    with pytest.raises(
        ConfigError, match=rf"none of 9 .* is there .of 9., first {first}: is --image-root-uri"
    ) as e:
        require_reachable(uris, root_uri=where, allow=(), n_rows=9)
    assert "--image-root-uri" in str(e.value)
    assert "max-failure" not in str(e.value)


def test_the_first_image_that_was_tried_is_named_beside_images_that_were_not(
    tmp_path: Path,
) -> None:
    uris = ["https://example.org/a.jpg", "b.jpg", "c.jpg"]
    with pytest.raises(ConfigError, match=rf"first {tmp_path}/b.jpg: is --image-root-uri"):
        require_reachable(uris, root_uri=str(tmp_path), allow=(), n_rows=9)


@pytest.mark.s3
def test_a_wrong_prefix_of_a_bucket_is_told_too(s3_bucket_uri: str) -> None:
    storage.write_bytes(f"{s3_bucket_uri}/photos/a.jpg", b"1")
    require_reachable(["a.jpg", "b.jpg"], root_uri=f"{s3_bucket_uri}/photos", allow=(), n_rows=9)
    with pytest.raises(ConfigError, match=rf"first {s3_bucket_uri}/other/a.jpg: is --image"):
        require_reachable(["a.jpg", "b.jpg"], root_uri=f"{s3_bucket_uri}/other", allow=(), n_rows=9)


def test_rows_that_are_all_not_allowed_are_told() -> None:
    with pytest.raises(ConfigError, match=r"none of 1 .*s3://b/a.jpg: .*--allow-scheme"):
        require_reachable(["s3://b/a.jpg"], root_uri="/root", allow=(), n_rows=9)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("s3://AKIA:wJalr/XUt@bucket/x", "s3://AKIA:wJalr/XUt@bucket/x"),  # a slash ends the host
        ("no s3://AKIA:wJalr@bucket/x: denied", "no s3://***@bucket/x: denied"),
        ("https://user@host/a and gs://a:b@c/d", "https://***@host/a and gs://***@c/d"),
        ("s3://bucket/a@b.jpg", "s3://bucket/a@b.jpg"),
        ("https://h/x.jpg?a=1&X-Amz-Signature=1f2e&b=3 is", "https://h/x.jpg?a=1?*** is"),
        ("gs://b/x?x-goog-credential=me", "gs://b/x?***"),
        ("s3://b/what?sign=no.jpg", "s3://b/what?sign=no.jpg"),
    ],
)
def test_credentials_are_masked(text: str, shown: str) -> None:
    assert masked(text) == shown
    assert holds_credentials(text) == (text != shown)
