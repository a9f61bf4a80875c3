import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from builders import bytes_below, inventory_config, photograph, write_events

from ctc_ray.config.inventory import (
    CamtrapDpInventoryConfig,
    CocoInventoryConfig,
    CsvInventoryConfig,
    DirInventoryConfig,
    ImagesInventoryConfig,
    JsonInventoryConfig,
    MegadetectorInventoryConfig,
)
from ctc_ray.errors import ConfigError, SchemaError
from ctc_ray.files import parquet, storage
from ctc_ray.runs.manifest import read_manifest
from ctc_ray.stages.create_inventory import stage as create_inventory


def test_csv_becomes_one_row_per_image(tmp_path: Path) -> None:
    config = inventory_config(write_events(tmp_path, n_events=6), tmp_path / "out")
    manifest = create_inventory.run(config)
    assert manifest.rows_out == 12  # 1 + 2 + 3 + 1 + 2 + 3 images
    assert manifest.summary["events"] == 6
    assert parquet.read_folder(config.output_uri).num_rows == 12


def test_label_statistics_show_missing_labels_as_missing(tmp_path: Path) -> None:
    config = inventory_config(write_events(tmp_path, n_events=6), tmp_path / "out")
    rows = create_inventory.run(config).summary["labels of count (per observation)"]
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


def test_a_file_is_not_read_to_tell_that_its_inventory_is_finished_or_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = inventory_config(write_events(tmp_path), tmp_path / "out")
    first = create_inventory.run(config)
    monkeypatch.delattr(create_inventory, "_read")
    assert create_inventory.run(config) == first
    with pytest.raises(ConfigError, match=r"out: holds work of another .*event_gap_s: 60.* 5.*now"):
        create_inventory.run(config.replaced(event_gap_s=5))


def test_finished_inventory_of_a_source_that_is_gone_is_an_error(tmp_path: Path) -> None:
    source = write_events(tmp_path)
    config = inventory_config(source, tmp_path / "out")
    create_inventory.run(config)
    source.unlink()
    with pytest.raises(ConfigError, match=r"csv: no such file$"):
        create_inventory.run(config)


def test_changed_source_is_an_error_until_overwrite(tmp_path: Path) -> None:
    config = inventory_config(write_events(tmp_path, n_events=3), tmp_path / "out")
    create_inventory.run(config)
    write_events(tmp_path, n_events=4)
    with pytest.raises(ConfigError, match="another configuration"):
        create_inventory.run(config)
    assert create_inventory.run(config.replaced(overwrite=True)).summary["events"] == 4


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
    assert read_manifest(str(tmp_path / "out"), "inventory").summary["events"] == 12


def images_config(source: Path, output: Path, **fields: object) -> ImagesInventoryConfig:
    return ImagesInventoryConfig.model_validate(
        {"source_uri": str(source), "output_uri": str(output), **fields}
    )


def findings_of(folder: Path) -> list[tuple[str, str]]:
    rows = parquet.read_table(str(folder / create_inventory.FINDINGS_FILE)).to_pylist()
    return [(row["kind"], row["row"]) for row in rows]


def test_class_folders_set_aside_what_is_no_image_and_keep_what_was_meant_to_be_one(
    tmp_path: Path,
) -> None:
    root = tmp_path / "root"
    (root / "Cats" / "deeper").mkdir(parents=True)
    for name in ("a.jpg", "deeper/noext", "wrong.txt"):
        (root / "Cats" / name).write_bytes(photograph("red", seed=1))
    (root / "Cats" / "empty.JPG").write_bytes(b"")
    for name in ("Thumbs.db", "deeper/desktop.ini", "list.csv"):
        (root / "Cats" / name).write_bytes(b"text\n")
    config = DirInventoryConfig(source_uri=str(root), output_uri=str(tmp_path / "out"))
    manifest = create_inventory.run(config)
    ids = parquet.read_folder(config.output_uri)["capture_event_id"].to_pylist()
    assert ids == ["Cats#a", "Cats#deeper/noext", "Cats#empty", "Cats#wrong"]
    assert manifest.findings["not_an_image"] == 3


def test_folder_that_cannot_be_listed_is_a_finding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("open", "closed"):
        (tmp_path / "root" / name).mkdir(parents=True)
        (tmp_path / "root" / name / "a.jpg").write_bytes(photograph("red", seed=1))
    scandir = os.scandir

    def refuse(path: str) -> Iterator[os.DirEntry[str]]:  # as for anybody but root
        if str(path).endswith("closed"):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    manifest = create_inventory.run(images_config(tmp_path / "root", tmp_path / "out"))
    assert manifest.rows_out == 1
    found = findings_of(tmp_path / "out")
    assert ("unreadable_folders", str(tmp_path / "root" / "closed")) in found


