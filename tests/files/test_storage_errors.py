import errno
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctc_ray.files import storage
from ctc_ray.files.storage_errors import error_text, printable


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.ENOSPC, "no space left on this disk; free some space"),
        (errno.EDQUOT, "your quota here is used up"),
        (errno.EACCES, "permission denied; change its mode or owner"),
        (errno.EROFS, "this file system is read-only; choose another path"),
        (errno.ENOENT, "no such file or folder; check the spelling"),
        (errno.EISDIR, "is a folder, not a file; name a file in it"),
        (errno.ENOTDIR, "a part of this path is a file, not a folder"),
        (errno.EMFILE, "too many open files; raise the limit"),
    ],
)
def test_an_error_of_the_system_is_the_path_the_reason_and_the_way_out(number, message):
    text = error_text(OSError(number, os.strerror(number), "/data/a.csv"))
    assert text.startswith(f"/data/a.csv: {message}")
    assert "Errno" not in text


def test_real_errors_are_told_like_that(tmp_path):
    (tmp_path / "file").touch()
    calls = {
        f"{tmp_path}/no: no such": lambda: storage.read_bytes(f"{tmp_path}/no"),
        f"{tmp_path}/arrow: no such": lambda: storage.open_file(f"{tmp_path}/arrow"),
        f"{tmp_path}: is a folder": lambda: storage.read_bytes(str(tmp_path)),
        f"{tmp_path}: is a folder, not": lambda: storage.write_bytes(str(tmp_path), b""),
        f"{tmp_path}/file": lambda: storage.write_bytes(f"{tmp_path}/file/below", b""),
        f"{tmp_path}/{'n' * 300}: this name is too long": lambda: storage.write_bytes(
            f"{tmp_path}/{'n' * 300}", b""
        ),
    }
    for message, call in calls.items():
        with pytest.raises(OSError, match="Errno") as raised:
            call()
        assert error_text(raised.value).startswith(message)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write into every folder")
def test_a_folder_that_may_not_be_written_is_told(tmp_path):
    (tmp_path / "closed").mkdir(mode=0o500)
    with pytest.raises(PermissionError) as raised:
        storage.write_bytes(f"{tmp_path}/closed/a", b"")
    assert error_text(raised.value).startswith(f"{tmp_path}/closed/a: permission denied")


def test_an_error_of_a_store_is_told_as_it_is():
    assert error_text(ConnectionError("s3://b/a: the store\n fails")) == "s3://b/a: the store fails"


def test_a_character_that_steers_a_terminal_is_escaped():
    assert printable("a\x1b[2Jb\r\n\x07é日\x9b") == r"a\x1b[2Jb\r\n\x07é日\x9b"
    assert printable("\u202egpj.exe\ud83d\u2028") == r"\u202egpj.exe\ud83d\u2028"
    assert printable("one\ntwo\t\x1b", keep="\n\t") == "one\ntwo\t\\x1b"


@given(st.text())
def test_what_is_printable_is_one_line_that_can_be_encoded(text):
    assert len(printable(text).splitlines()) <= 1
    printable(text).encode()
    assert printable(printable(text)) == printable(text)
