"""Combine the probabilities of an event's images, class by class.

F events with M images together, n of them in one event, K classes of a head. The images of an event
are neighbours.

Sums are of 64-bit numbers that are added in ascending order, so neither the order of an event's
images nor which other events are combined in the same call changes a bit of the result.
"""

from collections.abc import Callable, Iterator
from functools import reduce
from typing import assert_never

import numpy as np
import numpy.typing as npt

from ctc_ray.config.choices import Aggregation

_TINY = float(np.finfo(np.float32).tiny)  # log(0) would let one image exclude a class
_VALUES_AT_ONCE = 1 << 15  # fit into the processor's cache, as 64-bit numbers too
_MOST_EXCHANGES = 12  # images; n of them take n * n steps, each for many events at once

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def combine(
    probs_MK: Floats, n_images_F: Ints, *, method: Aggregation, renormalize: bool = False
) -> Floats:
    """The probabilities of each event, (F, K).

    mean, max, min and geometric-mean take every class by itself and do not normalise: the maxima
    add up to more than 1, the minima and geometric means to less. mean-logit is the softmax of the
    mean logarithms, and vote the share of the images whose best class this is, of equal ones the
    first; both add up to 1.

    Args:
        n_images_F: images of each event, at least 1.
        renormalize: divide the probabilities of an event by their sum; where it is 0, they stay 0.
    """
    of_images = _way(method)
    starts_F = np.cumsum(n_images_F) - n_images_F
    combined_FK = np.empty((len(n_images_F), probs_MK.shape[1]), np.float32)
    for some, n in _of_equal_length(n_images_F, probs_MK.shape[1]):
        images_nFK = probs_MK[starts_F[some] + np.arange(n)[:, None]]
        values_FK = of_images(list(images_nFK))
        combined_FK[some] = _normalised(values_FK) if renormalize else values_FK
    return combined_FK


def _of_equal_length(n_images_F: Ints, n_classes: int) -> Iterator[tuple[Ints, int]]:
    """Events with equally many images, a few at a time, and how many images each has."""
    order = np.argsort(n_images_F, kind="stable")
    lengths, first = np.unique(n_images_F[order], return_index=True)
    for n, events in zip(lengths.tolist(), np.split(order, first)[1:], strict=True):
        step = max(1, _VALUES_AT_ONCE // (n * n_classes))
        for start in range(0, len(events), step):
            yield events[start : start + step], n


def _way(method: Aggregation) -> Callable[[list[Floats]], Floats | Doubles]:
    """The function that combines n images of several events.

    It takes the first images of all events, their second ones, and so on, each (F, K), and may
    overwrite them.
    """
    match method:
        case "max":
            return _largest
        case "min":
            return _smallest
        case "mean":
            return _mean
        case "mean-logit":
            return _mean_logit
        case "geometric-mean":
            return _geometric_mean
        case "vote":
            return _votes
        case _:
            assert_never(method)


def _largest(images: list[Floats]) -> Floats:
    return reduce(np.maximum, images)


def _smallest(images: list[Floats]) -> Floats:
    return reduce(np.minimum, images)


def _mean(images: list[Floats]) -> Doubles:
    return _sum(_ascending(images)) / len(images)


def _mean_logit(images: list[Floats]) -> Doubles:
    logs_FK = _mean_log([np.maximum(one, _TINY) for one in images])
    odds_FK = np.exp(logs_FK - logs_FK.max(axis=1, keepdims=True))
    probs_FK: Doubles = odds_FK / odds_FK.sum(axis=1, keepdims=True)
    return probs_FK


def _geometric_mean(images: list[Floats]) -> Doubles:
    with np.errstate(divide="ignore"):  # a class that one image excludes has 0
        means_FK: Doubles = np.exp(_mean_log(images))
    return means_FK


def _votes(images: list[Floats]) -> Doubles:
    counts_FK = np.zeros(images[0].shape)
    for one in images:
        counts_FK[np.arange(len(one)), one.argmax(axis=1)] += 1
    return counts_FK / len(images)


def _ascending(images: list[Floats]) -> list[Floats]:
    """The n values of every event and class in ascending order. Two need none to be added."""
    if len(images) < 3:
        return images
    if len(images) > _MOST_EXCHANGES:
        return list(np.sort(np.stack(images), axis=0))
    images, spare = list(images), np.empty_like(images[0])
    for start in range(len(images)):  # n rounds sort n values: odd-even transposition
        for i in range(start % 2, len(images) - 1, 2):
            low, high = images[i], images[i + 1]
            np.minimum(low, high, out=spare)
            np.maximum(low, high, out=high)
            images[i], spare = spare, low
    return images


def _sum(images: list[Floats] | list[Doubles]) -> Doubles:
    total = images[0].astype(np.float64)
    for one in images[1:]:
        total += one
    return total


def _mean_log(images: list[Floats]) -> Doubles:
    logs = [np.log(one, dtype=np.float64) for one in _ascending(images)]
    return _sum(logs) / len(logs)


def _normalised(values_FK: Floats | Doubles) -> Doubles:
    total_F = values_FK.sum(axis=1, keepdims=True, dtype=np.float64)
    shares_FK: Doubles = values_FK / np.where(total_F > 0, total_F, 1)
    return shares_FK
