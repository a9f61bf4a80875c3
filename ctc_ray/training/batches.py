"""Batches of images and labels, streamed from the shards of a dataset.

Row groups are read and images decoded by threads, some batches ahead of the training. Order, choice
of images and seeds are functions of the plan, whatever the threads do. At most two windows of row
groups are held, as JPEGs, and a few batches, as pixels.

B batch, C channels, H height, W width.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from ctc_ray.columns.event_runs import run_starts
from ctc_ray.columns.seeds import stable_hash
from ctc_ray.errors import SchemaError
from ctc_ray.files import parquet
from ctc_ray.labels import LabelSpace
from ctc_ray.schemas import label_column
from ctc_ray.training.plans import ImageChoice, Plan, Slice, batch_sizes

IGNORE_INDEX = -100  # a missing label; what torch's cross entropy leaves out

Decode = Callable[[bytes], npt.NDArray[np.uint8]]

_GROUPS_PER_WINDOW = 16  # about 64 MB of JPEG; items are mixed within a window
_BATCHES_AHEAD = 2

T = TypeVar("T")


@dataclass(frozen=True)
class Batch:
    """Images with their labels, in memory."""

    images_BCHW: Tensor  # uint8, channels last in memory  # noqa: N815  # shape letters
    labels: dict[str, Tensor]  # head -> class indices (B,), IGNORE_INDEX where a label is missing
    seeds: tuple[int, ...]  # per image, from 0 to 2**63 - 1; for random changes of the image
    image_ids: tuple[str, ...]


@dataclass(frozen=True)
class Reading:
    """How rows become batches."""

    label_space: LabelSpace
    decode: Decode  # JPEG -> RGB pixels (H, W, C), of one size for all images
    batch_size: int
    decode_threads: int = 2


@dataclass(frozen=True)
class _Window:
    """The rows of some row groups, and the order in which they are used."""

    rows: pa.Table
    codes: Mapping[str, npt.NDArray[np.int64]]
    order: npt.NDArray[np.int64]


@dataclass(frozen=True)
class _Item:
    image_id: str
    jpeg: bytes
    codes: tuple[int, ...]


def read_batches(plan: Plan, reading: Reading) -> Iterator[Batch]:
    """The batches of a plan, in their order; closing the iterator ends its threads.

    Raises:
        SchemaError: a shard does not hold what the manifest says.
        LabelError: a label is no class of its head.
    """
    with (
        ThreadPoolExecutor(1, "read-shards") as reader,
        ThreadPoolExecutor(reading.decode_threads, "decode") as decoders,
        ThreadPoolExecutor(1, "make-batches") as maker,
    ):
        windows = _ahead(reader, _read_windows(plan, reading.label_space), n_ahead=1)
        items = (item for window in windows for item in _items(window))
        batches = (
            _make_batch(plan, reading, [next(items) for _ in range(size)], decoders)
            for size in batch_sizes(plan.n_items, reading.batch_size)
        )
        yield from _ahead(maker, batches, n_ahead=_BATCHES_AHEAD)


def _ahead(pool: ThreadPoolExecutor, items: Iterator[T], *, n_ahead: int) -> Iterator[T]:
    """The items in order, up to `n_ahead` of them made before they are asked for.

    Args:
        pool: of one thread, so that the items are made one after the other.
    """
    waiting: deque[Future[list[T]]] = deque()
    try:
        for _ in range(n_ahead):
            waiting.append(pool.submit(_next, items))
        while True:
            item = waiting.popleft().result()
            waiting.append(pool.submit(_next, items))
            if not item:
                return
            yield item[0]
    finally:
        for future in waiting:
            future.cancel()


def _next(items: Iterator[T]) -> list[T]:
    for item in items:
        return [item]
    return []


def _read_windows(plan: Plan, label_space: LabelSpace) -> Iterator[_Window]:
    for number, first in enumerate(range(0, len(plan.slices), _GROUPS_PER_WINDOW)):
        slices = plan.slices[first : first + _GROUPS_PER_WINDOW]
        rows = pa.concat_tables([_read_slice(part, plan, label_space.heads) for part in slices])
        codes = {
            head: label_space.encode(head, rows[label_column(head)], missing=IGNORE_INDEX)
            for head in label_space.heads
        }
        order = np.arange(rows.num_rows)
        if plan.is_shuffled:
            order = np.random.default_rng([plan.seed, plan.epoch, plan.rank, number]).permutation(
                rows.num_rows
            )
        yield _Window(rows, codes, order)


def _read_slice(part: Slice, plan: Plan, heads: Sequence[str]) -> pa.Table:
    """The rows of the slice's items, in the order of the file."""
    columns = ["image_id", "capture_event_id", "failure", "jpeg", *map(label_column, heads)]
    with parquet.open_parquet(part.group.uri) as file:
        missing = [name for name in columns if name not in file.schema_arrow.names]
        if missing:
            raise SchemaError(f"{part.group.uri}: column {missing[0]!r} not found")
        rows = file.read_row_group(part.group.row_group, columns=columns)
    rows = rows.filter(pc.is_null(rows["failure"]))
    chosen = choose_images(rows, plan.image_choice, seed=plan.seed, epoch=plan.epoch)
    if len(chosen) != part.group.n_items(plan.image_choice):
        raise SchemaError(
            f"{part.group.uri}: row group {part.group.row_group} holds {len(chosen)} usable items, "
            f"the manifest says {part.group.n_items(plan.image_choice)}; make the dataset anew"
        )
    return rows.take(chosen[part.start : part.stop]).drop_columns(["failure", "capture_event_id"])


def choose_images(
    usable: pa.Table, image_choice: ImageChoice, *, seed: int, epoch: int
) -> npt.NDArray[np.int64]:
    """The rows to use: all, or one per capture event by a hash of event, epoch and seed."""
    if image_choice == "all":
        return np.arange(usable.num_rows)
    events = usable["capture_event_id"]
    starts = run_starts(events)
    n_images = np.diff(starts, append=usable.num_rows)
    hashes = [stable_hash(name, seed, epoch) for name in events.take(starts).to_pylist()]
    places = [value % n for value, n in zip(hashes, n_images.tolist(), strict=True)]
    return starts + np.array(places, np.int64)


def _items(window: _Window) -> Iterator[_Item]:
    image_ids = window.rows["image_id"].combine_chunks()
    jpegs = window.rows["jpeg"]
    for row in window.order.tolist():
        codes = tuple(int(codes[row]) for codes in window.codes.values())
        yield _Item(image_ids[row].as_py(), jpegs[row].as_py(), codes)


def _make_batch(
    plan: Plan, reading: Reading, items: Sequence[_Item], decoders: ThreadPoolExecutor
) -> Batch:
    images_BHWC = np.stack(list(decoders.map(reading.decode, [item.jpeg for item in items])))
    codes = np.array([item.codes for item in items], np.int64)
    return Batch(
        images_BCHW=torch.from_numpy(images_BHWC).permute(0, 3, 1, 2),
        labels={
            head: torch.from_numpy(codes[:, place].copy())
            for place, head in enumerate(reading.label_space.heads)
        },
        seeds=tuple(stable_hash(item.image_id, plan.seed, plan.epoch) for item in items),
        image_ids=tuple(item.image_id for item in items),
    )
