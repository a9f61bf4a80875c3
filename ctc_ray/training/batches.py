"""Read batches of images and labels from the shards of a dataset.

Threads read row groups and decode images ahead of the training. The order and choice of images and
their seeds depend on the plan alone, not on the threads. Memory holds the chosen images of at most
two windows of row groups as JPEGs, the row groups that are just being read, and a few batches as
pixels.

B batch, C channels, H height, W width.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import assert_never

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from ctc_ray.columns.event_runs import IMAGES_PER_STACK, run_starts
from ctc_ray.columns.seeds import stable_hash
from ctc_ray.config.choices import ImageChoice
from ctc_ray.errors import SchemaError
from ctc_ray.files.prefetch import prefetch
from ctc_ray.files.row_groups import RowGroupReader
from ctc_ray.labels import LabelSpace
from ctc_ray.schemas import label_column
from ctc_ray.training.plans import EpochPlan, ItemRange, PlanPart, batch_sizes
from ctc_ray.training.sampling import ClassSampling, draw, occurrences

IGNORE_INDEX = -100  # a missing label; torch's default for labels to leave out

Stack = Callable[[Sequence[npt.NDArray[np.uint8]]], npt.NDArray[np.uint8]]
Decode = Callable[[bytes, int], npt.NDArray[np.uint8]]
DecodeAll = Callable[[Sequence[bytes], Sequence[int]], Tensor]
"""JPEGs and seeds of a batch -> RGB images (B, C, H, W), uint8."""

_N_IMAGES = "n_images"  # column of a window: usable images of the item
_BATCHES_AHEAD = 2
_READ_THREADS = 8  # hide the latency of a store: see tests/benchmarks/README.md


@dataclass(frozen=True)
class Batch:
    """Images with their labels."""

    images_BCHW: Tensor  # RGB, uint8, channels last in memory  # noqa: N815  # shape letters
    labels: dict[str, Tensor]  # head -> class indices (B,), IGNORE_INDEX where a label is missing
    seeds: tuple[int, ...]  # per image, in [0, 2**63); for the random changes of the image
    image_ids: tuple[str, ...]
    capture_event_ids: tuple[str, ...]
    sent: torch.cuda.Event | None = None
    """When the tensors are on a GPU, see `device_batches.arrived`; None: they are where they are.
    """


@dataclass(frozen=True)
class LoaderSettings:
    """Settings of `read_batches` that all epochs share."""

    label_space: LabelSpace
    decode: Decode  # JPEG and seed -> RGB pixels (H, W, C); all images have one size
    batch_size: int  # images per batch, at most; see `batch_sizes`
    rename: Callable[[str, str], str | None] | None = None
    """Head and class in the shards -> class of the label space, or None; None: they are equal."""
    decode_threads: int = 2
    row_groups: RowGroupReader = field(default_factory=RowGroupReader)
    """Reads the shards; those who share it share the footers that it keeps."""
    sampling: ClassSampling | None = None
    """How often the items of a shuffled plan are used; None: each once."""
    stack: Stack | None = None
    """Makes one image of the decoded frames of an event, for plans with image choice "stack"."""
    decode_all: DecodeAll | None = None
    """Decodes the images of a batch together, on a device; None: `decode` makes each of them."""
    send: Callable[[Batch], Batch] = lambda batch: batch
    """Called by the thread that has made a batch."""


@dataclass(frozen=True)
class _Window:
    """The rows of some row groups, their class indices, and the order of their use."""

    rows: pa.Table
    codes: Mapping[str, npt.NDArray[np.int64]]
    order: npt.NDArray[np.int64]
    uses: npt.NDArray[np.int64]
    """For each item of `order`, how many earlier items of the window have the same row."""


@dataclass(frozen=True)
class _Item:
    image_id: str
    capture_event_id: str
    jpegs: tuple[bytes, ...]  # one, or the frames of a stack
    codes: tuple[int, ...]
    use: int  # 0: the first in this window


def read_batches(
    plan: EpochPlan, settings: LoaderSettings, *, first_batch: int = 0
) -> Iterator[Batch]:
    """The batches of a plan, in its order; closing the iterator ends its threads.

    Args:
        first_batch: number of the batch to begin with, from 0. Windows that earlier batches alone
            use are not read, and no image of an earlier batch is decoded.

    Raises:
        SchemaError: a shard is damaged, or has other columns or counts than the manifest.
        LabelError: a label is not a class of its head.
    """
    return read_parts([PlanPart(plan, 0, plan.n_items)], settings, first_batch=first_batch)


def read_parts(
    parts: Sequence[PlanPart], settings: LoaderSettings, *, first_batch: int = 0
) -> Iterator[Batch]:
    """As `read_batches`, for parts of several plans of one epoch, one after the other."""
    sizes = batch_sizes(sum(part.stop - part.start for part in parts), settings.batch_size)
    wanted = _without_first(parts, sum(sizes[:first_batch]))
    with (
        ThreadPoolExecutor(_READ_THREADS, "read-shards") as readers,
        ThreadPoolExecutor(1, "make-windows") as window_maker,
        ThreadPoolExecutor(settings.decode_threads, "decode") as decoders,
        ThreadPoolExecutor(1, "make-batches") as maker,
    ):
        windows = prefetch(_read_windows(wanted, settings, readers), window_maker, n_ahead=1)
        items = (item for window in windows for item in _items(window))
        batches = (
            _make_batch(parts[0].plan, settings, [next(items) for _ in range(size)], decoders)
            for size in sizes[first_batch:]
        )
        yield from prefetch(batches, maker, n_ahead=_BATCHES_AHEAD)


def _without_first(parts: Sequence[PlanPart], n_items: int) -> Iterator[PlanPart]:
    for part in parts:
        start = min(part.stop, part.start + n_items)
        n_items -= start - part.start
        yield PlanPart(part.plan, start, part.stop)


def _read_windows(
    parts: Iterable[PlanPart], settings: LoaderSettings, readers: ThreadPoolExecutor
) -> Iterator[_Window]:
    """The windows of the parts; only those items are in their order that are wanted."""
    for part in parts:
        begin = 0
        for number, ranges in enumerate(part.plan.windows):
            end = begin + sum(one.n_items for one in ranges)
            if part.start < end and begin < part.stop:
                window = _read_window(part.plan, number, settings, readers)
                wanted = slice(max(0, part.start - begin), part.stop - begin)
                yield replace(window, order=window.order[wanted], uses=window.uses[wanted])
            begin = end


def _read_window(
    plan: EpochPlan, number: int, settings: LoaderSettings, readers: ThreadPoolExecutor
) -> _Window:
    label_space = settings.label_space
    read = partial(_read_range, plan=plan, settings=settings)
    rows = pa.concat_tables(readers.map(read, plan.windows[number]))
    codes = {
        head: label_space.encode(head, _labels(rows, head, settings), missing=IGNORE_INDEX)
        for head in label_space.heads
    }
    order = _order(rows, codes, plan, number, settings.sampling)
    uses = np.zeros_like(order) if settings.sampling is None else occurrences(order)
    return _Window(rows, codes, order, uses)


def _order(
    rows: pa.Table,
    codes: Mapping[str, npt.NDArray[np.int64]],
    plan: EpochPlan,
    number: int,
    sampling: ClassSampling | None,
) -> npt.NDArray[np.int64]:
    """The rows of a window in the order of their use; as many as there are, drawn or each once."""
    if not plan.is_shuffled:
        return np.arange(rows.num_rows)
    rng = np.random.default_rng([plan.seed, plan.epoch, plan.rank, number])
    if sampling is None:
        return rng.permutation(rows.num_rows)
    return draw(sampling.of_items(codes[sampling.head], rows[_N_IMAGES].to_numpy()), rng)


def _labels(rows: pa.Table, head: str, settings: LoaderSettings) -> pa.Array | pa.ChunkedArray:
    labels = rows[label_column(head)]
    if settings.rename is None:
        return labels
    encoded = labels.combine_chunks().dictionary_encode()
    names = [settings.rename(head, name) for name in encoded.dictionary.to_pylist()]
    return pa.array(names, pa.string()).take(encoded.indices)


def _read_range(part: ItemRange, plan: EpochPlan, settings: LoaderSettings) -> pa.Table:
    """The rows of the range's items, in the order of the file.

    All images of the row group are read, for they lie together; those that are not chosen are
    dropped here, before the next one is read.
    """
    uri, index = part.row_group.uri, part.row_group.index
    labels = map(label_column, settings.label_space.heads)
    kept = ["image_id", "capture_event_id", *labels, "jpeg"]
    rows = settings.row_groups.read(uri, index, [*kept, "failure"])
    usable = np.flatnonzero(pc.is_null(rows["failure"]).to_numpy())
    events = rows.select(["capture_event_id"]).take(usable)
    chosen = choose_images(events, plan.image_choice, seed=plan.seed, epoch=plan.epoch)
    n_expected = part.row_group.n_items(plan.image_choice)
    if len(chosen) != n_expected:
        raise SchemaError(
            f"{uri}: row group {index} holds {len(chosen)} usable items, the manifest says "
            f"{n_expected}; create the dataset again"
        )
    n_images = pa.array(_n_images(events, plan.image_choice)[part.start : part.stop])
    taken = slice(part.start, part.stop)
    found = rows.select(kept).take(usable[chosen[taken]])
    if plan.image_choice == "stack":
        stops = np.append(chosen[1:], len(usable))
        ranges = zip(chosen[taken].tolist(), stops[taken].tolist(), strict=True)
        frames = [usable[start : min(start + IMAGES_PER_STACK, stop)] for start, stop in ranges]
        found = found.set_column(len(kept) - 1, "jpeg", _lists(rows["jpeg"], frames))
    return found.append_column(_N_IMAGES, n_images)


def _lists(values: pa.ChunkedArray, rows: Sequence[npt.NDArray[np.int64]]) -> pa.ListArray:
    """For each list of rows the values there."""
    ends = np.cumsum([0, *map(len, rows)], dtype=np.int32)
    return pa.ListArray.from_arrays(ends, values.take(np.concatenate(rows)).combine_chunks())


def choose_images(
    usable: pa.Table, image_choice: ImageChoice, *, seed: int, epoch: int
) -> npt.NDArray[np.int64]:
    """Indices of the rows to use, ascending: all rows, or one row per capture event.

    For stacks it is the first row of each event.

    A hash of event, seed and epoch chooses the random image of an event.

    Args:
        usable: rows without failure; rows of an event are neighbours.
    """
    match image_choice:
        case "all":
            return np.arange(usable.num_rows)
        case "first" | "stack":
            return run_starts(usable["capture_event_id"])
        case "random":
            return _one_per_event(usable["capture_event_id"], seed=seed, epoch=epoch)
        case _:
            assert_never(image_choice)


def _n_images(usable: pa.Table, image_choice: ImageChoice) -> npt.NDArray[np.int64]:
    """The images of which each row of `choose_images` is one: itself, or those of its event."""
    match image_choice:
        case "all":
            return np.ones(usable.num_rows, np.int64)
        case "first" | "random" | "stack":
            return np.diff(run_starts(usable["capture_event_id"]), append=usable.num_rows)
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
    for row, use in zip(window.order.tolist(), window.uses.tolist(), strict=True):
        codes = tuple(int(codes[row]) for codes in window.codes.values())
        jpeg = jpegs[row].as_py()
        frames = (jpeg,) if isinstance(jpeg, bytes) else tuple(jpeg)
        yield _Item(image_ids[row].as_py(), event_ids[row].as_py(), frames, codes, use)


def _make_batch(
    plan: EpochPlan, settings: LoaderSettings, items: Sequence[_Item], decoders: ThreadPoolExecutor
) -> Batch:
    names = (f"{item.image_id}/{item.use}" if item.use else item.image_id for item in items)
    seeds = tuple(stable_hash(name, plan.seed, plan.epoch) for name in names)
    frames = [item.jpegs for item in items]
    if settings.decode_all is None:
        images_BHWC = np.stack(list(decoders.map(partial(_pixels, settings), frames, seeds)))
        images_BCHW = torch.from_numpy(images_BHWC).permute(0, 3, 1, 2)
    else:
        images_BCHW = settings.decode_all([jpegs[0] for jpegs in frames], seeds)
    codes = np.array([item.codes for item in items], np.int64)
    batch = Batch(
        images_BCHW=images_BCHW,
        labels={
            head: torch.from_numpy(codes[:, column].copy())
            for column, head in enumerate(settings.label_space.heads)
        },
        seeds=seeds,
        image_ids=tuple(item.image_id for item in items),
        capture_event_ids=tuple(item.capture_event_id for item in items),
    )
    return settings.send(batch)


def _pixels(settings: LoaderSettings, jpegs: Sequence[bytes], seed: int) -> npt.NDArray[np.uint8]:
    """The image of an item; the frames of a stack are changed alike, by the same seed."""
    images = [settings.decode(jpeg, seed) for jpeg in jpegs]
    return images[0] if settings.stack is None else settings.stack(images)
