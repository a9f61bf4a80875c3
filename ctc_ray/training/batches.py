"""Read batches of images and labels from the shards of a dataset.

Threads read row groups and decode images a few batches ahead of the training. The order and choice
of images and their seeds depend on the plan alone, not on the threads. Memory holds at most two
windows of row groups as JPEGs, and a few batches as pixels.

B batch, C channels, H height, W width.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import assert_never

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from ctc_ray.columns.event_runs import run_starts
from ctc_ray.columns.seeds import stable_hash
from ctc_ray.config.choices import ImageChoice
from ctc_ray.errors import SchemaError
from ctc_ray.files import parquet
from ctc_ray.files.prefetch import prefetch
from ctc_ray.labels import LabelSpace
from ctc_ray.schemas import label_column
from ctc_ray.training.plans import GROUPS_PER_WINDOW, EpochPlan, ItemRange, batch_sizes

IGNORE_INDEX = -100  # a missing label; torch's default for labels to leave out

Decode = Callable[[bytes, int], npt.NDArray[np.uint8]]

_BATCHES_AHEAD = 2


@dataclass(frozen=True)
class Batch:
    """Images with their labels."""

    images_BCHW: Tensor  # RGB, uint8, channels last in memory  # noqa: N815  # shape letters
    labels: dict[str, Tensor]  # head -> class indices (B,), IGNORE_INDEX where a label is missing
    seeds: tuple[int, ...]  # per image, in [0, 2**63); for the random changes of the image
    image_ids: tuple[str, ...]
    capture_event_ids: tuple[str, ...]


@dataclass(frozen=True)
class LoaderSettings:
    """Settings of `read_batches` that all epochs share."""

    label_space: LabelSpace
    decode: Decode  # JPEG and seed -> RGB pixels (H, W, C); all images have one size
    batch_size: int  # images per batch, at most; see `batch_sizes`
    rename: Callable[[str, str], str | None] | None = None
    """Head and class in the shards -> class of the label space, or None; None: they are equal."""
    decode_threads: int = 2


@dataclass(frozen=True)
class _Window:
    """The rows of some row groups, their class indices, and the order of their use."""

    rows: pa.Table
    codes: Mapping[str, npt.NDArray[np.int64]]
    order: npt.NDArray[np.int64]


@dataclass(frozen=True)
class _Item:
    image_id: str
    capture_event_id: str
    jpeg: bytes
    codes: tuple[int, ...]


def read_batches(plan: EpochPlan, settings: LoaderSettings) -> Iterator[Batch]:
    """The batches of a plan, in its order; closing the iterator ends its threads.

    Raises:
        SchemaError: a shard is damaged, or has other columns or counts than the manifest.
        LabelError: a label is not a class of its head.
    """
    with (
        ThreadPoolExecutor(1, "read-shards") as reader,
        ThreadPoolExecutor(settings.decode_threads, "decode") as decoders,
        ThreadPoolExecutor(1, "make-batches") as maker,
    ):
        windows = prefetch(_read_windows(plan, settings), reader, n_ahead=1)
        items = (item for window in windows for item in _items(window))
        batches = (
            _make_batch(plan, settings, [next(items) for _ in range(size)], decoders)
            for size in batch_sizes(plan.n_items, settings.batch_size)
        )
        yield from prefetch(batches, maker, n_ahead=_BATCHES_AHEAD)


def _read_windows(plan: EpochPlan, settings: LoaderSettings) -> Iterator[_Window]:
    label_space = settings.label_space
    for number, first in enumerate(range(0, len(plan.ranges), GROUPS_PER_WINDOW)):
        ranges = plan.ranges[first : first + GROUPS_PER_WINDOW]
        rows = pa.concat_tables([_read_range(part, plan, label_space.heads) for part in ranges])
        codes = {
            head: label_space.encode(head, _labels(rows, head, settings), missing=IGNORE_INDEX)
            for head in label_space.heads
        }
        order = np.arange(rows.num_rows)
        if plan.is_shuffled:
            order = np.random.default_rng([plan.seed, plan.epoch, plan.rank, number]).permutation(
                rows.num_rows
            )
        yield _Window(rows, codes, order)


def _labels(rows: pa.Table, head: str, settings: LoaderSettings) -> pa.Array | pa.ChunkedArray:
    labels = rows[label_column(head)]
    if settings.rename is None:
        return labels
    encoded = labels.combine_chunks().dictionary_encode()
    names = [settings.rename(head, name) for name in encoded.dictionary.to_pylist()]
    return pa.array(names, pa.string()).take(encoded.indices)


def _read_range(part: ItemRange, plan: EpochPlan, heads: Sequence[str]) -> pa.Table:
    """The rows of the range's items, in the order of the file."""
    columns = ["image_id", "capture_event_id", "failure", "jpeg", *map(label_column, heads)]
    with parquet.open_parquet(part.row_group.uri) as file:
        missing = [name for name in columns if name not in file.schema_arrow.names]
        if missing:
            raise SchemaError(f"{part.row_group.uri}: column {missing[0]!r} not found")
        uri, index = part.row_group.uri, part.row_group.index
        rows = parquet.read_row_group(file, uri, index, columns)
    rows = rows.filter(pc.is_null(rows["failure"]))
    chosen = choose_images(rows, plan.image_choice, seed=plan.seed, epoch=plan.epoch)
    n_expected = part.row_group.n_items(plan.image_choice)
    if len(chosen) != n_expected:
        raise SchemaError(
            f"{part.row_group.uri}: row group {part.row_group.index} holds {len(chosen)} usable "
            f"items, the manifest says {n_expected}; create the dataset again"
        )
    return rows.take(chosen[part.start : part.stop]).drop_columns(["failure"])


