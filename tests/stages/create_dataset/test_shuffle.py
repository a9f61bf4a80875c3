"""Batches are mixed like those of a full shuffle, whatever the order of the inventory.

The plan, the units, the row groups and the reader are those of the commands; only the images are
one pixel each, because 60,000 photographs would take minutes.
"""

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from builders import dataset_config

from ctc_ray.columns.event_runs import cut_by_events
from ctc_ray.config.choices import ImageChoice
from ctc_ray.config.dataset import SplitConfig
from ctc_ray.files import parquet, storage
from ctc_ray.inventory.events.assemble import SourceRows, assemble
from ctc_ray.labels import LabelSpace
from ctc_ray.runs.manifest import Manifest
from ctc_ray.runs.records import RowGroupRecord, ShardRecord
from ctc_ray.runs.units import Unit, read_unit
from ctc_ray.stages.create_dataset import stage as create_dataset
from ctc_ray.stages.create_dataset.plan import ROW, plan_dataset
from ctc_ray.stages.create_dataset.shards import IMAGES_PER_ROW_GROUP
from ctc_ray.training.batches import LoaderSettings, read_batches
from ctc_ray.training.plans import RowGroup, list_row_groups, plan_epoch

N_EVENTS, N_CLASSES, N_LOCATIONS = 30_000, 50, 40  # 60,000 images: 470 row groups
BATCH = 64

Ints = npt.NDArray[np.int64]


def images_of(events: Ints) -> Ints:
    """The event of each image: 1 to 3 images each."""
    return np.repeat(events, 1 + events % 3)


def sorted_by_class() -> tuple[Ints, Ints]:
    """Class and location of every event."""
    rng = np.random.default_rng(0)
    return np.sort(rng.integers(0, N_CLASSES, N_EVENTS)), rng.integers(0, N_LOCATIONS, N_EVENTS)


def sorted_by_location() -> tuple[Ints, Ints]:
    """Every location has its own few classes."""
    rng = np.random.default_rng(0)
    location = np.sort(rng.integers(0, N_LOCATIONS, N_EVENTS))
    return (location + rng.integers(0, 3, N_EVENTS)) % N_CLASSES, location


def inventory(classes: Ints, locations: Ints, prefix: str = "") -> pa.Table:
    event_of = images_of(np.arange(len(classes)))

    def text(values: Ints, form: str) -> pa.Array:
        return pa.array([prefix + form % value for value in values.tolist()], pa.large_string())

    return assemble(
        SourceRows(
            event_ids=text(event_of, "%06d"),
            image_rows=np.arange(len(event_of)),
            image_uris=text(np.arange(len(event_of)), "%06d.jpg"),
            observation_rows=np.arange(len(event_of)),
            labels={
                "species": pa.array([f"{k:02d}" for k in classes[event_of]], pa.large_string())
            },
            location_ids=text(locations[event_of], "%02d"),
        ),
        where="rows",
    ).table


def write_dataset(rows: pa.Table, folder: Path, *, first: int = 0) -> list[ShardRecord]:
    """The shards that `ctc create-dataset` makes of an inventory, with images of one pixel."""
    classes = {"species": [f"{k:02d}" for k in range(N_CLASSES)]}
    config = dataset_config("inventory", "images", folder).replaced(
        heads=("species",), split=SplitConfig(fractions={"train": 1.0}), images_per_unit=1000
    )
    plan = plan_dataset(config, rows, Manifest(kind="inventory", config={}, classes=classes))
    plans = f"_work/{first}"
    units = create_dataset._write_units(config, plan, first=lambda _: first, plans=plans)
    return [write_shard(folder, unit, rows["capture_event_id"]) for unit in units]


