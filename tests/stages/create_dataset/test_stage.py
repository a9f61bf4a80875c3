from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.compute as pc
import pytest
import simplejpeg
from builders import bytes_below, dataset_config, inventory_config, photograph, write_events

from ctc_ray.config.dataset import CreateDatasetConfig, SplitConfig
from ctc_ray.config.inventory import CsvInventoryConfig, ImagesInventoryConfig
from ctc_ray.errors import ConfigError, IncompleteDataError, LabelError, TooManyFailuresError
from ctc_ray.files import parquet
from ctc_ray.runs.executor import InProcess
from ctc_ray.runs.manifest import Manifest, read_manifest
from ctc_ray.schemas import shard_schema
from ctc_ray.stages.create_dataset import stage as create_dataset
from ctc_ray.stages.create_inventory import stage as create_inventory


def test_rows_are_conserved_and_failures_are_rows(dataset: Path, inventory: Path) -> None:
    manifest = read_manifest(str(dataset), "dataset")
    rows = parquet.read_folder(str(dataset))
    assert manifest.rows_in == manifest.rows_out == rows.num_rows
    assert rows.num_rows == read_manifest(str(inventory), "inventory").rows_out
    assert manifest.failures == {"missing": 1}
    assert rows["failure"].drop_null().to_pylist() == ["missing"]
    assert pc.all(pc.equal(pc.is_null(rows["jpeg"]), pc.is_valid(rows["failure"]))).as_py()


def test_failures_have_a_table_of_their_own(dataset: Path) -> None:
    failures = parquet.read_table(str(dataset / "_failures.parquet"))
    assert failures["image_uri"].to_pylist() == ["images/e003_0.jpg"]


def test_shards_have_the_schema_and_hold_whole_events_in_order(dataset: Path) -> None:
    seen: set[str] = set()
    for uri in sorted(dataset.glob("split=*/*.parquet")):
        rows = parquet.read_table(str(uri))
        assert rows.schema.remove_metadata() == shard_schema(("species", "count"), ["site"])
        frame = rows.select(["capture_event_id", "image_index", "n_images"]).to_pandas()
        for event, images in frame.groupby("capture_event_id", sort=False):
            assert list(images["image_index"]) == list(range(images["n_images"].iloc[0]))
            assert event not in seen
            seen.add(str(event))
    assert len(seen) == 24


def test_manifest_counts_what_lies_in_each_row_group(dataset: Path) -> None:
    for shard in read_manifest(str(dataset), "dataset").shards:
        with parquet.open_parquet(str(dataset / shard.path)) as file:
            assert file.num_row_groups == len(shard.row_groups)
            for place, counts in enumerate(shard.row_groups):
                rows = file.read_row_group(place)
                usable = rows.filter(pc.is_null(rows["failure"]))
                events = [pc.count_distinct(r["capture_event_id"]).as_py() for r in (rows, usable)]
                assert (counts.n_images, counts.n_events) == (rows.num_rows, events[0])
                assert (counts.n_usable_events, counts.n_usable_images) == (
                    events[1],
                    usable.num_rows,
                )


def test_a_split_opens_in_pandas(dataset: Path) -> None:
    frame = pd.read_parquet(dataset / "split=train")
    assert {"image_id", "label_species", "jpeg"} <= set(frame.columns)


def test_missing_label_is_null_and_not_a_class(dataset: Path) -> None:
    assert read_manifest(str(dataset), "dataset").classes["count"] == ["1", "2"]
    assert parquet.read_folder(str(dataset))["label_count"].null_count == 24  # 8 events of 3


def test_manifest_counts_usable_labels_per_split(dataset: Path) -> None:
    manifest = read_manifest(str(dataset), "dataset")
    for split, heads in manifest.labels.items():
        rows = parquet.read_folder(str(dataset / f"split={split}"))
        usable = rows.filter(pc.is_null(rows["failure"])).to_pandas()
        for head, counts in heads.items():
            assert counts == usable[f"label_{head}"].value_counts().to_dict()