def choose_images(
    usable: pa.Table, image_choice: ImageChoice, *, seed: int, epoch: int
) -> npt.NDArray[np.int64]:
    """Indices of the rows to use, ascending: all rows, or one row per capture event.

    A hash of event, seed and epoch chooses the random image of an event.

    Args:
        usable: rows without failure; rows of an event are neighbours.
    """
    match image_choice:
        case "all":
            return np.arange(usable.num_rows)
        case "first":
            return run_starts(usable["capture_event_id"])
        case "random":
            return _one_per_event(usable["capture_event_id"], seed=seed, epoch=epoch)
        case _:
            assert_never(image_choice)


def _one_per_event(events: pa.ChunkedArray, *, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    """Index of one row of each capture event, ascending."""
    starts = run_starts(events)
    n_images = np.diff(starts, append=len(events))
    hashes = [stable_hash(name, seed, epoch) for name in events.take(starts).to_pylist()]
    chosen = [value % n for value, n in zip(hashes, n_images.tolist(), strict=True)]
    return starts + np.array(chosen, np.int64)


def _items(window: _Window) -> Iterator[_Item]:
    image_ids = window.rows["image_id"].combine_chunks()
    event_ids = window.rows["capture_event_id"].combine_chunks()
    jpegs = window.rows["jpeg"]
    for row in window.order.tolist():
        codes = tuple(int(codes[row]) for codes in window.codes.values())
        yield _Item(image_ids[row].as_py(), event_ids[row].as_py(), jpegs[row].as_py(), codes)


def _make_batch(
    plan: EpochPlan, settings: LoaderSettings, items: Sequence[_Item], decoders: ThreadPoolExecutor
) -> Batch:
    seeds = tuple(stable_hash(item.image_id, plan.seed, plan.epoch) for item in items)
    jpegs = [item.jpeg for item in items]
    images_BHWC = np.stack(list(decoders.map(settings.decode, jpegs, seeds)))
    codes = np.array([item.codes for item in items], np.int64)
    return Batch(
        images_BCHW=torch.from_numpy(images_BHWC).permute(0, 3, 1, 2),
        labels={
            head: torch.from_numpy(codes[:, column].copy())
            for column, head in enumerate(settings.label_space.heads)
        },
        seeds=seeds,
        image_ids=tuple(item.image_id for item in items),
        capture_event_ids=tuple(item.capture_event_id for item in items),
    )
