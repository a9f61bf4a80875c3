"""Which worker reads what in an epoch: pure arithmetic on counts of the dataset's manifest.

An *item* is what training sees once: a capture event of which one image is chosen, or an image.
The items of all row groups are numbered in their order, from 0; every worker takes a range of the
numbers.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ctc_ray.errors import ConfigError
from ctc_ray.files import storage
from ctc_ray.runs.records import ShardRecord

ImageChoice = Literal["random", "all"]


@dataclass(frozen=True)
class RowGroup:
    """A Parquet row group of a shard; it holds whole capture events."""

    uri: str
    index: int  # of the row group in its file, from 0
    n_events: int  # with at least one usable image
    n_images: int  # usable

    def n_items(self, image_choice: ImageChoice) -> int:
        """Number of items in it."""
        return self.n_events if image_choice == "random" else self.n_images


@dataclass(frozen=True)
class ItemRange:
    """The items [start, stop) of a row group."""

    row_group: RowGroup
    start: int
    stop: int


@dataclass(frozen=True)
class EpochPlan:
    """What one worker reads, in this order; mixed over a window of row groups if it is shuffled."""

    ranges: tuple[ItemRange, ...]
    image_choice: ImageChoice
    seed: int
    epoch: int
    rank: int
    is_shuffled: bool

    @property
    def n_items(self) -> int:
        """Images that the worker sees."""
        return sum(part.stop - part.start for part in self.ranges)


def list_row_groups(dataset_uri: str, shards: Sequence[ShardRecord], split: str) -> list[RowGroup]:
    """The row groups of a split that hold a usable image.

    Args:
        shards: as in the dataset's manifest.

    Raises:
        ConfigError: there is no usable image in this split.
    """
    row_groups = [
        RowGroup(
            uri=storage.join(dataset_uri, shard.path),
            index=index,
            n_events=counts.n_usable_events,
            n_images=counts.n_usable_images,
        )
        for shard in shards
        if shard.split == split
        for index, counts in enumerate(shard.row_groups)
        if counts.n_usable_images
    ]
    if not row_groups:
        splits = ", ".join(sorted({shard.split for shard in shards})) or "none"
        raise ConfigError(f"{dataset_uri}: no usable image in split {split!r}; splits are {splits}")
    return row_groups


def plan_epoch(
    row_groups: Sequence[RowGroup],
    *,
    image_choice: ImageChoice,
    seed: int,
    epoch: int,
    rank: int = 0,
    world_size: int = 1,
) -> EpochPlan:
    """A worker's share of a training epoch: the same number of items for every worker.

    The row groups are shuffled by (seed, epoch) alone, so workers agree without a word. Where the
    items do not divide evenly, the last range starts again at item 0, so two workers see some of
    them.
    """
    order = np.random.default_rng([seed, epoch]).permutation(len(row_groups))
    ordered = [row_groups[index] for index in order]
    n_items = sum(group.n_items(image_choice) for group in ordered)
    share = -(-n_items // world_size)
    first = rank * share % n_items if n_items else 0
    last = first + share
    ranges = [
        *_item_ranges(ordered, first, min(last, n_items), image_choice),
        *_item_ranges(ordered, 0, max(0, last - n_items), image_choice),
    ]
    return EpochPlan(
        ranges=tuple(ranges),
        image_choice=image_choice,
        seed=seed,
        epoch=epoch,
        rank=rank,
        is_shuffled=True,
    )


def plan_evaluation(
    row_groups: Sequence[RowGroup], *, rank: int = 0, world_size: int = 1
) -> EpochPlan:
    """A worker's share of all usable images: each is read by one worker once, in fixed order."""
    n_items = sum(group.n_images for group in row_groups)
    first, last = n_items * rank // world_size, n_items * (rank + 1) // world_size
    return EpochPlan(
        ranges=tuple(_item_ranges(row_groups, first, last, "all")),
        image_choice="all",
        seed=0,
        epoch=0,
        rank=rank,
        is_shuffled=False,
    )


def _item_ranges(
    row_groups: Sequence[RowGroup], first: int, last: int, image_choice: ImageChoice
) -> list[ItemRange]:
    """The part of each row group that belongs to items [first, last) of all row groups."""
    ranges = []
    ends = itertools.accumulate(group.n_items(image_choice) for group in row_groups)
    for group, end in zip(row_groups, ends, strict=True):
        begin = end - group.n_items(image_choice)
        start, stop = max(first, begin) - begin, min(last, end) - begin
        if start < stop:
            ranges.append(ItemRange(group, start, stop))
    return ranges


def batch_sizes(n_items: int, batch_size: int) -> list[int]:
    """Sizes of the batches, which differ by one at most, so that no small batch is left over.

    None is larger than `batch_size`, but for a `batch_size` of 2 and an odd number of items: batch
    norm cannot learn from a batch of one, so one batch has three.
    """
    if n_items == 0:
        return []
    n_batches = -(-n_items // batch_size)
    if batch_size == 2:  # the only size at which a single item would be left
        n_batches = max(1, n_items // 2)
    small, n_large = divmod(n_items, n_batches)
    return [small + 1] * n_large + [small] * (n_batches - n_large)
