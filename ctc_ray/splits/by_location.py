"""Whole locations into splits, with shares and classes as balanced as the locations allow.

L locations (events without a location follow as one more each), S splits, N images.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ctc_ray.columns.factorize import Ints, factorize_to_list, from_codes
from ctc_ray.columns.seeds import hash_to_unit
from ctc_ray.errors import ConfigError
from ctc_ray.schemas import LABEL_PREFIX
from ctc_ray.splits.fractions import cumulative_shares
from ctc_ray.splits.location_assignment import Assignment, Bools
from ctc_ray.splits.location_exchange import NEAR, Exchange

_MAX_EXCHANGED = 400  # locations; each of the others has little of any class
_ATTEMPTS = 20
_MAX_REPEATED = 10_000  # locations; with more of them the first attempt is near enough
_TRIED_FOR_CLASSES = 4500  # locations times pairs of splits, summed over the attempts
_GOOD_ENOUGH = 0.005  # sum of the deviations of all splits, as a share of all images
_EVEN_ENOUGH = 0.001  # sum of squared deviations of each class's share in each split


def split_by_location(
    rows: pa.Table,
    *,
    fractions: Mapping[str, float],
    salt: str,
    fixed: Mapping[str, str] | None = None,
) -> pa.Array:
    """The split of each image's location, so no location is in two splits.

    1. A class with at least as many locations as there are splits gets a location in every split,
       the rarest class first.
    2. Each remaining location goes to the split that is furthest below its share of images.
    3. Locations are moved or exchanged while that brings the shares of images, or the shares of
       each class's images, closer to the fractions and takes no class from a split.

    Locations are taken in the order of a hash. If the result is not close enough, other orders are
    tried and the best result is kept. The shares of images come first, to a thousandth of the
    images. The order of the rows does not matter. Further images may change the split of every
    location that is not fixed. An event without a location is assigned by the hash of its id.

    Args:
        fractions: split -> share of images in [0, 1]; sums to 1 within 1e-9.
        salt: changes the assignment as a whole, e.g. for cross-validation.
        fixed: location -> its split, decided before; locations without rows are ignored.

    Raises:
        ConfigError: fractions do not sum to 1, a split's name cannot be a folder, or a fixed split
            is not in `fractions`.
    """
    splits, ends = cumulative_shares(fractions)
    has_location_N = pc.is_valid(rows["location_id"]).to_numpy()
    location_N, locations = factorize_to_list(rows["location_id"])
    lone_N, events = factorize_to_list(
        rows["capture_event_id"].filter(pc.is_null(rows["location_id"]))
    )
    location_N[~has_location_N] = lone_N + len(locations)
    drawn = np.searchsorted(ends, [hash_to_unit(event, salt) for event in events], side="right")
    given_L = np.full(len(locations) + len(events), -1, np.int64)
    given_L[len(locations) :] = np.minimum(drawn, len(splits) - 1)
    for number, name in enumerate(locations):
        if fixed and name in fixed:
            if fixed[name] not in splits:
                raise ConfigError(
                    f"location {name!r} is in the split {fixed[name]!r} already; add that split "
                    f"to split.fractions, which has {', '.join(splits)}"
                )
            given_L[number] = splits.index(fixed[name])
    targets = np.diff([0.0, *ends]) * len(location_N)
    n_images_L = np.bincount(location_N, minlength=len(given_L))
    pairs = _location_class_pairs(rows, location_N)

    free = np.flatnonzero(given_L < 0)
    undecided = Assignment(
        given_L, n_images_L, np.full_like(given_L, len(locations)), targets, *pairs
    )

    def in_order(attempt: int) -> Assignment:
        own_salt = f"{salt}\0{attempt}" if attempt else salt
        hashes = [hash_to_unit(name, own_salt) for name in locations]
        assignment = undecided.copy()
        assignment.ranks[np.argsort(hashes, kind="stable")] = np.arange(len(locations))
        return assignment

    n_attempts = _ATTEMPTS if 0 < len(free) <= _MAX_REPEATED else 1
    n_pairs = len(splits) * (len(splits) - 1) // 2
    n_for_classes = max(1, _TRIED_FOR_CLASSES // max(len(free) * n_pairs, 1))
    best = _best((in_order(attempt) for attempt in range(n_attempts)), n_for_classes)
    return from_codes(best[location_N], splits)


def _best(assignments: Iterable[Assignment], n_for_classes: int) -> Ints:
    """The split of each location by the first assignment that is good enough, else by the best.

    Args:
        n_for_classes: further assignments are tried for the shares of images alone.
    """
    best, least = np.empty(0, np.int64), (math.inf, math.inf, math.inf)
    for number, assignment in enumerate(assignments, start=1):
        is_free_L = assignment.chosen < 0
        assignment.cover_classes()
        assignment.fill()
        assignment.even_shares(is_free_L)
        methods = [Exchange.shares_first]
        if number <= n_for_classes:
            methods.append(Exchange.classes_first)
        for chosen, n_missing, deviation, unevenness in _exchanged(assignment, is_free_L, methods):
            deviation = max(round(deviation, 9), NEAR)  # sums that differ in their last bits tie
            if (n_missing, deviation, unevenness) < least:
                best, least = chosen, (n_missing, deviation, unevenness)
        is_even = least[2] <= _EVEN_ENOUGH or number >= n_for_classes
        if least[:2] <= (0, _GOOD_ENOUGH) and is_even:
            break
    return best


def _exchanged(
    assignment: Assignment, free_L: Bools, methods: Sequence[Callable[[Exchange], None]]
) -> Iterator[tuple[Ints, int, float, float]]:
    """Per method: the split of each location, `shortfall`, and unevenness after the exchanges."""
    if not free_L.any():
        yield assignment.chosen, *assignment.shortfall(), 0.0
        return
    movable_L = _largest(assignment, free_L)
    for exchange_locations in methods:
        own = assignment.copy()
        exchange = Exchange(own, movable_L)
        exchange_locations(exchange)
        yield own.chosen, *own.shortfall(), exchange.unevenness()


def _largest(assignment: Assignment, free_L: Bools) -> Bools:
    """The free locations with the largest share of all images, or of a class's images."""
    most_L = assignment.sizes / assignment.n_images
    np.maximum.at(most_L, assignment.pair_locations, assignment.pair_parts)
    free = np.flatnonzero(free_L)
    order = np.lexsort((assignment.ranks[free], -most_L[free]))
    found = np.zeros(len(free_L), bool)
    found[free[order[:_MAX_EXCHANGED]]] = True
    return found


def _location_class_pairs(rows: pa.Table, location_N: Ints) -> tuple[Ints, Ints, Ints, int]:
    """Location, class and number of images of each pair that occurs; and the number of classes.

    The classes of all heads are numbered together, head by head in the order of their names.
    """
    pairs, n_before = [np.empty((0, 3), np.int64)], 0
    for column in sorted(name for name in rows.column_names if name.startswith(LABEL_PREFIX)):
        code_N, classes = factorize_to_list(rows[column])
        known = code_N >= 0
        width = max(len(classes), 1)
        keys, counts = np.unique(location_N[known] * width + code_N[known], return_counts=True)
        pairs.append(np.stack([keys // width, keys % width + n_before, counts], axis=1))
        n_before += len(classes)
    locations, classes, counts = np.concatenate(pairs).T
    return locations, classes, counts, n_before
