"""Class folders: every file is an event; ids are the original's if they are unique."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctc_ray.errors import ConfigError
from ctc_ray.inventory.sources.class_folders import event_ids, read_dir
from ctc_ray.inventory.sources.files import FoundFile
from ctc_ray.schemas import inventory_schema


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def ids(*paths: str) -> list[str]:
    return event_ids([FoundFile(path, path) for path in paths])


def test_folder_is_the_class_of_its_files(tmp_path):
    touch(tmp_path, "Cats/a.jpg", "dogs/b.PNG")

    inventory = read_dir(str(tmp_path))

    assert inventory.table.schema.equals(inventory_schema(["class"]))
    assert inventory.table["capture_event_id"].to_pylist() == ["Cats#a", "dogs#b"]
    assert inventory.table["image_uri"].to_pylist() == [
        f"{tmp_path}/Cats/a.jpg",
        f"{tmp_path}/dogs/b.PNG",
    ]
    assert inventory.table["observations"].to_pylist() == [[{"class": "Cats"}], [{"class": "dogs"}]]
    assert inventory.findings.counts == {}


def test_no_file_is_left_out_by_its_name(tmp_path):
    names = ["a.jpg", "a.png", "b.1.jpg", "b.2.jpg", "Thumbs.db", ".hidden", "noext", "sub/x/a.jpg"]
    touch(tmp_path, *(f"Cats/{name}" for name in names))

    inventory = read_dir(str(tmp_path))

    assert inventory.table.num_rows == len(names)
    assert sorted(inventory.table["capture_event_id"].to_pylist()) == [
        "Cats#", "Cats#Thumbs", "Cats#a.jpg", "Cats#a.png",
        "Cats#b.1.jpg", "Cats#b.2.jpg", "Cats#noext", "Cats#sub/x/a",
    ]  # fmt: skip


def test_equal_ids_get_more_of_the_path_until_they_differ():
    assert ids("A/a.jpg", "B/a.jpg") == ["A#a", "B#a"]
    assert ids("A/a.jpg", "A/a.png", "A/b.jpg") == ["A#a.jpg", "A#a.png", "A#b"]
    assert ids("A/s/a.jpg", "A/s/a.png") == ["A#s/a.jpg", "A#s/a.png"]
    assert ids("A#b/c.jpg", "A/b#c.jpg") == ["A#b/c.jpg", "A/b#c.jpg"]
    assert ids("A/a.jpg.jpg", "A/a.png") == ["A#a.jpg.jpg", "A#a"]


def test_id_of_a_name_with_several_dots_does_not_depend_on_other_files():
    assert ids("A/cat.1.jpg") + ids("A/cat.2.jpg") == ids("A/cat.1.jpg", "A/cat.2.jpg")


name = st.text(st.sampled_from("ab.#/\udce9%"), min_size=1, max_size=5)


@given(st.sets(st.tuples(st.sampled_from(["A", "A#a"]), name), min_size=1))
def test_different_files_are_different_events_with_valid_ids(files):
    found = ids(*(f"{folder}/{name}" for folder, name in files))

    assert len(set(found)) == len(files)
    assert all(event_id.encode() for event_id in found)


def test_name_that_is_not_utf8_is_an_event_too(tmp_path):
    touch(tmp_path, "Cats/a.jpg")
    with open(os.path.join(os.fsencode(tmp_path), b"Cats", b"\xe9.jpg"), "wb"):
        pass

    inventory = read_dir(str(tmp_path))

    assert inventory.table["capture_event_id"].to_pylist() == ["Cats#%E9", "Cats#a"]


def test_files_without_class_and_classes_without_files_are_counted(tmp_path):
    touch(tmp_path, "Cats/a.jpg", "readme.txt", "list.csv")
    (tmp_path / "empty" / "deeper").mkdir(parents=True)

    inventory = read_dir(str(tmp_path))

    assert inventory.table.num_rows == 1
    assert inventory.findings.counts == {"files_outside_class_folders": 2, "empty_class_folders": 1}


def test_folder_without_classes_is_an_error(tmp_path):
    touch(tmp_path, "a.jpg")
    with pytest.raises(ConfigError, match=r"no class folder in it; expected .*/<class>/<image>"):
        read_dir(str(tmp_path))

    (tmp_path / "Cats").mkdir()
    with pytest.raises(ConfigError, match="no file in its 1 class folder"):
        read_dir(str(tmp_path))
    with pytest.raises(ConfigError, match="no such folder"):
        read_dir(str(tmp_path / "nowhere"))