def test_split_by_location_puts_no_location_into_two_splits(
    photos: Path, inventory: Path, tmp_path: Path
) -> None:
    config = dataset_config(inventory, photos, tmp_path / "out").replaced(
        split=SplitConfig(by="location", fractions={"a": 0.5, "b": 0.5}), images_per_unit=1000
    )
    create_dataset.run(config)
    splits = [
        set(parquet.read_table(str(path))["location_id"].to_pylist())
        for path in (tmp_path / "out").glob("split=*/*.parquet")
    ]
    assert set.union(*splits) == {"site0", "site1", "site2", "site3"}
    assert sum(map(len, splits)) == 4


def test_uninterrupted_run_equals_a_run_that_lost_some_shards(
    photos: Path, inventory: Path, dataset: Path, tmp_path: Path
) -> None:
    config = dataset_config(inventory, photos, tmp_path / "out")
    create_dataset.run(config)
    (tmp_path / "out" / "_manifest.json").unlink()
    (tmp_path / "out" / "split=train" / "part-00001.parquet").unlink()
    create_dataset.run(config)
    assert bytes_below(tmp_path / "out") == bytes_below(dataset)


def test_pixels_are_measured_while_images_are_read_whatever_the_units(
    photos: Path, inventory: Path, dataset: Path, tmp_path: Path
) -> None:
    config = dataset_config(inventory, photos, tmp_path / "out").replaced(images_per_unit=1000)
    made = create_dataset.run(config, executor=InProcess())
    assert made.pixels == read_manifest(str(dataset), "dataset").pixels
    whole = made.pixels_of(["train"])
    assert whole is not None
    stored = parquet.read_folder(str(dataset / "split=train"))["jpeg"].drop_null().to_pylist()
    pixels = [simplejpeg.decode_jpeg(raw, "RGB")[::4].reshape(-1, 3) / 255 for raw in stored]
    mean = np.mean([part.mean(axis=0) for part in pixels], axis=0)
    std = np.sqrt(np.mean([(part**2).mean(axis=0) for part in pixels], axis=0) - mean**2)
    assert whole.n_images == len(stored)
    assert whole.mean == pytest.approx(mean, abs=1e-4)
    assert whole.std == pytest.approx(std, abs=1e-4)