@pytest.mark.real_data
def test_bursts_of_a_real_camera_are_its_events(tmp_path: Path, shared_data: Path) -> None:
    layout = "{location}/{deployment}"
    config = images_config(
        shared_data / "photos" / "peru_bursts", tmp_path / "out", layout=layout, event_gap_s=30
    )
    manifest = create_inventory.run(config)
    rows = parquet.read_folder(config.output_uri).to_pylist()
    assert (manifest.rows_out, manifest.summary["events"]) == (51, 17)
    assert {row["n_images"] for row in rows} == {3}
    assert {(row["location_id"], row["deployment_id"]) for row in rows} == {("S90", "SDZG 2")}
    events: dict[str, list[str]] = {}
    for row in rows:
        events.setdefault(row["capture_event_id"], []).append(row["image_uri"])
    numbers = [[int(uri[-7:-4]) for uri in uris] for uris in events.values()]
    assert all(n[1] == n[0] + 1 and n[2] == n[0] + 2 for n in numbers)  # several share a second
    assert manifest.findings == {"not_an_image": 5}  # and no clock was reset


@pytest.mark.real_data
def test_each_odd_file_is_a_row_or_a_finding(tmp_path: Path, shared_data: Path) -> None:
    root = shared_data / "malformed"
    config = images_config(root, tmp_path / "out")
    create_inventory.run(config)
    rows = parquet.read_folder(config.output_uri)["image_uri"].to_pylist()
    aside = [row for kind, row in findings_of(tmp_path / "out") if kind == "not_an_image"]
    there = [str(path) for path in root.rglob("*") if path.is_file()]
    assert sorted([*rows, *(str(root / path) for path in aside)]) == sorted(there)
    broken = [row for kind, row in findings_of(tmp_path / "out") if kind == "broken_times"]
    assert [Path(row).stem for row in broken] == [
        "exifdate_month13", "exifdate_text", "exifdate_zeros",
    ]  # fmt: skip


@pytest.mark.real_data
def test_images_without_exif_are_rows_without_time(tmp_path: Path, shared_data: Path) -> None:
    config = images_config(shared_data / "photos" / "wellington_sequences", tmp_path / "out")
    manifest = create_inventory.run(config)
    assert (manifest.rows_out, manifest.summary["events"]) == (45, 45)
    assert manifest.findings["images_without_time"] == 45


