"""Shares of classes in an epoch: those asked for, over all windows and workers."""

from collections import Counter
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctc_ray.config.choices import ImageChoice, Sampling
from ctc_ray.files import parquet
from ctc_ray.labels import LabelSpace
from ctc_ray.training.batches import IGNORE_INDEX, Batch, LoaderSettings, read_batches
from ctc_ray.training.plans import RowGroup, plan_epoch, plan_evaluation
from ctc_ray.training.sampling import ClassSampling, class_sampling, draw, occurrences

LABELS = LabelSpace({"species": ("cat", "deer", "fox", "none yet"), "sex": ("f", "m")})
OCCUR = {"cat": 0.65, "deer": 0.2, "fox": 0.05, None: 0.1}  # of the events
BURST = {"cat": 1, "deer": 2, "fox": 3, None: 1}  # images of an event
PER_GROUP, N_GROUPS = 150, 140  # 21,000 events; windows of 2,400


def black(raw: bytes, seed: int) -> npt.NDArray[np.uint8]:
    return np.zeros((1, 1, 3), np.uint8)


@pytest.fixture(scope="module")
def groups(tmp_path_factory: pytest.TempPathFactory) -> list[RowGroup]:
    folder: Path = tmp_path_factory.mktemp("shards")
    rng = np.random.default_rng(7)
    names = rng.choice(np.array(list(OCCUR), object), N_GROUPS * PER_GROUP, p=list(OCCUR.values()))
    found = []
    for number in range(N_GROUPS):
        events = range(number * PER_GROUP, (number + 1) * PER_GROUP)
        rows = [(e, k) for e in events for k in range(BURST[names[e]])]
        table = pa.table(
            {
                "image_id": [f"{event}-{k}" for event, k in rows],
                "capture_event_id": [str(event) for event, _ in rows],
                "label_species": pa.array([names[event] for event, _ in rows], pa.string()),
                "label_sex": pa.array(["f"] * len(rows)),
                "jpeg": [b"x"] * len(rows),
                "failure": pa.nulls(len(rows), pa.string()),
            }
        )
        uri = str(folder / f"{number}.parquet")
        parquet.write_table(uri, table)
        found.append(RowGroup(uri, 0, n_events=PER_GROUP, n_images=len(rows)))
    return found


@cache
def n_images(uris: tuple[str, ...]) -> list[int]:
    labels: Counter[str] = Counter()
    for uri in uris:
        labels.update(parquet.read_table(uri, ["label_species"])["label_species"].to_pylist())
    return [labels[name] for name in LABELS.classes["species"]]


def sampled_by(rule: Sampling, groups: list[RowGroup]) -> ClassSampling | None:
    return class_sampling(
        rule, "species", {"species": n_images(tuple(group.uri for group in groups))}
    )


def epoch(
    groups: list[RowGroup], rule: Sampling, n_workers: int, image_choice: ImageChoice = "all"
) -> list[Batch]:
    sampling = sampled_by(rule, groups)
    settings = LoaderSettings(LABELS, black, 500, sampling=sampling)
    plans = [
        plan_epoch(
            groups, image_choice=image_choice, seed=2, epoch=1, rank=rank, world_size=n_workers
        )
        for rank in range(n_workers)
    ]
    return [batch for plan in plans for batch in read_batches(plan, settings)]


def codes(batches: list[Batch]) -> npt.NDArray[np.int64]:
    return np.concatenate([batch.labels["species"].numpy() for batch in batches])


@pytest.mark.parametrize("n_workers", [1, 8])
@pytest.mark.parametrize("image_choice", ["all", "random"])
@pytest.mark.parametrize("rule", ["balanced", "square-root"])
def test_classes_have_the_share_that_is_asked_for(
    groups: list[RowGroup], rule: Sampling, image_choice: ImageChoice, n_workers: int
) -> None:
    found = codes(epoch(groups, rule, n_workers, image_choice))
    n_items = sum(group.n_items(image_choice) for group in groups)
    assert n_items <= len(found) <= n_items + n_workers  # as many as without sampling
    n_K = np.array(n_images(tuple(g.uri for g in groups))[:3], float)
    wanted = n_K**0.5 if rule == "square-root" else n_K**0
    wanted = wanted / wanted.sum()
    unlabelled = 1 - n_K.sum() / sum(group.n_images for group in groups)
    shares = [*(wanted * (1 - unlabelled)), unlabelled]
    for code, share in zip((0, 1, 2, IGNORE_INDEX), shares, strict=True):
        error = 3 * (share * (1 - share) / n_items) ** 0.5
        assert np.mean(found == code) == pytest.approx(share, abs=error)


