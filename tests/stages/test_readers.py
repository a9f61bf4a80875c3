"""A dataset opens in other programs by the very lines of docs/formats.md."""

import json
import re
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow.parquet as pq
import pytest
from builders import dataset_in_process, inventory_config, write_events

from ctc_ray import __version__
from ctc_ray.config.prediction import PredictConfig
from ctc_ray.runs.executor import InProcess
from ctc_ray.runs.manifest import Manifest, manifest_fingerprint, read_manifest
from ctc_ray.schemas import SCHEMA_VERSION, shard_schema
from ctc_ray.stages.create_inventory import stage as create_inventory
from ctc_ray.stages.predict import stage as predict

FORMATS = Path(__file__).resolve().parents[2] / "docs" / "formats.md"
COLUMNS = shard_schema(("species", "count"), ["site"]).names


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `inventory` and `dataset` in it: 24 images, of which 2 are missing."""
    folder = tmp_path_factory.mktemp("readers")
    csv_path = write_events(folder / "photos", broken=[1])
    create_inventory.run(inventory_config(csv_path, folder / "inventory"))
    dataset_in_process(folder / "inventory", folder / "photos", folder / "dataset")
    return folder


@pytest.fixture
def manifest(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Manifest:
    monkeypatch.chdir(folder)
    return read_manifest("dataset", "dataset")


def run_block(importing: str) -> dict[str, Any]:
    """The names that the block of Python in the page with this import defines."""
    blocks = re.findall(r"```python\n(.*?)```", FORMATS.read_text(), flags=re.DOTALL)
    (block,) = (block for block in blocks if importing in block)
    names: dict[str, Any] = {}
    exec(block, names)
    return names


def test_pandas_reads_all_splits_with_the_lines_of_the_page(manifest: Manifest) -> None:
    frame = run_block("import pandas")["frame"]
    assert list(frame.columns) == [*COLUMNS, "split"]
    assert len(frame) == manifest.rows_out
    usable = frame[frame["failure"].isna()]
    assert usable["jpeg"].notna().all()
    for split, heads in manifest.labels.items():
        counts = usable[usable["split"] == split]["label_species"].value_counts().to_dict()
        assert counts == heads["species"]


@pytest.mark.parametrize("name", ["inventory", "dataset", "predictions/events"])
def test_pandas_and_duckdb_open_a_folder_without_being_told_what_to_ignore(
    manifest: Manifest, bundle: Path, name: str
) -> None:
    if name.startswith("predictions"):
        config = PredictConfig(
            bundle_uri=str(bundle),
            output_uri="predictions",
            inventory_uri="inventory",
            image_root_uri="photos",
            images_per_unit=5,
            max_failure_fraction=1,
        )
        predict.run(config, executor=InProcess())
    n_rows = 12 if name == "predictions/events" else manifest.rows_out
    frame = pd.read_parquet(name)
    assert len(frame) == n_rows
    assert frame["capture_event_id"].nunique() == 12
    files = f"{name}/**/[!_]*.parquet"  # a pattern of DuckDB names files itself
    rows = duckdb.sql(f"SELECT count(*), count(DISTINCT capture_event_id) FROM '{files}'")
    assert rows.fetchall() == [(n_rows, 12)]


def test_duckdb_counts_classes_with_the_lines_of_the_page(manifest: Manifest) -> None:
    counts = run_block("import duckdb")["counts"].fetchall()
    assert {(split, label): n for split, label, n in counts} == {
        (split, label): n
        for split, heads in manifest.labels.items()
        for label, n in heads["species"].items()
    }


def test_datasets_shows_images_with_the_lines_of_the_page(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets  # takes 2 s

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)  # or it counts its users online
    images = run_block("import Image")["images"]["train"]
    assert images.column_names == COLUMNS
    n_rows = {split.split: split.images for split in manifest.splits}
    assert images.num_rows == n_rows["train"]
    for row in images:
        assert (row["jpeg"] is None) == (row["failure"] is not None)
        if row["jpeg"] is not None:
            assert row["jpeg"].size == (row["width"], row["height"])


def test_every_shard_says_in_its_footer_what_it_is(manifest: Manifest) -> None:
    for shard in manifest.shards:
        footer = pq.read_schema(Path("dataset") / shard.path).metadata
        assert json.loads(footer[b"ctc_dataset"]) == {
            "schema_version": SCHEMA_VERSION,
            "ctc_version": __version__,
            "inventory_fingerprint": manifest_fingerprint("inventory"),
            "resize": {"smallest_side": 400, "quality": 75, "reencode_small": False},
            "heads": ["species", "count"],
            "classes": {"species": ["blue", "green", "red"], "count": ["1", "2"]},
        }


def test_same_work_gives_the_same_shards(folder: Path, tmp_path: Path) -> None:
    dataset_in_process(folder / "inventory", folder / "photos", tmp_path / "again")
    shards = sorted((folder / "dataset").rglob("part-*.parquet"))
    assert shards
    for shard in shards:
        again = tmp_path / "again" / shard.relative_to(folder / "dataset")
        assert again.read_bytes() == shard.read_bytes()
