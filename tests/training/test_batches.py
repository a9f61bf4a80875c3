import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
import torch

from ctc_ray.columns.seeds import stable_hash
from ctc_ray.errors import LabelError, SchemaError
from ctc_ray.labels import LabelSpace
from ctc_ray.training.batches import (
    IGNORE_INDEX,
    Batch,
    LoaderSettings,
    choose_images,
    read_batches,
    read_parts,
)
from ctc_ray.training.plans import EpochPlan, PlanPart, RowGroup, plan_epoch, plan_evaluation

Decode = Callable[[bytes], npt.NDArray[np.uint8]]
MakeDataset = Callable[..., list[RowGroup]]

BURSTS = [(f"e{i:03d}", [None, None, None]) for i in range(40)]


@pytest.fixture
def settings(label_space: LabelSpace, decode: Decode) -> LoaderSettings:
    return LoaderSettings(label_space, decode, batch_size=8)


def epoch(groups: list[RowGroup], number: int = 0, **changes: Any) -> EpochPlan:
    return plan_epoch(groups, **{"image_choice": "random", "seed": 5, "epoch": number, **changes})


def ids(plan: EpochPlan, settings: LoaderSettings) -> list[str]:
    return [name for batch in read_batches(plan, settings) for name in batch.image_ids]


def test_each_event_gives_one_image_and_over_the_epochs_all(
    make_dataset: MakeDataset, settings: LoaderSettings
) -> None:
    groups = make_dataset(BURSTS)
    seen: Counter[str] = Counter()
    for number in range(12):
        chosen = ids(epoch(groups, number), settings)
        assert sorted(name.split("-")[0] for name in chosen) == [event for event, _ in BURSTS]
        seen.update(chosen)
    assert len(seen) > 0.95 * 120  # each of three images is missed 12 times with (2/3)**12 = .008


def test_all_images_can_be_chosen(make_dataset: MakeDataset, settings: LoaderSettings) -> None:
    chosen = ids(epoch(make_dataset(BURSTS), image_choice="all"), settings)
    assert sorted(chosen) == [f"{event}-{i}" for event, _ in BURSTS for i in range(3)]


def test_failed_images_are_never_chosen(
    make_dataset: MakeDataset, settings: LoaderSettings
) -> None:
    groups = make_dataset(
        [("a", ["missing", None, "unreadable"]), ("b", ["missing"]), ("c", [None])]
    )
    for number in range(5):
        assert sorted(ids(epoch(groups, number), settings)) == ["a-1", "c-0"]
    assert ids(plan_evaluation(groups), settings) == ["a-1", "c-0"]


def test_missing_labels_become_the_index_to_ignore(
    make_dataset: MakeDataset, settings: LoaderSettings
) -> None:
    (batch,) = read_batches(plan_evaluation(make_dataset(BURSTS[:2], 2)), settings)
    assert batch.labels["species"].tolist() == [0, 0, 0, 1, 1, 1]
    assert batch.labels["sex"].tolist() == [1, 1, 1, *[IGNORE_INDEX] * 3]
    assert batch.labels["sex"].dtype == torch.int64


def test_pixels_come_as_bytes_with_channels_first_by_shape(
    make_dataset: MakeDataset, settings: LoaderSettings, decode: Decode
) -> None:
    captured: list[bytes] = []

    def remember(raw: bytes, seed: int) -> npt.NDArray[np.uint8]:
        captured.append(raw)
        return decode(raw, seed)

    groups = make_dataset([("a", [None])])
    (batch,) = read_batches(plan_evaluation(groups), replace(settings, decode=remember))
    expected = torch.from_numpy(decode(captured[0], 0).copy()).permute(2, 0, 1)
    assert batch.images_BCHW.shape == (1, 3, 16, 16)
    assert torch.equal(batch.images_BCHW[0], expected)


def flat(batches: list[Batch]) -> list[Any]:
    return [
        (batch.image_ids, batch.seeds, batch.images_BCHW.sum().item(), batch.labels["sex"].tolist())
        for batch in batches
    ]


def test_same_plan_gives_the_same_batches_with_any_number_of_threads(
    make_dataset: MakeDataset, settings: LoaderSettings
) -> None:
    plan = epoch(make_dataset(BURSTS))
    one = flat(list(read_batches(plan, replace(settings, decode_threads=1))))
    assert one == flat(list(read_batches(plan, replace(settings, decode_threads=4))))


@pytest.mark.parametrize("changes", [{}, {"image_choice": "all", "rank": 1, "world_size": 2}])
def test_reading_from_any_batch_on_gives_the_same_batches_and_decodes_no_other_image(
    make_dataset: MakeDataset, settings: LoaderSettings, decode: Decode, changes: dict[str, Any]
) -> None:
    plan = epoch(make_dataset(BURSTS, 1), **changes)  # 40 row groups: windows of 16, 16 and 8
    whole = flat(list(read_batches(plan, settings)))
    for first in range(len(whole) + 1):
        decoded: list[int] = []

        def remember(raw: bytes, seed: int, seeds: list[int] = decoded) -> npt.NDArray[np.uint8]:
            seeds.append(seed)
            return decode(raw, seed)

        watched = replace(settings, decode=remember)
        rest = flat(list(read_batches(plan, watched, first_batch=first)))
        assert rest == whole[first:]
        assert sorted(decoded) == sorted(seed for _, seeds, *_ in rest for seed in seeds)