def test_without_sampling_each_image_is_used_once(groups: list[RowGroup]) -> None:
    batches = epoch(groups, "none", 1)
    ids = [name for batch in batches for name in batch.image_ids]
    assert len(set(ids)) == len(ids) == sum(group.n_images for group in groups)


def test_an_image_that_is_used_again_is_changed_differently(groups: list[RowGroup]) -> None:
    sampled, plain = epoch(groups, "balanced", 1), epoch(groups, "none", 1)
    usual = {n: s for b in plain for n, s in zip(b.image_ids, b.seeds, strict=True)}
    seeds: dict[str, list[int]] = {}
    for batch in sampled:
        for name, seed in zip(batch.image_ids, batch.seeds, strict=True):
            seeds.setdefault(name, []).append(seed)
    assert max(map(len, seeds.values())) > 2
    for name, found in seeds.items():
        assert found[0] == usual[name]
        assert len(set(found)) == len(found)


def test_a_sampled_epoch_is_the_same_again_and_from_any_batch_on(groups: list[RowGroup]) -> None:
    sampling = sampled_by("balanced", groups)
    settings = LoaderSettings(LABELS, black, 500, sampling=sampling)
    plan = plan_epoch(groups, image_choice="random", seed=2, epoch=3)

    def seeds(first: int = 0) -> list[tuple[int, ...]]:
        return [batch.seeds for batch in read_batches(plan, settings, first_batch=first)]

    whole = seeds()
    assert seeds() == whole
    assert seeds(17) == whole[17:]
    other = replace(plan, epoch=4)
    assert [batch.seeds for batch in read_batches(other, settings)] != whole


def test_evaluation_is_never_sampled(groups: list[RowGroup]) -> None:
    settings = LoaderSettings(LABELS, black, 500)
    sampled = replace(settings, sampling=sampled_by("balanced", groups))
    plan = plan_evaluation(groups[:20])
    ids = [[b.image_ids for b in read_batches(plan, s)] for s in (settings, sampled)]
    assert ids[0] == ids[1]


WEIGHTS = st.lists(st.floats(0.01, 1000), min_size=1, max_size=50).map(np.array)


@given(WEIGHTS, st.integers(0, 2**32))
def test_a_draw_uses_each_item_as_often_as_its_share_says_rounded_down_or_up(
    weights: npt.NDArray[np.float64], seed: int
) -> None:
    n = len(weights)
    drawn = draw(weights, np.random.default_rng(seed))
    expected = weights / weights.sum() * n
    times = np.bincount(drawn, minlength=n)
    assert len(drawn) == n
    assert (times >= np.floor(expected - 1e-6)).all()
    assert (times <= np.ceil(expected + 1e-6)).all()


def test_draws_have_the_expected_number_of_uses_on_average() -> None:
    weights = np.array([0.2, 0.2, 3.3, 1.0, 0.3])
    drawn = [draw(weights, np.random.default_rng(seed)) for seed in range(4000)]
    mean = np.bincount(np.concatenate(drawn), minlength=5) / 4000
    assert mean == pytest.approx(weights, abs=4 * 0.5 / 4000**0.5)


def test_a_window_without_any_weight_but_one_item_repeats_it() -> None:
    assert draw(np.array([5.0]), np.random.default_rng(0)).tolist() == [0]


@given(st.lists(st.integers(0, 5), max_size=30))
def test_occurrences_count_earlier_uses(indices: list[int]) -> None:
    seen: Counter[int] = Counter()
    expected = []
    for index in indices:
        expected.append(seen[index])
        seen[index] += 1
    assert occurrences(np.array(indices, np.int64)).tolist() == expected
