"""Stages whose inputs and outputs lie in an object store that fails again and again."""

import io
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from builders import (
    dataset_config,
    dataset_in_process,
    inventory_config,
    untrained_bundle,
    write_events,
)
from flaky_s3 import Faults
from PIL import Image

from ctc_ray.config.inventory import CsvInventoryConfig
from ctc_ray.config.prediction import PredictConfig
from ctc_ray.errors import ConfigError, CtcError
from ctc_ray.files import parquet, storage
from ctc_ray.runs.executor import InProcess, Job, UnitResult
from ctc_ray.runs.manifest import Manifest, read_manifest
from ctc_ray.runs.units import Unit
from ctc_ray.stages.create_dataset import stage as create_dataset
from ctc_ray.stages.create_inventory import stage as create_inventory
from ctc_ray.stages.predict import stage as predict

pytestmark = [pytest.mark.s3, pytest.mark.timeout(300)]


@dataclass
class Store:
    """A bucket behind the proxy."""

    uri: str
    faults: Faults

    def start_failing(self) -> None:
        self.faults.refuse_every, self.faults.cut_every = 11, 13

    def put(self, folder: Path) -> str:
        """Copy a folder into the bucket; its URI."""
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                uri = storage.join(self.uri, folder.name, str(path.relative_to(folder)))
                storage.write_bytes(uri, path.read_bytes())
        return storage.join(self.uri, folder.name)


