import errno
import os
from collections.abc import Callable

import pytest

from ctc_ray.files import local_files, storage


def test_the_name_of_a_half_written_file_is_short_enough_whatever_the_name(tmp_path):
    for name in ("a", "日" * 85, "x" * 255):
        aside = local_files.aside_of(str(tmp_path / name), "0" * 32)
        open(aside, "w").close()
        assert storage.HALF_WRITTEN.fullmatch(os.path.basename(aside))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_disk_that_is_full_is_told_with_the_file_that_is_not_written(tmp_path, number):
    def pieces():
        yield b"1"
        raise OSError(number, os.strerror(number))  # as a write has it: of no file

    with pytest.raises(OSError, match=str(tmp_path / "a")) as raised:
        storage.write_chunks(str(tmp_path / "a"), pieces())
    assert raised.value.filename == str(tmp_path / "a")
    assert os.listdir(tmp_path) == []


def test_an_error_of_another_store_keeps_its_words(tmp_path):
    def pieces():
        yield b"1"
        raise ConnectionError("s3://b/a: cut")

    with pytest.raises(ConnectionError, match=r"^s3://b/a: cut$"):
        storage.write_chunks(str(tmp_path / "a"), pieces())


def test_a_file_that_arrow_cannot_open_is_named(tmp_path):
    with pytest.raises(FileNotFoundError) as raised:
        storage.open_file(str(tmp_path / "a"))
    assert raised.value.filename == str(tmp_path / "a")


def test_of_a_link_to_a_folder_only_the_link_is_deleted(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").touch()
    (tmp_path / "link").symlink_to(tmp_path / "photos")
    storage.delete_folder(str(tmp_path / "link"))
    storage.delete_folder(str(tmp_path / "nothing"))
    assert os.listdir(tmp_path) == ["photos"]
    assert os.listdir(tmp_path / "photos") == ["a.jpg"]


def failing(*numbers: int) -> Callable[[], bytes]:
    """A read that fails with each of these errors, then succeeds."""
    left = list(numbers)

    def read() -> bytes:
        if left:
            number = left.pop(0)
            raise OSError(number, os.strerror(number), "a.jpg")
        return b"content"

    return read


def test_a_read_is_tried_again_where_the_file_is_not_to_blame(monkeypatch):
    monkeypatch.setattr(local_files, "PAUSES_S", (0, 0))
    assert local_files.patiently(failing(errno.EMFILE, errno.EIO)) == b"content"
    with pytest.raises(PermissionError):
        local_files.patiently(failing(errno.EACCES))


def test_a_disk_that_does_not_answer_is_no_broken_file(monkeypatch):
    monkeypatch.setattr(local_files, "PAUSES_S", (0, 0))
    with pytest.raises(ConnectionError, match=r"a\.jpg: the network file system has lost"):
        local_files.patiently(failing(*[errno.ESTALE] * 3))
    with pytest.raises(OSError, match=r"a\.jpg") as raised:
        local_files.patiently(failing(*[errno.EIO] * 3))
    assert not isinstance(raised.value, ConnectionError)
