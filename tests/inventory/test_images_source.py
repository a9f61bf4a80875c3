"""A folder without labels: every file is an image and an event."""

import os

import pytest

from ctc_ray.errors import ConfigError
from ctc_ray.inventory.images_source import read_images
from ctc_ray.schemas import inventory_schema


def test_every_file_at_any_depth_is_an_event_named_by_its_path(tmp_path):
    for name in ("b.jpg", "a/c.1.jpg", "a/Thumbs.db"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")

    inventory = read_images(str(tmp_path))

    assert inventory.table.schema.equals(inventory_schema([]))
    assert inventory.heads == ()
    assert inventory.table["capture_event_id"].to_pylist() == ["a/Thumbs.db", "a/c.1.jpg", "b.jpg"]
    assert inventory.table["image_uri"].to_pylist() == [
        f"{tmp_path}/a/Thumbs.db",
        f"{tmp_path}/a/c.1.jpg",
        f"{tmp_path}/b.jpg",
    ]


def test_name_that_is_not_utf8_gets_a_valid_id(tmp_path):
    for name in (b"\xe9.jpg", b"%E9.jpg"):
        with open(os.path.join(os.fsencode(tmp_path), name), "wb"):
            pass

    inventory = read_images(str(tmp_path))

    assert inventory.table["capture_event_id"].to_pylist() == ["%E9.jpg", "/%E9.jpg"]


def test_folder_without_files_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match="no file in this folder"):
        read_images(str(tmp_path))
    with pytest.raises(ConfigError, match="no such folder"):
        read_images(str(tmp_path / "nowhere"))


@pytest.mark.real_data
def test_nothing_of_a_folder_of_odd_files_is_lost(shared_data):
    root = shared_data / "malformed"

    inventory = read_images(str(root))

    n_files = sum(len(names) for _, _, names in os.walk(root))
    assert inventory.table.num_rows == n_files
    assert len(set(inventory.table["capture_event_id"].to_pylist())) == n_files
