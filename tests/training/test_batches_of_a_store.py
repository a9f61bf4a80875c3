"""Batches from a disk and from a store that fails: those of a plain reader with one thread."""

import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from flaky_s3 import Faults

from ctc_ray.errors import SchemaError
from ctc_ray.files import storage
from ctc_ray.labels import LabelSpace
from ctc_ray.training.batches import Batch, LoaderSettings, read_batches
from ctc_ray.training.plans import EpochPlan, RowGroup, plan_epoch, plan_evaluation

MakeDataset = Callable[..., list[RowGroup]]
Decode = Callable[[bytes, int], npt.NDArray[np.uint8]]

BATCH = 7
N_EVENTS = 150  # 75 row groups of 2 events: windows of 16, 16, 16, 16 and 11
EVENTS = [
    (f"e{i:03d}", [[None, None, None], [None], ["missing", None]][i % 3]) for i in range(N_EVENTS)
]

Row = tuple[str, int, bytes, tuple[Any, ...]]  # image, seed, pixels, labels


def number(name: str, seed: int, epoch: int) -> int:
    digest = hashlib.blake2b(f"{seed}/{epoch}/{name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def plain_reader(plan: EpochPlan) -> Iterator[Row]:
    """What the batches of a plan should hold, read file by file by one thread."""
    for window, first in enumerate(range(0, len(plan.ranges), 16)):
        rows: list[dict[str, Any]] = []
        for part in plan.ranges[first : first + 16]:
            group = pq.ParquetFile(part.row_group.uri).read_row_group(part.row_group.index)
            images = [row for row in group.to_pylist() if row["failure"] is None]
            events = list(dict.fromkeys(row["capture_event_id"] for row in images))
            if plan.image_choice == "random":
                bursts = [[r for r in images if r["capture_event_id"] == e] for e in events]
                images = [
                    burst[number(event, plan.seed, plan.epoch) % len(burst)]
                    for event, burst in zip(events, bursts, strict=True)
                ]
            rows += images[part.start : part.stop]
        order = np.arange(len(rows))
        if plan.is_shuffled:
            rng = np.random.default_rng([plan.seed, plan.epoch, plan.rank, window])
            order = rng.permutation(len(rows))
        for row in (rows[index] for index in order):
            seed = number(row["image_id"], plan.seed, plan.epoch)
            yield row["image_id"], seed, row["jpeg"], (row["label_species"], row["label_sex"])


def rows_of(batches: list[Batch], label_space: LabelSpace) -> Iterator[Row]:
    for batch in batches:
        pixels = batch.images_BCHW.permute(0, 2, 3, 1).contiguous().numpy()
        for i, (image_id, seed) in enumerate(zip(batch.image_ids, batch.seeds, strict=True)):
            codes = {head: int(codes[i]) for head, codes in batch.labels.items()}
            labels = (
                None if code < 0 else label_space.classes[head][code]
                for head, code in codes.items()
            )
            yield image_id, seed, pixels[i].tobytes(), tuple(labels)


def plans(groups: list[RowGroup]) -> dict[str, EpochPlan]:
    def epoch(**changes: Any) -> EpochPlan:
        return plan_epoch(groups, **{"image_choice": "random", "seed": 3, "epoch": 1, **changes})

    return {
        "random": epoch(),
        "all, one of two workers": epoch(image_choice="all", rank=1, world_size=2),
        "evaluation": plan_evaluation(groups),
    }


@pytest.fixture
def settings(label_space: LabelSpace, decode: Decode) -> LoaderSettings:
    return LoaderSettings(label_space, decode, BATCH)


@pytest.fixture
def groups(make_dataset: MakeDataset) -> list[RowGroup]:
    return make_dataset(EVENTS, 2)


PLANS = ["random", "all, one of two workers", "evaluation"]


@pytest.mark.parametrize("name", PLANS)
def test_batches_of_a_disk_are_those_of_a_plain_reader(
    groups: list[RowGroup], settings: LoaderSettings, name: str
) -> None:
    plan = plans(groups)[name]
    batches = list(read_batches(plan, settings))
    sizes = [len(batch.seeds) for batch in batches]
    assert max(sizes) <= BATCH
    assert max(sizes) - min(sizes) <= 1
    assert list(rows_of(batches, settings.label_space)) == list(plain_reader(plan))


def uploaded(plan: EpochPlan, bucket_uri: str) -> EpochPlan:
    """The plan with its shards in a store."""
    there = {}
    for uri in {part.row_group.uri for part in plan.ranges}:
        there[uri] = f"{bucket_uri}/{Path(uri).name}"
        storage.write_bytes(there[uri], Path(uri).read_bytes())
    ranges = [
        replace(part, row_group=replace(part.row_group, uri=there[part.row_group.uri]))
        for part in plan.ranges
    ]
    return replace(plan, ranges=tuple(ranges))


@pytest.mark.s3
@pytest.mark.parametrize("name", PLANS)
@pytest.mark.parametrize("status", [400, 500, 503])
def test_a_store_that_fails_now_and_then_gives_the_same_batches(
    groups: list[RowGroup],
    settings: LoaderSettings,
    flaky_uri: str,
    faults: Faults,
    name: str,
    status: int,
) -> None:
    plan = plans(groups)[name]
    remote = uploaded(plan, flaky_uri)
    faults.refuse_every, faults.cut_every, faults.status = 9, 20, status
    found = list(rows_of(list(read_batches(remote, settings)), settings.label_space))
    assert faults.refused > 3
    assert faults.cut > 1
    assert found == list(plain_reader(plan))


@pytest.mark.s3
def test_a_second_epoch_asks_for_each_row_group_once(
    groups: list[RowGroup], settings: LoaderSettings, flaky_uri: str, faults: Faults
) -> None:
    remote = uploaded(plans(groups)["random"], flaky_uri)
    faults.refuse_every = 1 << 40  # only counts
    begin = next(faults.requests)
    list(read_batches(remote, settings))
    middle = next(faults.requests)
    list(read_batches(replace(remote, epoch=2), settings))
    n_first, n_second = middle - begin - 1, next(faults.requests) - middle - 1
    assert n_second == len(remote.ranges)
    assert n_first <= 2 * len(remote.ranges)


@pytest.mark.s3
def test_a_damaged_shard_ends_the_training_at_once(
    groups: list[RowGroup], settings: LoaderSettings, flaky_uri: str, faults: Faults
) -> None:
    remote = uploaded(plans(groups)["random"], flaky_uri)
    uri = remote.ranges[40].row_group.uri
    storage.write_bytes(uri, storage.read_bytes(uri)[:-3])
    faults.refuse_every, faults.status = 4, 500
    with pytest.raises(SchemaError, match=f"^{uri}: .*Parquet") as raised:
        list(read_batches(remote, settings))
    assert "\n" not in str(raised.value)


def test_memory_holds_two_windows_of_chosen_images_and_the_row_groups_that_are_being_read(
    make_dataset: MakeDataset, settings: LoaderSettings, decode: Decode
) -> None:
    """An image has 768 bytes, an event three images, of which one is chosen; 20 windows."""
    groups = make_dataset([(f"e{i}", [None] * 3) for i in range(640)], 2)
    plan = plan_epoch(groups, image_choice="random", seed=3, epoch=1)
    held: list[int] = []
    before = pa.total_allocated_bytes()

    def slow(raw: bytes, seed: int) -> npt.NDArray[np.uint8]:
        held.append(pa.total_allocated_bytes() - before)
        time.sleep(0.001)  # the reader could be far ahead
        return decode(raw, seed)

    list(read_batches(plan, replace(settings, decode=slow)))
    window, being_read = 16 * 2 * 768, 8 * 2 * 3 * 768
    assert max(held) > window
    padding = 2  # ids, labels, and buffers of 64 bytes at least
    assert max(held) < 2 * window * padding + being_read
