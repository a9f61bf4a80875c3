"""Which worker reads what in an epoch: pure arithmetic on counts of the dataset's manifest.

An *item* is what training sees once: a capture event of which one image is chosen, or an image.
The items of all row groups, one after the other, form one line; every worker takes a range of it.
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
class Group:
    """A Parquet row group of a shard; it holds whole capture events."""

    uri: str
    row_group: int
    n_events: int  # with at least one usable image
    n_images: int  # usable

    def n_items(self, image_choice: ImageChoice) -> int:
        """What it adds to the line."""
        return self.n_events if image_choice == "random" else self.n_images


@dataclass(frozen=True)
class Slice:
    """The items [start, stop) of a row group."""

    group: Group
    start: int
    stop: int


@dataclass(frozen=True)
class Plan:
    """What one worker reads, in this order; mixed over a window of row groups if it is shuffled."""

    slices: tuple[Slice, ...]
    image_choice: ImageChoice
    seed: int
    epoch: int
    rank: int
    is_shuffled: bool

    @property
    def n_items(self) -> int:
        """Images that the worker sees."""
        return sum(part.stop - part.start for part in self.slices)


def list_groups(dataset_uri: str, shards: Sequence[ShardRecord], split: str) -> list[Group]:
    """The row groups of a split that hold a usable image.

    Args:
        shards: as in the dataset's manifest.

    Raises:
        ConfigError: there is no usable image in this split.
    """
    groups = [
        Group(
            uri=storage.join(dataset_uri, shard.path),
            row_group=number,
            n_events=counts.n_usable_events,
            n_images=counts.n_usable_images,
        )
        for shard in shards
        if shard.split == split
        for number, counts in enumerate(shard.row_groups)
        if counts.n_usable_images
    ]
    if not groups:
        splits = ", ".join(sorted({shard.split for shard in shards})) or "none"
        raise ConfigError(f"{dataset_uri}: no usable image in split {split!r}; splits are {splits}")
    return groups


def plan_epoch(
    groups: Sequence[Group],
    *,
    image_choice: ImageChoice,
    seed: int,
    epoch: int,
    rank: int = 0,
    world_size: int = 1,
) -> Plan:
    """A worker's share of a training epoch: the same number of items for every worker.

    The row groups are shuffled by (seed, epoch) alone, so workers agree without a word. Where the
    items do not divide evenly, the line goes round, and some are seen by two workers.
    """
    order = np.random.default_rng([seed, epoch]).permutation(len(groups))
    line = [groups[place] for place in order]
    n_items = sum(group.n_items(image_choice) for group in line)
    share = -(-n_items // world_size)
    first = rank * share % n_items if n_items else 0
    last = first + share
    slices = [
        *cut(line, first, min(last, n_items), image_choice),
        *cut(line, 0, max(0, last - n_items), image_choice),
    ]
    return Plan(
        slices=tuple(slices),
        image_choice=image_choice,
        seed=seed,
        epoch=epoch,
        rank=rank,
        is_shuffled=True,
    )


def plan_evaluation(groups: Sequence[Group], *, rank: int = 0, world_size: int = 1) -> Plan:
    """A worker's share of all usable images: each is read by one worker once, in fixed order."""
    n_items = sum(group.n_images for group in groups)
    first, last = n_items * rank // world_size, n_items * (rank + 1) // world_size
    return Plan(
        slices=tuple(cut(groups, first, last, "all")),
        image_choice="all",
        seed=0,
        epoch=0,
        rank=rank,
        is_shuffled=False,
    )


def cut(line: Sequence[Group], first: int, last: int, image_choice: ImageChoice) -> list[Slice]:
    """The slices of row groups that make up the items [first, last) of the line."""
    slices = []
    ends = itertools.accumulate(group.n_items(image_choice) for group in line)
    for group, end in zip(line, ends, strict=True):
        begin = end - group.n_items(image_choice)
        start, stop = max(first, begin) - begin, min(last, end) - begin
        if start < stop:
            slices.append(Slice(group, start, stop))
    return slices


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
