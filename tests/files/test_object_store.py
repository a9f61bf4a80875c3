import os

import boto3
import pytest

from ctc_ray.errors import ConfigError
from ctc_ray.files import object_store, storage

pytestmark = pytest.mark.s3


def put(bucket_uri: str, *keys: str) -> None:
    """Empty objects of any name, also such as obstore cannot make."""
    client = boto3.client("s3", region_name="us-east-1")
    for key in keys:
        client.put_object(Bucket=bucket_uri.removeprefix("s3://"), Key=key, Body=b"")


def test_a_file_is_read_here_and_there(s3_bucket_uri):
    content = os.urandom(200_000)
    storage.write_bytes(f"{s3_bucket_uri}/a", content)
    file = object_store.ObjectFile(f"{s3_bucket_uri}/a")
    assert file.seek(0, os.SEEK_END) == file.tell() == 200_000
    for start, size in ((0, 10), (100_000, 50_000), (130_000, 70_000), (199_990, 99), (3, 0)):
        file.seek(start)
        assert file.read(size) == content[start : start + size]
    file.seek(150_000)
    assert file.read() == content[150_000:]
    assert file.read(5) == b""


def test_the_end_of_a_file_comes_with_its_size_in_one_request(flaky_uri, faults):
    storage.write_bytes(f"{flaky_uri}/a", bytes(200_000))
    faults.refuse_every = 1 << 30  # only counts
    file = object_store.ObjectFile(f"{flaky_uri}/a")
    file.seek(-60_000, os.SEEK_END)
    assert file.read(9) == bytes(9)
    assert next(faults.requests) == 2
    file.seek(0)
    file.read(100_000)
    assert next(faults.requests) == 4


def test_the_start_of_a_file_is_one_request(flaky_uri, faults):
    storage.write_bytes(f"{flaky_uri}/a", b"12345")
    faults.refuse_every = 1 << 30  # only counts
    assert storage.read_bytes(f"{flaky_uri}/a", 3) == b"123"
    assert next(faults.requests) == 2


def test_an_empty_object_is_an_empty_file(s3_bucket_uri):
    storage.write_bytes(f"{s3_bucket_uri}/a", b"")
    assert object_store.ObjectFile(f"{s3_bucket_uri}/a").read() == b""
    assert storage.read_bytes(f"{s3_bucket_uri}/a", 5) == b""
    assert storage.open_file(f"{s3_bucket_uri}/a").size() == 0


def test_a_large_object_is_written_in_parts(s3_bucket_uri):
    content = os.urandom(1 << 20) * 20
    storage.write_chunks(f"{s3_bucket_uri}/a", [content[: 9 << 20], content[9 << 20 :]])
    assert storage.read_bytes(f"{s3_bucket_uri}/a") == content
    assert storage.open_stream(f"{s3_bucket_uri}/a").read() == content


def test_empty_objects_that_stand_for_folders_are_no_files(s3_bucket_uri):
    put(s3_bucket_uri, "f/", "f/a", "f/sub/", "f/sub/b", "f/sub-c", "f/alone/", "f/empty")
    assert list(storage.list_files(f"{s3_bucket_uri}/f")) == [
        f"{s3_bucket_uri}/f/{name}" for name in ("a", "empty", "sub-c", "sub/b")
    ]
    assert storage.folders_in(f"{s3_bucket_uri}/f") >= {"sub"}
    assert storage.is_folder(f"{s3_bucket_uri}/f/sub")
    assert not storage.is_file(f"{s3_bucket_uri}/f/sub")


@pytest.mark.parametrize("key", ["f/x//y.jpg", "f/./z", "f/..", "f/tab\t"])
def test_a_name_that_cannot_be_listed_is_told_and_not_left_out(s3_bucket_uri, key):
    put(s3_bucket_uri, "f/a", key)
    assert storage.is_folder(f"{s3_bucket_uri}/f")
    with pytest.raises(ConfigError, match=r"/f: .*[Pp]ath.*; rename or delete this object"):
        list(storage.list_files(f"{s3_bucket_uri}/f"))


def test_folders_of_a_bucket(s3_bucket_uri):
    put(s3_bucket_uri, "a/b/c", "a/d", "e/f", "g")
    assert storage.folders_in(s3_bucket_uri) == {"a", "e"}
    assert storage.folders_in(f"{s3_bucket_uri}/a") == {"b"}
    storage.delete_folder(f"{s3_bucket_uri}/a")
    assert [uri.rpartition("/")[2] for uri in storage.list_files(s3_bucket_uri)] == ["f", "g"]