def write_shard(folder: Path, unit: Unit, events: pa.ChunkedArray) -> ShardRecord:
    rows = read_unit(str(folder), unit)
    n = rows.num_rows
    shard = pa.table(
        {
            "image_id": [str(row) for row in rows[ROW].to_pylist()],
            "capture_event_id": events.take(rows[ROW]).cast(pa.string()),
            "failure": pa.nulls(n, pa.string()),
            "jpeg": pa.array([b"\0\0\0"] * n, pa.binary()),
            "label_species": rows["label_species"].cast(pa.string()),
        }
    )
    cuts = cut_by_events(shard["capture_event_id"], IMAGES_PER_ROW_GROUP)
    groups = [shard.slice(start, stop - start) for start, stop in cuts]
    content = parquet.row_group_bytes(groups, raw_column="jpeg")
    storage.write_bytes(storage.join(str(folder), unit.name), content)
    records = []
    for group in groups:
        n_events = len(group["capture_event_id"].unique())
        records.append(
            RowGroupRecord(
                n_images=len(group),
                n_events=n_events,
                n_usable_events=n_events,
                n_usable_images=len(group),
            )
        )
    return ShardRecord(path=unit.name, split="train", n_images=n, n_failed=0, row_groups=records)


def batches_of(
    groups: list[RowGroup], rank: int, n_workers: int, *, image_choice: ImageChoice = "all"
) -> list[Ints]:
    """The classes of each batch that a worker reads in an epoch."""
    space = LabelSpace({"species": tuple(f"{k:02d}" for k in range(N_CLASSES))})
    pixel = np.zeros((1, 1, 3), np.uint8)
    settings = LoaderSettings(space, lambda raw, seed: pixel, batch_size=BATCH)
    plan = plan_epoch(
        groups, image_choice=image_choice, seed=3, epoch=1, rank=rank, world_size=n_workers
    )
    return [batch.labels["species"].numpy() for batch in read_batches(plan, settings)]


def entropy(batches: list[Ints]) -> float:
    """Mean class entropy of the batches, in bits."""
    shares = [np.bincount(batch) / len(batch) for batch in batches]
    return float(np.mean([-(p[p > 0] * np.log2(p[p > 0])).sum() for p in shares]))


def correlation(batches: list[Ints]) -> float:
    """Of the class shares of neighbouring batches, all classes together."""
    shares = np.array([np.bincount(batch, minlength=N_CLASSES) / len(batch) for batch in batches])
    shares -= shares.mean(axis=0)
    return float((shares[1:] * shares[:-1]).sum() / (shares**2).sum())


def fully_shuffled(batches: list[Ints]) -> list[Ints]:
    """The same images, cut into batches of the same sizes after a shuffle of all."""
    images = np.random.default_rng(9).permutation(np.concatenate(batches))
    return np.split(images, np.cumsum([len(batch) for batch in batches])[:-1])


@pytest.mark.parametrize("order", [sorted_by_class, sorted_by_location])
def test_batches_of_a_sorted_inventory_are_mixed_like_those_of_a_full_shuffle(
    tmp_path: Path, order: Callable[[], tuple[Ints, Ints]]
) -> None:
    shards = write_dataset(inventory(*order()), tmp_path)
    groups = list_row_groups(str(tmp_path), shards, "train")
    assert len(groups) >= 400
    for n_workers, image_choice in ((1, "all"), (8, "random")):
        shares = [
            batches_of(groups, rank, n_workers, image_choice=image_choice)
            for rank in range(n_workers)
        ]
        ideal = entropy(fully_shuffled(list(itertools.chain(*shares))))
        for batches in shares:
            assert entropy(batches) > 0.98 * ideal
        assert np.mean([correlation(batches) for batches in shares]) < 0.1


def test_every_batch_has_its_share_of_what_was_appended(tmp_path: Path) -> None:
    """The new events are of other cameras, which are as good as other classes."""
    rng = np.random.default_rng(2)
    n_new, half = N_EVENTS // 3, N_CLASSES // 2
    old = np.sort(rng.integers(0, half, N_EVENTS - n_new))
    new = np.sort(rng.integers(half, N_CLASSES, n_new))
    shards = write_dataset(inventory(old, old), tmp_path)
    shards += write_dataset(inventory(new, new, "new"), tmp_path, first=len(shards))
    groups = list_row_groups(str(tmp_path), shards, "train")
    for n_workers in (1, 8):
        shares = [batches_of(groups, rank, n_workers) for rank in range(n_workers)]
        assert np.mean([correlation(batches) for batches in shares]) < 0.1
        is_new = [[(batch >= half).astype(int) for batch in batches] for batches in shares]
        # a window holds 5 or 6 new row groups of 16: .24 and .34; without strata .74 and .62
        assert np.mean([correlation(batches) for batches in is_new]) < 0.5