def test_windows_before_the_first_batch_are_not_read(
    make_dataset: MakeDataset, settings: LoaderSettings
) -> None:
    plan = epoch(make_dataset([(f"e{i:02d}", [None]) for i in range(50)], 1))
    kept = list(read_batches(plan, settings))[5:]  # items 36 and later; windows end at 16, 32, 48
    gone = [
        replace(part, row_group=replace(part.row_group, uri="no such file"))
        for part in plan.ranges[:32]
    ]
    plan = replace(plan, ranges=(*gone, *plan.ranges[32:]))
    assert flat(list(read_batches(plan, settings, first_batch=5))) == flat(kept)


@pytest.mark.parametrize("image_choice", ["all", "random"])
def test_parts_of_the_plans_of_several_workers_are_their_items_one_after_the_other(
    make_dataset: MakeDataset, settings: LoaderSettings, image_choice: str
) -> None:
    groups = make_dataset([(f"e{i:03d}", [None, None]) for i in range(90)], 1)
    plans = [epoch(groups, image_choice=image_choice, rank=rank, world_size=2) for rank in range(2)]
    n = plans[0].n_items  # three or six windows each
    parts = [PlanPart(plans[0], 17, n), PlanPart(plans[1], 0, 3), PlanPart(plans[1], 20, n - 5)]
    wanted = [name for part in parts for name in ids(part.plan, settings)[part.start : part.stop]]
    whole = list(read_parts(parts, settings))
    assert [name for batch in whole for name in batch.image_ids] == wanted
    for first in range(len(whole) + 1):
        assert flat(list(read_parts(parts, settings, first_batch=first))) == flat(whole)[first:]


def test_order_and_seeds_change_from_epoch_to_epoch(
    make_dataset: MakeDataset, settings: LoaderSettings
) -> None:
    groups = make_dataset([(f"e{i}", [None]) for i in range(30)])
    first, second = (list(read_batches(epoch(groups, number), settings)) for number in (0, 1))
    seeds = [
        {n: s for batch in batches for n, s in zip(batch.image_ids, batch.seeds, strict=True)}
        for batches in (first, second)
    ]
    assert seeds[0].keys() == seeds[1].keys()
    assert all(seeds[0][name] != seeds[1][name] for name in seeds[0])
    assert list(seeds[0]) != list(seeds[1])


