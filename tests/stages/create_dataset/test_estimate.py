import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from builders import (
    bytes_below,
    dataset_config,
    dataset_in_process,
    inventory_config,
    put_file,
    write_events,
)

from ctc_ray.columns.event_runs import cut_by_events
from ctc_ray.config.dataset import CreateDatasetConfig, SplitConfig
from ctc_ray.config.inventory import CsvInventoryConfig
from ctc_ray.files import parquet, storage
from ctc_ray.labels import LabelSpace
from ctc_ray.runs.manifest import Manifest, read_manifest
from ctc_ray.stages.create_dataset import estimate
from ctc_ray.stages.create_dataset import stage as create_dataset
from ctc_ray.stages.create_dataset.plan import DatasetPlan
from ctc_ray.stages.create_inventory import stage as create_inventory


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 images, of which 2 are missing, 1 is no image, and 1 is cut off."""
    folder = tmp_path_factory.mktemp("photos")
    write_events(folder, n_events=24, broken=[3, 12])
    (folder / "images" / "e005_0.jpg").write_bytes(b"404 Not Found")
    cut = folder / "images" / "e008_1.jpg"
    cut.write_bytes(cut.read_bytes()[:700])
    return folder


@pytest.fixture(scope="module")
def config(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> CreateDatasetConfig:
    folder = tmp_path_factory.mktemp("check")
    create_inventory.run(inventory_config(photos / "events.csv", folder / "inventory"))
    made = dataset_config(folder / "inventory", photos, folder / "dataset")
    return made.replaced(filter={"drop_missing_labels": True})


@pytest.fixture(scope="module")
def whole(config: CreateDatasetConfig) -> Manifest:
    return create_dataset.run(config.replaced(check=1000))


def plan_of(n_images: int, *, images_per_event: int = 3) -> DatasetPlan:
    rng = np.random.default_rng(0)
    event_N = np.arange(n_images) // images_per_event
    splits = rng.choice(["train", "val", "test"], event_N[-1] + 1, p=[0.9, 0.05, 0.05])[event_N]
    rows = pa.table(
        {
            "image_id": [f"image{k}" for k in range(n_images)],
            "capture_event_id": [f"event{k}" for k in event_N],
        }
    )
    return DatasetPlan(rows, pa.array(splits), LabelSpace({"s": ("a",)}), 0, [], {}, {}, ())


def test_failures_and_classes_of_a_whole_check_are_those_of_the_real_run(
    config: CreateDatasetConfig, photos: Path, whole: Manifest, tmp_path: Path
) -> None:
    dataset_in_process(Path(config.inventory_uri), photos, tmp_path / "all")
    unfiltered = create_dataset.run(config.replaced(check=48, filter={}))
    real = read_manifest(str(tmp_path / "all"), "dataset")
    assert unfiltered.failures == real.failures
    assert real.failures == {"missing": 2, "truncated": 1, "unsupported": 1}
    assert (unfiltered.rows_in, unfiltered.rows_out) == (real.rows_in, real.rows_out)
    assert unfiltered.classes == real.classes
    splits = {
        row["split"]: (row["images"], row["events"], row["shards"])
        for row in unfiltered.summary["splits"]
    }
    n_shards = {name: sum(shard.split == name for shard in real.shards) for name in real.labels}
    assert splits == {
        split.split: (split.images, split.events, n_shards[split.split]) for split in real.splits
    }
    failed = {row["image_uri"]: row["failure"] for row in unfiltered.summary["first_failed_images"]}
    table = parquet.read_table(str(tmp_path / "all" / "_failures.parquet"))
    assert failed == dict(
        zip(table["image_uri"].to_pylist(), table["failure"].to_pylist(), strict=True)
    )


def test_what_filters_leave_out_is_told(whole: Manifest) -> None:
    assert whole.summary["left_out"] == [
        {"step": "filter.drop_missing_labels", "events": 8, "images": 24}
    ]
    assert whole.summary["images_in_inventory"] == 48
    assert sum(split["images"] for split in whole.summary["splits"]) == whole.rows_in == 24


def test_nothing_is_written_and_the_same_images_are_tried_again(
    config: CreateDatasetConfig, photos: Path
) -> None:
    folder = Path(config.output_uri).parent
    before = bytes_below(folder), bytes_below(photos)
    few = config.replaced(check=9)
    once, again = create_dataset.run(few), create_dataset.run(few)
    assert (bytes_below(folder), bytes_below(photos)) == before
    assert not Path(config.output_uri).exists()
    assert once.rows_out == 9
    for name in ("failures_expected", "first_failed_images", "output_gb"):
        assert once.summary[name] == again.summary[name]


def test_finished_work_stays_and_is_found_complete_after_a_check(
    config: CreateDatasetConfig, photos: Path, tmp_path: Path
) -> None:
    output = tmp_path / "dataset"
    dataset_in_process(Path(config.inventory_uri), photos, output)
    before = {path: path.stat().st_mtime_ns for path in output.rglob("*")}
    same = dataset_config(Path(config.inventory_uri), photos, output)
    assert create_dataset.run(same.replaced(check=4, overwrite=True)).kind == "check"
    assert create_dataset.run(same) == read_manifest(str(output), "dataset")
    assert {path: path.stat().st_mtime_ns for path in output.rglob("*")} == before


def test_expected_failures_are_the_shares_of_the_sample_times_all(whole: Manifest) -> None:
    for row in whole.summary["failures_expected"]:
        assert row["expected"] == row["tried"] == whole.failures[row["failure"]]
    share = sum(whole.failures.values()) / whole.rows_out
    assert whole.summary["failure_share"] == pytest.approx(share, rel=0.01)


def test_too_many_failures_are_foretold(config: CreateDatasetConfig, tmp_path: Path) -> None:
    strict = config.replaced(check=1000, max_failure_fraction=0.01, image_root_uri=str(tmp_path))
    put_file(str(tmp_path), "images/e000_0.jpg", b"")  # without any image the root is wrong
    made = create_dataset.run(strict)
    assert made.failures == {"missing": 23, "unreadable": 1}
    assert made.summary["would_stop_at_max_failure_fraction"]
    assert made.summary["jpeg_kb_per_image"] == 0


def test_command_prints_one_line_of_json_and_imports_no_ray(
    config: CreateDatasetConfig, tmp_path: Path
) -> None:
    file = tmp_path / "dataset.yaml"
    storage.write_json(str(file), config.model_dump(mode="json"))  # JSON is YAML
    argv = ["create-dataset", "--config", str(file), "--check", "6"]
    code = (
        "import sys\nfrom ctc_ray import cli\n"
        "if __name__ == '__main__':\n"
        f"  try: cli.main([*{argv!r}, *sys.argv[1:]])\n"
        "  except SystemExit as stop:\n"
        "    print(stop.code, sorted({'ray', 'torch'} & set(sys.modules)), file=sys.stderr)"
    )
    script = tmp_path / "command.py"
    script.write_text(code)
    command = [sys.executable, str(script)]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1] == "0 []"
    (line,) = done.stdout.splitlines()
    values = json.loads(line)
    assert (values["kind"], values["rows_in"], values["rows_out"]) == ("check", 24, 6)
    assert {"images_per_s", "cpus", "hours", "output_gb", "peak_memory_gb"} <= values[
        "summary"
    ].keys()


@pytest.mark.parametrize("n_images", [1, 7, 300, 2999, 3000, 10_000])
def test_sample_takes_its_number_and_each_row_at_most_once(n_images: int) -> None:
    places = estimate.sample_rows(plan_of(3000), n_images)
    assert len(set(places.tolist())) == len(places) == min(n_images, 3000)


def test_sample_is_spread_over_splits_and_units() -> None:
    plan = plan_of(30_000)
    places = estimate.sample_rows(plan, 300)
    splits = np.array(plan.splits.to_pylist())
    for name in ("train", "val", "test"):
        rows = np.flatnonzero(splits == name)
        found = np.isin(rows, places)
        assert abs(found.sum() - 300 * len(rows) / 30_000) <= 2  # a range at either border
        events = plan.rows["capture_event_id"].take(pa.array(rows))
        for start, stop in cut_by_events(events, 1000):
            assert abs(found[start:stop].sum() - (stop - start) / 100) <= 2


def test_sample_does_not_take_the_same_place_of_every_range() -> None:
    places = estimate.sample_rows(plan_of(30_000), 300)
    assert np.unique(places % 3).tolist() == [0, 1, 2]


@pytest.mark.real_data
def test_bytes_of_real_photographs_are_foretold(shared_data: Path, tmp_path: Path) -> None:
    paths = sorted((shared_data / "photos" / "peru_bursts").rglob("*.[jJ][pP][gG]"))[:24]
    with (tmp_path / "events.csv").open("w", newline="") as file:
        csv.writer(file).writerows(
            [["event", "image", "s"], *([k, path, "a"] for k, path in enumerate(paths))]
        )
    source = CsvInventoryConfig(
        source_uri=str(tmp_path / "events.csv"),
        output_uri=str(tmp_path / "inventory"),
        event_column="event",
        image_columns=("image",),
        head_columns=("s",),
    )
    create_inventory.run(source)
    wanted = CreateDatasetConfig(
        inventory_uri=source.output_uri,
        output_uri=str(tmp_path / "dataset"),
        heads=("s",),
        split=SplitConfig(fractions={"all": 1}),
    )
    made = create_dataset.run(wanted.replaced(check=24))
    images = [
        image.jpeg
        for image in create_dataset.decode_rows(wanted, parquet.read_folder(source.output_uri))
    ]
    real = sum(map(len, images)) / 1e9
    assert real <= made.summary["output_gb"] <= 1.02 * real
    assert made.failures == {}
    assert made.summary["images_per_s"] > 1
    assert made.summary["peak_memory_gb"] > 0.05 * made.summary["cpus"]


def test_check_of_an_append_is_of_the_new_events_only(tmp_path: Path) -> None:
    csv_path = write_events(tmp_path / "photos", n_events=24)
    lines = csv_path.read_text().splitlines()
    (tmp_path / "photos" / "first.csv").write_text("\n".join(lines[:13]) + "\n")
    for name in ("first", "events"):
        source = tmp_path / "photos" / f"{name}.csv"
        create_inventory.run(inventory_config(source, tmp_path / name))
    dataset_in_process(tmp_path / "first", tmp_path / "photos", tmp_path / "dataset")
    before = bytes_below(tmp_path)
    append = dataset_config(tmp_path / "events", tmp_path / "photos", tmp_path / "dataset")
    made = create_dataset.run(append.replaced(append=True, check=5))
    assert (made.rows_in, made.rows_out) == (24, 5)  # 12 of 24 events are there, 1 to 3 images each
    assert bytes_below(tmp_path) == before