def test_too_many_failures_stop_the_stage_and_keep_what_is_done(
    photos: Path, inventory: Path, tmp_path: Path
) -> None:
    config = dataset_config(inventory, photos, tmp_path / "out").replaced(max_failure_fraction=0.01)
    with pytest.raises(
        TooManyFailuresError, match=r"1 of 48 images failed \(missing 1\).*_failures"
    ):
        create_dataset.run(config)
    shards = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").glob("split=*/*.parquet")}
    assert shards
    create_dataset.run(config.replaced(max_failure_fraction=0.5))
    assert {p: p.stat().st_mtime_ns for p in shards} == shards


def test_several_observations_follow_the_policy(tmp_path: Path) -> None:
    csv_path = write_events(tmp_path, n_events=3)
    with csv_path.open("a") as file:
        file.write("event001,images/e001_0.jpg,,,blue,1,site1\n")
    create_inventory.run(inventory_config(csv_path, tmp_path / "inventory"))
    config = dataset_config(tmp_path / "inventory", tmp_path, tmp_path / "out")
    with pytest.raises(LabelError, match=r"event001.*--observations"):
        create_dataset.run(config)
    dropped = create_dataset.run(config.replaced(observations="drop"))
    assert dropped.rows_out == 4
    assert dropped.summary["events_left_out_for_several_observations"] == 1
    first = config.replaced(observations="first", overwrite=True)
    assert create_dataset.run(first).rows_out == 6


def test_wrong_inputs_are_named_before_the_cluster_starts(
    photos: Path, inventory: Path, dataset: Path, tmp_path: Path
) -> None:
    config = dataset_config(inventory, photos, tmp_path / "out")
    with pytest.raises(IncompleteDataError, match="ctc create-inventory"):
        create_dataset.run(config.replaced(inventory_uri=str(tmp_path / "nothing")))
    with pytest.raises(ConfigError, match="holds dataset, expected inventory"):
        create_dataset.run(config.replaced(inventory_uri=str(dataset)))
    with pytest.raises(LabelError, match="'genus' is no head of the inventory"):
        create_dataset.run(config.replaced(heads=("genus",)))
    assert not (tmp_path / "out").exists()


def test_a_row_that_may_not_be_read_is_a_failure_of_its_own(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    csv_path = write_events(photos, n_events=12)
    text = csv_path.read_text().replace("images/e001_0.jpg", "../secret.jpg")
    csv_path.write_text(text.replace("images/e002_0.jpg", "s3://169.254.169.254/x.jpg"))
    (tmp_path / "secret.jpg").write_bytes((photos / "images" / "e000_0.jpg").read_bytes())
    create_inventory.run(inventory_config(csv_path, tmp_path / "inventory"))
    config = dataset_config(tmp_path / "inventory", photos, tmp_path / "out")
    made = create_dataset.run(config.replaced(max_failure_fraction=0.5))
    assert made.failures == {"not_allowed": 2}


def test_a_wrong_root_stops_before_the_work_begins(tmp_path: Path) -> None:
    csv_path = write_events(tmp_path / "photos", n_events=12)
    create_inventory.run(inventory_config(csv_path, tmp_path / "inventory"))
    (tmp_path / "other").mkdir()
    config = dataset_config(tmp_path / "inventory", tmp_path / "other", tmp_path / "out")
    with pytest.raises(ConfigError, match=r"none of 24 images .*, first .*other/images/e000_0"):
        create_dataset.run(config.replaced(max_failure_fraction=0.5))
    assert not (tmp_path / "out").exists()


def test_one_file_in_several_events_is_told_with_its_labels(tmp_path: Path) -> None:
    """Case 20: six files, each in train, val and test with three labels."""
    lines = ["id,file,fold,species"]
    for k in range(18):
        fold = ("train", "val", "test")[k // 6]
        lines.append(
            f"e{k:02d},{k % 6:03d}.jpg,{fold},{('deer', 'fox', 'empty')[(k + k // 6) % 3]}"
        )
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    for k in range(6):
        (tmp_path / f"{k:03d}.jpg").write_bytes(photograph("red", seed=k))
    inventory = create_inventory.run(
        CsvInventoryConfig(
            source_uri=str(tmp_path / "labels.csv"),
            output_uri=str(tmp_path / "inventory"),
            event_column="id",
            image_columns=("file",),
            head_columns=("species",),
            meta_columns=("fold",),
        )
    )
    assert inventory.findings["images_with_conflicting_labels"] == 6
    config = CreateDatasetConfig(
        inventory_uri=str(tmp_path / "inventory"),
        output_uri=str(tmp_path / "dataset"),
        heads=("species",),
        image_root_uri=str(tmp_path),
        split={"by": "meta:fold"},
    )
    summary = create_dataset.run(config, executor=InProcess()).summary
    (row,) = [row for row in summary["leakage"] if row["same"] == "image"]
    assert (row["in_several_splits"], row["images_of_these"]) == (6, 18)
    assert summary["files_with_several_labels"] == [
        {"same": "image", "head": "species", "files": 6, "images_of_these": 18}
    ]


def test_images_without_labels_become_a_dataset_that_is_shown_and_grows(tmp_path: Path) -> None:
    def inventory_of(name: str, n_images: int) -> str:
        for k in range(n_images):
            path = tmp_path / name / f"{name}{k}.jpg"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(photograph("red", seed=k))
        out = str(tmp_path / f"inventory-{name}")
        create_inventory.run(ImagesInventoryConfig(source_uri=str(tmp_path / name), output_uri=out))
        return out

    out = tmp_path / "dataset"
    config = CreateDatasetConfig(inventory_uri=inventory_of("a", 5), output_uri=str(out))
    made = create_dataset.run(config, executor=InProcess())
    assert (made.rows_out, made.classes, made.failures) == (5, {}, {})
    assert estimate_of(config, tmp_path).rows_in == 5
    grown = create_dataset.run(
        config.replaced(inventory_uri=inventory_of("b", 3), append=True), executor=InProcess()
    )
    assert (grown.rows_out, grown.classes) == (8, {})
    shards = parquet.read_folder(str(out))
    assert shards.num_rows == 8
    assert not [name for name in shards.column_names if name.startswith("label_")]


def estimate_of(config: CreateDatasetConfig, folder: Path) -> Manifest:
    return create_dataset.run(config.replaced(check=3, output_uri=str(folder / "check")))