def test_images_of_neighbouring_row_groups_are_mixed(
    make_dataset: MakeDataset, settings: LoaderSettings
) -> None:
    groups = make_dataset([(f"e{i:02d}", [None]) for i in range(32)])  # 8 row groups of 4
    first = next(iter(read_batches(epoch(groups), settings))).image_ids
    assert len({int(name[1:3]) // 4 for name in first}) > 3


def test_more_row_groups_than_a_window_are_all_read(
    make_dataset: MakeDataset, settings: LoaderSettings
) -> None:
    groups = make_dataset([(f"e{i:02d}", [None]) for i in range(50)], 1)
    assert sorted(ids(epoch(groups), settings)) == [f"e{i:02d}-0" for i in range(50)]


def test_workers_together_see_every_event(
    make_dataset: MakeDataset, settings: LoaderSettings
) -> None:
    groups = make_dataset(BURSTS)
    shares = [ids(epoch(groups, rank=rank, world_size=3), settings) for rank in range(3)]
    assert [len(share) for share in shares] == [14, 14, 14]
    assert len({name.split("-")[0] for share in shares for name in share}) == 40


def test_no_batch_of_one_is_left_over(make_dataset: MakeDataset, settings: LoaderSettings) -> None:
    plan = epoch(make_dataset(BURSTS[:9]))
    assert [len(batch.seeds) for batch in read_batches(plan, settings)] == [5, 4]


def test_error_of_the_decoder_reaches_the_reader(
    make_dataset: MakeDataset, settings: LoaderSettings
) -> None:
    def broken(raw: bytes, seed: int) -> npt.NDArray[np.uint8]:
        raise ZeroDivisionError("decoder")

    with pytest.raises(ZeroDivisionError, match="decoder"):
        list(read_batches(epoch(make_dataset(BURSTS)), replace(settings, decode=broken)))


def test_unknown_class_is_an_error_and_not_a_missing_label(
    make_dataset: MakeDataset, settings: LoaderSettings
) -> None:
    fewer = replace(settings, label_space=LabelSpace({"species": ("cat", "dog")}))
    with pytest.raises(LabelError, match="'hare' is not a class of head 'species'"):
        list(read_batches(epoch(make_dataset(BURSTS)), fewer))


def test_head_that_the_shards_do_not_have_is_a_schema_error(
    make_dataset: MakeDataset, settings: LoaderSettings
) -> None:
    other = replace(settings, label_space=LabelSpace({"age": ("old",)}))
    with pytest.raises(SchemaError, match="column 'label_age' not found"):
        list(read_batches(epoch(make_dataset(BURSTS)), other))


def test_shard_that_is_not_what_the_manifest_says_is_a_schema_error(
    make_dataset: MakeDataset, settings: LoaderSettings
) -> None:
    groups = [replace(group, n_events=group.n_events + 1) for group in make_dataset(BURSTS)]
    with pytest.raises(SchemaError, match="holds 4 usable items, the manifest says 5"):
        list(read_batches(epoch(groups), settings))


def test_abandoned_iterator_ends_its_threads(
    make_dataset: MakeDataset, settings: LoaderSettings
) -> None:
    before = threading.active_count()
    batches = read_batches(epoch(make_dataset(BURSTS)), settings)
    next(batches)
    assert threading.active_count() > before
    batches.close()  # type: ignore[attr-defined]  # it is a generator
    assert threading.active_count() == before


def test_batches_are_made_ahead_but_not_all(
    make_dataset: MakeDataset, settings: LoaderSettings, decode: Decode
) -> None:
    decoded = threading.Semaphore(0)

    def count(raw: bytes, seed: int) -> npt.NDArray[np.uint8]:
        decoded.release()
        return decode(raw, seed)

    batches = read_batches(epoch(make_dataset(BURSTS)), replace(settings, decode=count))
    next(batches)
    for _ in range(24):  # the batch that was asked for, and two ahead
        assert decoded.acquire(timeout=30)
    assert not decoded.acquire(timeout=0.2)
    batches.close()  # type: ignore[attr-defined]  # it is a generator


def test_hash_is_the_same_on_every_machine() -> None:
    assert stable_hash("event", 1, 2) == 761811515761247913  # printf 1/2/event | b2sum -l 64
    assert 0 <= stable_hash("", 0, 0) < 2**63


@pytest.mark.parametrize("epoch", [0, 1, 7])
def test_the_first_image_of_an_event_is_the_same_in_every_epoch(epoch: int) -> None:
    rows = pa.table({"capture_event_id": ["a", "a", "b", "c", "c", "c"]})
    assert choose_images(rows, "first", seed=1, epoch=epoch).tolist() == [0, 2, 3]


STACKED = [
    ("a", [None]),
    ("b", [None, "missing", None]),
    ("c", ["missing"]),
    ("d", [None] * 5),
    *[(f"e{i:02d}", [None] * (1 + i % 3)) for i in range(40)],
]


def first_three(frames: Any) -> npt.NDArray[np.uint8]:
    """Keeps which frames came, as the channels of one image; the last is repeated."""
    channels = [frame[:, :, 0] for frame in frames]
    assert len(channels) <= 3
    return np.stack([*channels, *[channels[-1]] * (3 - len(channels))], axis=2)


@pytest.mark.parametrize("is_evaluation", [False, True])
def test_a_stack_is_made_of_the_first_three_usable_images_of_an_event_changed_alike(
    make_dataset: MakeDataset, settings: LoaderSettings, decode: Decode, is_evaluation: bool
) -> None:
    groups = make_dataset(STACKED, 2)
    plans = [plan_evaluation(groups, "stack", rank=rank, world_size=2) for rank in (0, 1)]
    plans = plans if is_evaluation else [epoch(groups, image_choice="stack")]
    used: dict[int, int] = {}

    def counted(raw: bytes, seed: int) -> npt.NDArray[np.uint8]:
        used[seed] = used.get(seed, 0) + 1
        return decode(raw, seed)

    loader = replace(settings, decode=counted, stack=first_three)
    found: dict[str, tuple[int, npt.NDArray[np.uint8]]] = {}
    for batch in (batch for plan in plans for batch in read_batches(plan, loader)):
        for name, seed, image in zip(batch.image_ids, batch.seeds, batch.images_BCHW, strict=True):
            assert name not in found
            found[name] = seed, image.numpy()
    usable = [(event, [k for k, f in enumerate(fs) if f is None]) for event, fs in STACKED]
    expected = {f"{event}-{ks[0]}": (event, ks[:3]) for event, ks in usable if ks}
    assert set(found) == set(expected)
    if not is_evaluation:
        assert list(found) != list(expected)
    single = {
        name: image[0].numpy()
        for batch in read_batches(plan_evaluation(groups), settings)
        for name, image in zip(batch.image_ids, batch.images_BCHW, strict=True)
    }
    for name, (event, ks) in expected.items():
        frames = [single[f"{event}-{k}"] for k in [*ks, ks[-1], ks[-1]][:3]]
        seed, image = found[name]
        assert np.array_equal(image, np.stack(frames))
        assert used[seed] == len(ks)
