from pathlib import Path

import pytest
from builders import bytes_below, inventory_config, write_events

from ctc_ray import tables
from ctc_ray.config.inventory import (
    CamtrapDpInventoryConfig,
    CocoInventoryConfig,
    CsvInventoryConfig,
    DirInventoryConfig,
    JsonInventoryConfig,
    MegadetectorInventoryConfig,
)
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


@pytest.mark.real_data
def test_boxes_of_megadetector_come_to_the_rows_of_a_coco_inventory(
    tmp_path: Path, shared_data: Path
) -> None:
    folder = shared_data / "photos" / "ena24_small" / "images" / "ena24_small"
    coco = CocoInventoryConfig(
        source_uri=str(folder / "coco_annotations.json"), output_uri=str(tmp_path / "coco")
    )
    assert create_inventory.run(coco).rows_out == 21
    config = MegadetectorInventoryConfig(
        source_uri=str(folder / "md_annotations.json"),
        inventory_uri=str(tmp_path / "coco"),
        output_uri=str(tmp_path / "boxed"),
    )
    manifest = create_inventory.run(config)
    assert set(manifest.inputs) == {config.source_uri, config.inventory_uri}
    assert manifest.counts["findings"] == {"replaced_boxes": 21}
    before, after = (tables.read_folder(str(tmp_path / name)) for name in ("coco", "boxed"))
    assert after.drop_columns("boxes").equals(before.drop_columns("boxes"))
    confidences = [row[0]["confidence"] for row in after["boxes"].to_pylist()]
    assert min(confidences) > 0.5
    assert create_inventory.run(config) == manifest


@pytest.mark.real_data
def test_camtrap_dp_package_becomes_one_row_per_image(tmp_path: Path, shared_data: Path) -> None:
    config = CamtrapDpInventoryConfig(
        source_uri=str(shared_data / "photos" / "camtrapdp_example"),
        output_uri=str(tmp_path / "out"),
    )
    manifest = create_inventory.run(config)
    assert (manifest.rows_out, manifest.counts["events"]) == (423, 34)
    assert list(manifest.classes) == ["species", "count", "lifeStage", "sex", "behavior"]
    assert create_inventory.run(config) == manifest
