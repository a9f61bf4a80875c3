from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctc_ray.config.choices import ImageChoice
from ctc_ray.errors import ConfigError
from ctc_ray.runs.records import RowGroupRecord, ShardRecord
from ctc_ray.training.plans import (
    GROUPS_PER_WINDOW,
    EpochPlan,
    RowGroup,
    batch_sizes,
    list_row_groups,
    plan_epoch,
    plan_evaluation,
)

GROUPS = st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9)), min_size=1, max_size=30).map(
    lambda sizes: [RowGroup(f"s{i}", 0, n, n + more) for i, (n, more) in enumerate(sizes)]
)
CHOICES = st.sampled_from(["random", "first", "all"])


def items(plan: EpochPlan) -> list[tuple[str, int]]:
    return [(part.row_group.uri, i) for part in plan.ranges for i in range(part.start, part.stop)]


def plans(
    groups: list[RowGroup], choice: ImageChoice, world_size: int, epoch: int = 0
) -> list[EpochPlan]:
    return [
        plan_epoch(
            groups, image_choice=choice, seed=1, epoch=epoch, rank=rank, world_size=world_size
        )
        for rank in range(world_size)
    ]


@given(GROUPS, CHOICES, st.integers(1, 7))
def test_every_worker_has_as_many_items_and_none_is_left_out(
    groups: list[RowGroup], choice: ImageChoice, world_size: int
) -> None:
    shares = plans(groups, choice, world_size)
    n_items = sum(group.n_items(choice) for group in groups)
    assert {share.n_items for share in shares} == {-(-n_items // world_size)}
    seen = Counter(item for share in shares for item in items(share))
    assert len(seen) == n_items
    assert all(max(Counter(items(share)).values()) == 1 for share in shares)


@given(GROUPS, st.integers(1, 7))
def test_evaluation_reads_every_image_once(groups: list[RowGroup], world_size: int) -> None:
    shares = [plan_evaluation(groups, rank=r, world_size=world_size) for r in range(world_size)]
    seen = [item for share in shares for item in items(share)]
    assert seen == [(group.uri, i) for group in groups for i in range(group.n_images)]


@given(GROUPS, st.integers(1, 7))
def test_an_evaluation_never_divides_a_row_group_and_so_no_event(
    groups: list[RowGroup], world_size: int
) -> None:
    shares = [plan_evaluation(groups, rank=r, world_size=world_size) for r in range(world_size)]
    ranges = [part for share in shares for part in share.ranges]
    assert [(part.start, part.stop) for part in ranges] == [(0, g.n_images) for g in groups]
    equal = sum(g.n_images for g in groups) / world_size
    largest = max(g.n_images for g in groups)
    assert all(abs(share.n_items - equal) <= largest for share in shares)


def test_order_of_row_groups_changes_with_the_epoch_and_only_with_it() -> None:
    groups = [RowGroup(f"s{i}", 0, 1, 1) for i in range(50)]
    first, again, second = (plans(groups, "all", 1, epoch)[0] for epoch in (0, 0, 1))
    assert first == again
    assert items(first) != items(second)
    assert sorted(items(first)) == sorted(items(second))


@given(st.integers(1, 500), st.integers(0, 9))
def test_neighbours_in_the_order_come_from_all_parts_of_the_dataset(
    n_groups: int, epoch: int
) -> None:
    groups = [RowGroup("s", i, 1, 1) for i in range(n_groups)]
    (plan,) = plans(groups, "all", 1, epoch)
    order = [part.row_group.index for part in plan.ranges]
    assert sorted(order) == list(range(n_groups))
    parts = np.array_split(np.arange(n_groups), GROUPS_PER_WINDOW)
    part_of = {index: number for number, part in enumerate(parts) for index in part.tolist()}
    n_whole = n_groups // GROUPS_PER_WINDOW * GROUPS_PER_WINDOW
    for first in range(n_whole - GROUPS_PER_WINDOW + 1):
        window = order[first : first + GROUPS_PER_WINDOW]
        assert len({part_of[index] for index in window}) == GROUPS_PER_WINDOW


def test_a_worker_reads_only_row_groups_of_its_own_range() -> None:
    groups = [RowGroup(f"s{i}", 0, 10, 10) for i in range(8)]
    assert [len(share.ranges) for share in plans(groups, "all", 4)] == [2, 2, 2, 2]


def test_more_workers_than_items_all_get_one() -> None:
    assert [items(share) for share in plans([RowGroup("s", 0, 1, 3)], "random", 3)] == [
        [("s", 0)]
    ] * 3


@given(st.integers(0, 300), st.integers(2, 64))
def test_batches_are_of_near_equal_size_and_never_of_one(n_items: int, batch_size: int) -> None:
    sizes = batch_sizes(n_items, batch_size)
    assert sum(sizes) == n_items
    assert not sizes or max(sizes) - min(sizes) <= 1
    assert 1 not in sizes or n_items == 1
    assert not sizes or max(sizes) <= max(batch_size, 3)


def test_batch_sizes_by_hand() -> None:
    assert batch_sizes(10, 4) == [4, 3, 3]
    assert batch_sizes(129, 128) == [65, 64]
    assert batch_sizes(5, 2) == [3, 2]
    assert batch_sizes(3, 1) == [1, 1, 1]


def shard(path: str, split: str, *counts: tuple[int, int, int, int]) -> ShardRecord:
    names = ("n_images", "n_events", "n_usable_events", "n_usable_images")
    groups = [RowGroupRecord(**dict(zip(names, group, strict=True))) for group in counts]
    return ShardRecord(path=path, split=split, n_images=9, n_failed=3, row_groups=groups)


SHARDS = [
    shard("split=train/a.parquet", "train", (4, 2, 2, 3), (2, 1, 0, 0)),
    shard("split=val/b.parquet", "val", (1, 1, 0, 0)),
]


def test_row_groups_of_a_split_without_a_usable_image_are_left_out() -> None:
    group = RowGroup("s3://b/d/split=train/a.parquet", 0, n_events=2, n_images=3)
    assert list_row_groups("s3://b/d", SHARDS, "train") == [group]


def test_split_without_a_usable_image_is_an_error_that_names_the_splits() -> None:
    for split in ("val", "test"):
        with pytest.raises(ConfigError, match=f"split '{split}'; splits are train, val"):
            list_row_groups("d", SHARDS, split)
