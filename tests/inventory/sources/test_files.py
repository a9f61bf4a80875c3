"""Files are found with their path below a folder, also if names are not UTF-8."""

import os
from pathlib import Path

import pytest

from ctc_ray.errors import ConfigError
from ctc_ray.files import storage
from ctc_ray.inventory.sources.files import (
    FoundFile,
    as_valid_text,
    find_files,
    one_event_per_file,
    unique_text,
)


def touch(root: Path, *names: bytes) -> None:
    for name in names:
        path = os.path.join(os.fsencode(root), name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb"):
            pass


@pytest.mark.parametrize("slash", ["", "/"])
def test_paths_are_relative_to_the_folder(tmp_path, slash):
    touch(tmp_path, b"b/c.jpg", b"a.jpg")

    assert find_files(f"{tmp_path}{slash}") == [
        FoundFile(f"{tmp_path}/a.jpg", "a.jpg"),
        FoundFile(f"{tmp_path}/b/c.jpg", "b/c.jpg"),
    ]


def test_relative_folder_stays_relative(tmp_path, monkeypatch):
    touch(tmp_path, b"x/a.jpg")
    monkeypatch.chdir(tmp_path)

    assert find_files("./x") == [FoundFile("./x/a.jpg", "a.jpg")]
    assert find_files("x/") == [FoundFile("x/a.jpg", "a.jpg")]


def test_name_that_is_not_utf8_is_found_and_its_uri_reads_back(tmp_path, monkeypatch):
    touch(tmp_path, b"x/\xe9.jpg")
    monkeypatch.chdir(tmp_path)

    for folder in (str(tmp_path / "x"), "./x"):
        (file,) = find_files(folder)
        assert file.path == "\udce9.jpg"
        assert file.uri.startswith("file:///")
        assert storage.read_bytes(file.uri) == b""


def test_folder_that_does_not_exist_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match="no such folder"):
        find_files(str(tmp_path / "nowhere"))


def test_different_paths_become_different_valid_texts():
    paths = ["\udce9.jpg", "%E9.jpg", "é.jpg", "a b.jpg"]

    texts = [unique_text(path) for path in paths]

    assert texts == ["/%E9.jpg", "%E9.jpg", "é.jpg", "a b.jpg"]
    assert as_valid_text("\udce9.jpg") == "%E9.jpg"


def test_every_file_is_one_row_and_one_event():
    rows = one_event_per_file(["e", "f"], [FoundFile("u/a", "a"), FoundFile("u/b", "b")], {})

    assert rows.event_ids.to_pylist() == ["e", "f"]
    assert rows.image_uris.to_pylist() == ["u/a", "u/b"]
    assert rows.image_rows.tolist() == [0, 1]
