"""Each way to combine images, beside plain Python on one event at a time."""

import math
from collections.abc import Sequence
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctc_ray.config.choices import Aggregation
from ctc_ray.predictions.combine import combine

METHODS = get_args(Aggregation)
TINY = float(np.finfo(np.float32).tiny)


def by_hand(images: Sequence[Sequence[float]], method: str, *, renormalize: bool) -> list[float]:
    """One event, class by class, with exact sums."""
    n, columns = len(images), list(zip(*images, strict=True))
    match method:
        case "mean":
            values = [math.fsum(column) / n for column in columns]
        case "max":
            values = [max(column) for column in columns]
        case "min":
            values = [min(column) for column in columns]
        case "vote":
            best = [image.index(max(image)) for image in map(list, images)]
            values = [best.count(index) / n for index in range(len(columns))]
        case "geometric-mean":
            values = [
                math.exp(math.fsum(map(math.log, c)) / n) if min(c) > 0 else 0.0 for c in columns
            ]
        case _:
            logs = [math.fsum(math.log(max(p, TINY)) for p in column) / n for column in columns]
            odds = [math.exp(log - max(logs)) for log in logs]
            values = [one / math.fsum(odds) for one in odds]
    total = math.fsum(values)
    return [value / total for value in values] if renormalize and total else values


def random_events(seed: int, n_events: int, n_classes: int, *, longest: int) -> list[np.ndarray]:
    """Softmax outputs of all sizes, with zeros and ties, in events of 1 to `longest` images."""
    rng = np.random.default_rng(seed)
    events = []
    for _ in range(n_events):
        odds = np.exp(rng.normal(0, rng.choice([0.5, 5, 30]), (rng.integers(1, longest + 1), 1)))
        odds = odds ** rng.normal(0, 1, n_classes) * (rng.random(n_classes) < 0.9)
        odds[:, 0] += 1e-30
        events.append((odds / odds.sum(axis=1, keepdims=True)).astype(np.float32))
    return events


def combined(events: Sequence[np.ndarray], method: str, *, renormalize: bool = False) -> np.ndarray:
    lengths = np.array([len(event) for event in events])
    return combine(np.concatenate(events), lengths, method=method, renormalize=renormalize)


@pytest.mark.parametrize("renormalize", [False, True])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("n_classes", "longest"), [(1, 3), (2, 40), (50, 15)])
def test_random_events_are_combined_as_by_hand(method, renormalize, n_classes, longest):
    """More events than fit into one step, shorter and longer than is sorted by exchanges."""
    events = random_events(7, 400, n_classes, longest=longest)
    got = combined(events, method, renormalize=renormalize)
    for probs, event in zip(got, events, strict=True):
        expected = by_hand(event.astype(float).tolist(), method, renormalize=renormalize)
        np.testing.assert_allclose(probs, expected, rtol=3e-7, atol=1e-44)


images = st.lists(
    st.lists(st.floats(0, 1, width=32), min_size=3, max_size=3), min_size=1, max_size=15
).map(lambda rows: np.array(rows, np.float32))


@settings(max_examples=200)
@given(st.lists(images, min_size=1, max_size=5), st.sampled_from(METHODS), st.booleans(),
       st.randoms(use_true_random=False))  # fmt: skip
def test_no_bit_depends_on_the_order_of_images_or_on_other_events(
    events, method, renormalize, random
):
    shuffled = [event[random.sample(range(len(event)), len(event))] for event in events]
    together = combined(events, method, renormalize=renormalize)
    alone = [combined([event], method, renormalize=renormalize)[0] for event in shuffled]
    assert together.tobytes() == np.array(alone).tobytes()


def test_sums_whose_bits_depend_on_their_order_do_not_depend_on_that_of_the_images():
    """1 + 4 times half of the last bit of a float64: rounded away one by one, not together."""
    half = 2.0**-53
    for n in (4, 20):
        values = np.array([[1.0], *[[half]] * n], np.float32)
        forward, backward = values.astype(float), values[::-1].astype(float)
        assert sum(forward[:, 0]) != sum(backward[:, 0])
        one, other = (combined([v], "geometric-mean") for v in (values, values[::-1]))
        assert one.tobytes() == other.tobytes()


@pytest.mark.parametrize("method", ["min", "geometric-mean"])
def test_where_every_class_is_excluded_nothing_is_divided(method):
    event = np.array([[1, 0], [0, 1]], np.float32)
    assert combined([event], method, renormalize=True).tolist() == [[0, 0]]


@given(images, st.sampled_from(METHODS))
def test_renormalised_probabilities_add_up_to_1_in_the_proportions_of_the_others(event, method):
    plain = combined([event], method)[0].astype(float)
    shares = combined([event], method, renormalize=True)[0]
    if plain.sum() > 1e-30:
        assert shares.sum() == pytest.approx(1, abs=1e-6)
        np.testing.assert_allclose(shares, plain / plain.sum(), rtol=1e-6, atol=1e-12)


def test_votes_of_images_with_equal_classes_go_to_the_first():
    event = np.array([[0.25, 0.375, 0.375], [0.4, 0.2, 0.4], [0.1, 0.8, 0.1]], np.float32)
    assert combined([event], "vote")[0].tolist() == [np.float32(1 / 3), np.float32(2 / 3), 0]


@pytest.mark.parametrize("method", METHODS)
def test_no_events_are_no_rows(method):
    none = combine(np.zeros((0, 4), np.float32), np.zeros(0, np.int64), method=method)
    assert none.shape == (0, 4)
