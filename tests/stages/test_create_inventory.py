from pathlib import Path

import pytest
from builders import bytes_below, inventory_config, write_events

from ctc_ray import tables
from ctc_ray.config.inventory import CsvInventoryConfig, DirInventoryConfig, JsonInventoryConfig
from ctc_ray.errors import ConfigError, SchemaError
from ctc_ray.manifest import read_manifest
from ctc_ray.stages import create_inventory


def test_csv_becomes_one_row_per_image(tmp_path: Path) -> None:
    config = inventory_config(write_events(tmp_path, n_events=6), tmp_path / "out")
    manifest = create_inventory.run(config)
    assert manifest.rows_out == 12  # 1 + 2 + 3 + 1 + 2 + 3 images
    assert manifest.counts["events"] == 6
    assert tables.read_folder(config.output_uri).num_rows == 12


def test_label_statistics_show_missing_labels_as_missing(tmp_path: Path) -> None:
    config = inventory_config(write_events(tmp_path, n_events=6), tmp_path / "out")
    rows = create_inventory.run(config).counts["labels of count (per observation)"]
    assert {"label": None, "count": 2, "share": pytest.approx(1 / 3)} in rows


def test_same_run_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    csv_path = write_events(tmp_path)
    for name in ("a", "b"):
        create_inventory.run(inventory_config(csv_path, tmp_path / name))
    assert bytes_below(tmp_path / "a") == bytes_below(tmp_path / "b")


def test_finished_inventory_is_left_alone(tmp_path: Path) -> None:
    config = inventory_config(write_events(tmp_path), tmp_path / "out")
    first = create_inventory.run(config)
    before = (tmp_path / "out" / "part-00000.parquet").stat().st_mtime_ns
    assert create_inventory.run(config) == first
    assert (tmp_path / "out" / "part-00000.parquet").stat().st_mtime_ns == before


def test_changed_source_is_an_error_until_overwrite(tmp_path: Path) -> None:
    config = inventory_config(write_events(tmp_path, n_events=3), tmp_path / "out")
    create_inventory.run(config)
    write_events(tmp_path, n_events=4)
    with pytest.raises(ConfigError, match="another configuration"):
        create_inventory.run(config)
    assert create_inventory.run(config.replaced(overwrite=True)).counts["events"] == 4


def test_wrong_column_leaves_no_partial_inventory(tmp_path: Path) -> None:
    config = CsvInventoryConfig(
        source_uri=str(write_events(tmp_path)),
        output_uri=str(tmp_path / "out"),
        event_column="id",
        image_columns=("image1",),
    )
    with pytest.raises(SchemaError, match="column 'id' not found; columns are event, image1"):
        create_inventory.run(config)
    assert not (tmp_path / "out").exists()


@pytest.mark.real_data
def test_original_class_folders_become_the_head_class(tmp_path: Path, shared_data: Path) -> None:
    source = shared_data / "labelled" / "cats_dogs" / "test" / "test_images"
    config = DirInventoryConfig(source_uri=str(source), output_uri=str(tmp_path / "out"))
    manifest = create_inventory.run(config)
    assert manifest.rows_out == 119  # the original leaves out the name with two dots
    assert manifest.classes == {"class": ["Cats", "Dogs"]}


@pytest.mark.real_data
def test_original_json_keeps_its_valid_records(tmp_path: Path, shared_data: Path) -> None:
    source = shared_data / "annotations" / "camera_trap_classifier_test_files"
    config = JsonInventoryConfig(
        source_uri=str(source / "json_data_file.json"), output_uri=str(tmp_path / "out")
    )
    create_inventory.run(config)
    assert read_manifest(str(tmp_path / "out"), "inventory").counts["events"] == 12