@pytest.fixture
def store(flaky_uri: str, faults: Faults) -> Store:
    return Store(flaky_uri, faults)


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`photos` with a csv of 24 events, `inventory`, and `dataset`, none of it in a store."""
    folder = tmp_path_factory.mktemp("events")
    csv_path = write_events(folder / "photos", n_events=24, broken=[3])
    create_inventory.run(inventory_config(csv_path, folder / "inventory"))
    dataset_in_process(folder / "inventory", folder / "photos", folder / "dataset")
    return folder


def ctc(*argv: str) -> None:
    """A command with a Ray of its own: the workers of one that runs know no store."""
    done = subprocess.run(
        [sys.executable, "-m", "ctc_ray", *argv],
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "RAY_ADDRESS": "local"},
    )
    assert done.returncode == 0, done.stderr


def assert_same(mine: str, other: Path) -> None:
    """The same rows, images and counts in both datasets."""
    manifests: list[Manifest] = [read_manifest(uri, "dataset") for uri in (mine, str(other))]
    for name in ("rows_in", "rows_out", "failures", "classes", "labels", "splits", "shards"):
        assert getattr(manifests[0], name) == getattr(manifests[1], name), name
    assert parquet.read_folder(mine).equals(parquet.read_folder(str(other)))


@pytest.mark.ray
def test_a_store_that_fails_changes_no_dataset(events: Path, store: Store) -> None:
    photos, inventory = store.put(events / "photos"), storage.join(store.uri, "inventory")
    out = storage.join(store.uri, "out")
    store.start_failing()
    local = inventory_config(events / "photos" / "events.csv", Path("here"))
    create_inventory.run(
        local.replaced(source_uri=storage.join(photos, "events.csv"), output_uri=inventory)
    )
    argv = ["create-dataset", "--inventory-uri", inventory, "--image-root-uri", photos]
    argv += ["--heads", "species", "count", "--images-per-unit", "5", "--output-uri", out]
    argv += ["--split.fractions.train", "0.6", "--split.fractions.val", "0.4"]
    ctc(*argv)
    assert store.faults.refused > 5
    assert store.faults.cut > 5
    assert_same(out, events / "dataset")


def test_a_store_that_is_gone_for_a_while_stops_the_stage_and_fails_no_image(
    events: Path, store: Store
) -> None:
    photos, inventory = store.put(events / "photos"), store.put(events / "inventory")
    out = storage.join(store.uri, "out")

    @dataclass(frozen=True)
    class UntilTheStoreIsGone:
        def run(self, units: Sequence[Unit], job: Job) -> Iterator[UnitResult]:
            for number, unit in enumerate(units):
                store.faults.refuse_every = 1 if number == 3 else 0
                yield from InProcess().run([unit], job)

    store.faults.status = 400  # obstore itself would ask four times more
    with pytest.raises(CtcError, match="s3://"):
        create_dataset.run(dataset_config(inventory, photos, out), executor=UntilTheStoreIsGone())
    store.faults.refuse_every = 0
    done = [uri for uri in storage.list_files(out) if "/part-" in uri]
    assert len(done) == 3
    dataset_in_process(inventory, photos, out)
    assert_same(out, events / "dataset")


def test_a_store_that_refuses_every_image_stops_the_stage_before_it_begins(
    events: Path, store: Store, tmp_path: Path
) -> None:
    photos = store.put(events / "photos")
    config = dataset_config(str(events / "inventory"), photos, str(tmp_path / "out"))
    store.faults.deny = "photos"
    with pytest.raises(ConfigError, match=r"none of .* can be read; .* are the credentials right"):
        create_dataset.run(config)
    assert not (tmp_path / "out").exists()
    store.faults.deny = "e003_"
    dataset_in_process(events / "inventory", photos, tmp_path / "out")
    assert read_manifest(str(tmp_path / "out"), "dataset").failures == {"unreadable": 1}


def test_a_store_that_refuses_every_image_of_a_full_address_stops_the_stage_too(
    events: Path, store: Store, tmp_path: Path
) -> None:
    photos = store.put(events / "photos")
    source = tmp_path / "rows.csv"
    images = [uri for uri in storage.list_files(photos) if uri.endswith(".jpg")][:9]
    source.write_text("id,file,species\n" + "".join(f"{n},{u},a\n" for n, u in enumerate(images)))
    columns = {"event_column": "id", "image_columns": ("file",), "head_columns": ("species",)}
    uris = {"source_uri": str(source), "output_uri": str(tmp_path / "inventory")}
    create_inventory.run(CsvInventoryConfig(**uris, **columns))
    config = dataset_config(tmp_path / "inventory", "", tmp_path / "out")
    config = config.replaced(image_root_uri=None, heads=("species",))
    store.faults.deny = "photos"
    with pytest.raises(ConfigError, match=r"none of 9 images .* can be read; .*jpg; are the cred"):
        create_dataset.run(config)
    assert not (tmp_path / "out").exists()
    store.faults.deny = images[0].rpartition("/")[2]
    assert create_dataset.run(config.replaced(max_failure_fraction=1)).failures == {"unreadable": 1}


@pytest.mark.ray
def test_a_store_that_fails_changes_no_prediction(
    events: Path, bundle: Path, store: Store, tmp_path: Path
) -> None:
    images, model = store.put(events / "photos" / "images"), store.put(bundle)
    out = storage.join(store.uri, "out")
    store.start_failing()
    argv = ["predict", "--bundle-uri", model, "--images-uri", images, "--output-uri", out]
    ctc(*argv, "--images-per-unit", "10", "--batch-size", "4", "--workers", "1")
    assert store.faults.refused > 5
    assert store.faults.cut > 5
    config = PredictConfig(
        bundle_uri=str(bundle),
        images_uri=str(events / "photos" / "images"),
        output_uri=str(tmp_path / "out"),
        images_per_unit=10,
        batch_size=4,
        workers=1,
    )
    predict.run(config)
    mine, others = (
        parquet.read_folder(storage.join(uri, "images")) for uri in (out, str(tmp_path / "out"))
    )
    columns = [name for name in mine.column_names if name.startswith(("pred_", "probs_", "fail"))]
    assert mine.select(columns).equals(others.select(columns))
    assert mine["failure"].null_count == 47
    assert mine.num_rows == read_manifest(out, "predictions").rows_in == 47


def test_an_object_that_was_replaced_is_scored_again(store: Store, tmp_path: Path) -> None:
    """Of the same size, and within the second: the store's ETag tells."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(12):
        (photos / f"{number:02d}.png").write_bytes(square(number * 20))
    bundle = untrained_bundle(tmp_path / "model")
    config = PredictConfig(
        bundle_uri=str(bundle), output_uri=storage.join(store.uri, "out"),
        images_uri=store.put(photos), images_per_unit=5, batch_size=1,
    )  # fmt: skip
    predict.run(config, executor=InProcess())
    store.start_failing()
    first = parquet.read_folder(storage.join(config.output_uri, "images"))
    changed = square(255)
    assert len(changed) == len(square(60))
    storage.write_bytes(storage.join(config.images_uri or "", "03.png"), changed)
    predict.run(config.replaced(append=True), executor=InProcess())
    second = parquet.read_folder(storage.join(config.output_uri, "images"))
    old, new = ({r["image_uri"][-6:]: r for r in rows.to_pylist()} for rows in (first, second))
    assert [name for name in old if old[name] != new[name]] == ["03.png"]
    assert second.num_rows == 12


def square(gray: int) -> bytes:
    content = io.BytesIO()
    Image.new("L", (40, 40), gray).save(content, "PNG", compress_level=0)
    return content.getvalue()