def test_layout_that_is_none_is_an_error_before_the_source_is_looked_at(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^layout: '\{a' cannot be read"):
        create_inventory.run(images_config(tmp_path / "nowhere", tmp_path / "out", layout="{a"))


def test_csv_without_events_gets_them_from_times(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(
        "file;cam;when\nb.jpg;1;2021-04-11 20:00:40\na.jpg;1;2021-04-11 20:00:00\n"
        "c.jpg;1;2021-04-11 20:01:11\n"
    )
    config = CsvInventoryConfig(
        source_uri=str(tmp_path / "a.csv"),
        output_uri=str(tmp_path / "out"),
        image_columns=("file",),
        deployment_column="cam",
        captured_at_column="when",
        event_gap_s=30,
    )
    assert create_inventory.run(config).summary["events"] == 3
    longer = config.replaced(event_gap_s=40, overwrite=True)
    assert create_inventory.run(longer).summary["events"] == 1
    cut = longer.replaced(max_images_per_event=2)
    assert create_inventory.run(cut).summary["events"] == 2


@pytest.mark.s3
def test_tree_in_an_object_store_is_as_one_on_the_disk(tmp_path: Path, s3_bucket_uri: str) -> None:
    for place, name in enumerate(["L/D/1.jpg", "L/D/2", "L/E/Thumbs.db", "L/x.jpg"]):
        content = photograph("red", seed=place) if "Thumbs" not in name else b"text"
        for root in (str(tmp_path / "tree"), f"{s3_bucket_uri}/tree"):
            storage.write_bytes(f"{root}/{name}", content)
    found = []
    for n, root in enumerate([str(tmp_path / "tree"), f"{s3_bucket_uri}/tree"]):
        config = images_config(Path(), tmp_path / f"out{n}", layout="{location}/{deployment}")
        manifest = create_inventory.run(config.replaced(source_uri=root))
        rows = parquet.read_folder(config.output_uri).to_pylist()
        places = [
            (row["image_uri"].removeprefix(root), row["location_id"], row["deployment_id"])
            for row in rows
        ]
        found.append((sorted(places), manifest.findings, findings_of(tmp_path / f"out{n}")))
    assert found[0] == found[1]
    assert [place for place, _, _ in found[0][0]] == ["/L/D/1.jpg", "/L/D/2", "/L/x.jpg"]


def test_checks_of_labels_and_files_are_findings_with_examples(tmp_path: Path) -> None:
    csv_path = write_events(tmp_path, n_events=6, broken=[1])
    same = tmp_path / "images" / "e003_0.jpg"
    same.write_bytes((tmp_path / "images" / "e000_0.jpg").read_bytes())
    config = inventory_config(csv_path, tmp_path / "out").replaced(
        image_root_uri=str(tmp_path), check_files=True, same_content=True, rare_class_events=3
    )
    manifest = create_inventory.run(config)
    assert manifest.rows_out == 12
    assert manifest.findings == {
        "rare_classes": 5,  # red, green, blue, 1 and 2: two events each
        "missing_files": 2,
        "same_content": 1,
    }
    shown = {row["finding"]: row["such as"] for row in manifest.summary["examples of findings"]}
    assert shown["same_content"] == "images/e003_0.jpg (images/e000_0.jpg)"
    rows = parquet.read_folder(config.output_uri).to_pylist()
    hashes = {row["image_uri"]: row["content_hash"] for row in rows}
    assert hashes["images/e003_0.jpg"] == hashes["images/e000_0.jpg"]
    assert hashes["images/e001_0.jpg"] is None  # it is not there
    assert len(set(hashes.values())) == 12 - 2
    assert shown["missing_files"].startswith("images/e001_0.jpg (no file ")


@pytest.mark.real_data
def test_labels_of_real_class_folders_are_checked(tmp_path: Path, shared_data: Path) -> None:
    source = shared_data / "labelled" / "cats_dogs" / "test" / "test_images"
    config = DirInventoryConfig(
        source_uri=str(source), output_uri=str(tmp_path / "out"), rare_class_events=57
    )
    create_inventory.run(config)
    rows = parquet.read_table(str(tmp_path / "out" / create_inventory.FINDINGS_FILE)).to_pylist()
    assert [(row["row"], row["detail"]) for row in rows] == [("class: Dogs", "56 events")]


@pytest.mark.real_data
def test_files_that_a_real_csv_names_but_nobody_has_are_told(
    tmp_path: Path, shared_data: Path
) -> None:
    originals = shared_data / "annotations" / "camera_trap_classifier_test_files"
    root = shared_data / "labelled" / "cats_dogs"
    config = CsvInventoryConfig(
        source_uri=str(originals / "cats_vs_dogs_multi.csv"),
        output_uri=str(tmp_path / "out"),
        event_column="id",
        image_columns=("image",),
        image_root_uri=str(root),
        check_files=True,
    )
    assert create_inventory.run(config).rows_out == 119
    rows = parquet.read_folder(config.output_uri)["image_uri"].to_pylist()
    gone = [uri for uri in rows if not (root / uri).is_file()]
    assert len(gone) == 2
    told = [row for kind, row in findings_of(tmp_path / "out") if kind == "missing_files"]
    assert sorted(told) == sorted(gone)


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
    assert manifest.findings == {"replaced_boxes": 21}
    before, after = (parquet.read_folder(str(tmp_path / name)) for name in ("coco", "boxed"))
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
    assert (manifest.rows_out, manifest.summary["events"]) == (423, 34)
    assert list(manifest.classes) == ["species", "count", "lifeStage", "sex", "behavior"]
    assert create_inventory.run(config) == manifest


def test_identical_files_below_a_wrong_root_are_not_looked_for(tmp_path: Path) -> None:
    csv_path = write_events(tmp_path, n_events=6, broken=[])
    config = inventory_config(csv_path, tmp_path / "out").replaced(
        image_root_uri=str(tmp_path / "images"), same_content=True
    )
    first = tmp_path / "images" / "images" / "e000_0.jpg"
    with pytest.raises(ConfigError, match=rf"none of 12 images .* first {first}: is --image-root"):
        create_inventory.run(config)
    assert not (tmp_path / "out").exists()
    manifest = create_inventory.run(config.replaced(check_files=True))  # asks for a list of them
    assert manifest.findings["missing_files"] == 12
