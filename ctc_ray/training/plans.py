"""Plan which images each worker reads in an epoch, from the counts in the dataset's manifest.

Training sees an *item* once per epoch: an image, or a capture event of which one image is chosen.
The items of all row groups are numbered from 0 in the order of the row groups. Each worker reads a
range of item numbers.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, assert_never

import numpy as np

from ctc_ray.config.choices import ImageChoice
from ctc_ray.errors import ConfigError
from ctc_ray.files import storage
from ctc_ray.runs.records import ShardRecord

GROUPS_PER_WINDOW = 16
"""Row groups whose items are read in random order: about 64 MB of JPEGs."""


@dataclass(frozen=True)
class RowGroup:
    """A Parquet row group of a shard; its capture events are complete."""

    uri: str
    index: int  # of the row group in its file, from 0
    n_events: int  # with at least one usable image
    n_images: int  # usable

    def n_items(self, image_choice: ImageChoice) -> int:
        """Number of items in the row group."""
        match image_choice:
            case "random" | "first" | "stack":
                return self.n_events
            case "all":
                return self.n_images
            case _:
                assert_never(image_choice)


@dataclass(frozen=True)
class ItemRange:
    """The items [start, stop) of a row group."""

    row_group: RowGroup
    start: int
    stop: int

    @property
    def n_items(self) -> int:
        """Number of items in the range."""
        return self.stop - self.start


@dataclass(frozen=True)
class EpochPlan:
    """The items that one worker reads in an epoch, in the order of `ranges`.

    If `is_shuffled`, the items of a window of row groups are read in random order.
    """

    ranges: tuple[ItemRange, ...]
    image_choice: ImageChoice
    seed: int
    epoch: int
    rank: int
    is_shuffled: bool

    @property
    def n_items(self) -> int:
        """Number of images that the worker reads."""
        return sum(part.n_items for part in self.ranges)

    @property
    def windows(self) -> list[tuple[ItemRange, ...]]:
        """The ranges of each window, in the order of reading."""
        starts = range(0, len(self.ranges), GROUPS_PER_WINDOW)
        return [self.ranges[first : first + GROUPS_PER_WINDOW] for first in starts]


@dataclass(frozen=True)
class PlanPart:
    """The items [start, stop) of a plan, in the order in which they are read."""

    plan: EpochPlan
    start: int
    stop: int


def list_row_groups(
    dataset_uri: str, shards: Sequence[ShardRecord], *splits: str
) -> list[RowGroup]:
    """The row groups of the splits with at least one usable image, in the order of the manifest.

    Args:
        shards: from the dataset's manifest.

    Raises:
        ConfigError: a split has no usable image.
    """
    for split in splits:
        if not any(s.split == split and g.n_usable_images for s in shards for g in s.row_groups):
            known = ", ".join(sorted({shard.split for shard in shards})) or "none"
            raise ConfigError(
                f"{dataset_uri}: no usable image in split {split!r}; splits are {known}"
            )
    return [
        RowGroup(
            uri=storage.join(dataset_uri, shard.path),
            index=index,
            n_events=counts.n_usable_events,
            n_images=counts.n_usable_images,
        )
        for shard in shards
        if shard.split in splits
        for index, counts in enumerate(shard.row_groups)
        if counts.n_usable_images
    ]


def plan_epoch(
    row_groups: Sequence[RowGroup],
    *,
    image_choice: ImageChoice,
    seed: int,
    epoch: int,
    rank: int = 0,
    world_size: int = 1,
) -> EpochPlan:
    """A worker's share of a training epoch; every worker gets equally many items.

    The order of the row groups depends on (seed, epoch) alone, so workers need not communicate.
    Any `GROUPS_PER_WINDOW` neighbours in it come from all parts of the dataset, so a window has its
    share of what was appended. If
    the items do not divide evenly, ranges continue at item 0, and two workers read some items.

    Args:
        epoch: number of the epoch, from 0.
        rank: number of the worker, from 0 to world_size - 1.
        world_size: number of workers.
    """
    order = _spread_order(len(row_groups), np.random.default_rng([seed, epoch]))
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


def _spread_order(n_groups: int, rng: np.random.Generator) -> list[int]:
    """A random order in which any `GROUPS_PER_WINDOW` neighbours come from as many ranges.

    The ranges are equal parts of the row groups. Every window takes one group of each, in the same
    random order of the ranges.
    """
    ranges = [
        rng.permutation(part) for part in np.array_split(np.arange(n_groups), GROUPS_PER_WINDOW)
    ]
    turns = [ranges[index] for index in rng.permutation(len(ranges))]
    rounds = itertools.zip_longest(*(turn.tolist() for turn in turns))
    return [group for window in rounds for group in window if group is not None]


def plan_evaluation(
    row_groups: Sequence[RowGroup],
    image_choice: Literal["all", "stack"] = "all",
    *,
    rank: int = 0,
    world_size: int = 1,
) -> EpochPlan:
    """A worker's share of all usable images, or stacks.

    It is whole row groups, hence whole capture events. Exactly one worker reads each row group: the
    one in whose equal part its middle image is. Shares differ by up to a row group, and a worker
    may have none.

    They are in the order of the row groups and of their rows. For rank and world_size see
    `plan_epoch`.
    """
    n_items = sum(group.n_items(image_choice) for group in row_groups)
    ends = itertools.accumulate(group.n_items(image_choice) for group in row_groups)
    ranges = [
        ItemRange(group, 0, n)
        for group, end in zip(row_groups, ends, strict=True)
        if (n := group.n_items(image_choice))
        and (2 * end - n) * world_size // (2 * n_items) == rank
    ]
    return EpochPlan(
        ranges=tuple(ranges),
        image_choice=image_choice,
        seed=0,
        epoch=0,
        rank=rank,
        is_shuffled=False,
    )


def _item_ranges(
    row_groups: Sequence[RowGroup], first: int, last: int, image_choice: ImageChoice
) -> list[ItemRange]:
    """The parts of row groups that make up the items [first, last) of all row groups."""
    ranges = []
    ends = itertools.accumulate(group.n_items(image_choice) for group in row_groups)
    for group, end in zip(row_groups, ends, strict=True):
        begin = end - group.n_items(image_choice)
        start, stop = max(first, begin) - begin, min(last, end) - begin
        if start < stop:
            ranges.append(ItemRange(group, start, stop))
    return ranges


def batch_sizes(n_items: int, batch_size: int) -> list[int]:
    """Sizes of the batches; they differ by at most one, so no small batch is left over.

    No batch is larger than `batch_size`, with one exception: with a `batch_size` of 2 and an odd
    number of items, one batch has three items, because batch norm cannot learn from one.
    """
    if n_items == 0:
        return []
    n_batches = -(-n_items // batch_size)
    if batch_size == 2:  # only with this size could a batch of one be left over
        n_batches = max(1, n_items // 2)
    small, n_large = divmod(n_items, n_batches)
    return [small + 1] * n_large + [small] * (n_batches - n_large)
