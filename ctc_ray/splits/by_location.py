"""Whole locations into splits: shares and classes kept as well as the locations allow.

L locations, S splits, N images.
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

_MAX_EXCHANGED = 400  # locations; of the others each has little of any class
_ATTEMPTS = 20
_MAX_REPEATED = 10_000  # locations; with more of them the first attempt is near enough
_TRIED_FOR_CLASSES = 4500  # locations times pairs of splits, of all attempts together
_GOOD_ENOUGH = 0.005  # sum of the deviations of all splits, as a share of all images
_EVEN_ENOUGH = 0.001  # sum of the squares of how far each class is off in each split


def split_by_location(
    rows: pa.Table,
    *,
    fractions: Mapping[str, float],
    salt: str,
    fixed: Mapping[str, str] | None = None,
) -> pa.Array:
    """The split of each image's location, so no location is in two splits.

    In the order of a hash, locations are given first to the splits that lack a class, the rarest
    class first, as long as it has as many locations as there are splits; then each to the
    split that is furthest below its share of images; then some are moved or exchanged where that
    brings the shares nearer, or each class's images nearer to the same shares, and costs no split
    a class. If these are still off, other orders are tried, and the best one stays: the shares
    come first, but for a thousandth of the images. The order of the rows does not matter; other
    images may change the splits of all locations but the fixed ones. Events without location are
    hashed by their own id.

    Args:
        fractions: split -> share of images in [0, 1]; sums to 1 within 1e-9.
        salt: changes the assignment as a whole, e.g. for cross-validation.
        fixed: location -> split that is decided already; others than those here do not matter.

    Raises:
        ConfigError: fractions do not sum to 1, a name is no name of a folder, or a fixed split is
            none of the splits.
    """
    splits, ends = cumulative_shares(fractions)
    is_place = pc.is_valid(rows["location_id"]).to_numpy()
    place_N, places = factorize_to_list(rows["location_id"])
    lone_N, events = factorize_to_list(
        rows["capture_event_id"].filter(pc.is_null(rows["location_id"]))
    )
    place_N[~is_place] = lone_N + len(places)
    drawn = np.searchsorted(ends, [hash_to_unit(event, salt) for event in events], side="right")
    given_L = np.full(len(places) + len(events), -1, np.int64)
    given_L[len(places) :] = np.minimum(drawn, len(splits) - 1)
    for number, name in enumerate(places):
        if fixed and name in fixed:
            if fixed[name] not in splits:
                raise ConfigError(
                    f"location {name!r} is in the split {fixed[name]!r} already; "
                    f"split.fractions has {', '.join(splits)}"
                )
            given_L[number] = splits.index(fixed[name])
    targets = np.diff([0.0, *ends]) * len(place_N)
    n_images_L = np.bincount(place_N, minlength=len(given_L))
    pairs = location_classes(rows, place_N, len(given_L))

    free = np.flatnonzero(given_L < 0)
    base = Assignment(given_L, n_images_L, np.full_like(given_L, len(places)), targets, *pairs)

    def attempted(number: int) -> Assignment:
        own_salt = f"{salt}\0{number}" if number else salt
        hashes = [hash_to_unit(name, own_salt) for name in places]
        work = base.copy()
        work.ranks[np.argsort(hashes, kind="stable")] = np.arange(len(places))
        return work

    n_attempts = _ATTEMPTS if 0 < len(free) <= _MAX_REPEATED else 1
    n_pairs = len(splits) * (len(splits) - 1) // 2
    n_for_classes = max(1, _TRIED_FOR_CLASSES // max(len(free) * n_pairs, 1))
    best = _best((attempted(number) for number in range(n_attempts)), n_for_classes)
    return from_codes(best[place_N], splits)


def _best(assignments: Iterable[Assignment], n_for_classes: int) -> Ints:
    """The split of each location by the first assignment that is good enough, else the best.

    Args:
        n_for_classes: assignments after which others are tried for the shares alone.
    """
    best, least = np.empty(0, np.int64), (math.inf, math.inf, math.inf)
    for number, work in enumerate(assignments, start=1):
        is_free_L = work.chosen < 0
        work.cover()
        work.fill()
        work.even(is_free_L)
        ways = [Exchange.shares_first]
        if number <= n_for_classes:
            ways.append(Exchange.classes_first)
        for chosen, lacking, fault, unevenness in _settled(work, is_free_L, ways):
            fault = max(round(fault, 9), NEAR)  # sums that differ by their last bits are equal
            if (lacking, fault, unevenness) < least:
                best, least = chosen, (lacking, fault, unevenness)
        is_even = least[2] <= _EVEN_ENOUGH or number >= n_for_classes
        if least[:2] <= (0, _GOOD_ENOUGH) and is_even:
            break
    return best


def _settled(
    work: Assignment, free_L: Bools, ways: Sequence[Callable[[Exchange], None]]
) -> Iterator[tuple[Ints, int, float, float]]:
    """The split of each location after exchanges, and what is wrong with that, the worst first."""
    if not free_L.any():
        yield work.chosen, *work.fault(), 0.0
        return
    movable_L = _with_most(work, free_L)
    for settle in ways:
        own = work.copy()
        exchange = Exchange(own, movable_L)
        settle(exchange)
        yield own.chosen, *own.fault(), exchange.unevenness()


def _with_most(work: Assignment, free_L: Bools) -> Bools:
    """The free locations that have the largest parts of all images or of a class."""
    most_L = work.sizes / work.n_images
    np.maximum.at(most_L, work.pair_locations, work.pair_parts)
    free = np.flatnonzero(free_L)
    order = np.lexsort((work.ranks[free], -most_L[free]))
    found = np.zeros(len(free_L), bool)
    found[free[order[:_MAX_EXCHANGED]]] = True
    return found


def location_classes(rows: pa.Table, place_N: Ints, n_places: int) -> tuple[Ints, Ints, Ints, int]:
    """The pairs of a location and a class that it has, their images, and the number of classes."""
    pairs, n_before = [np.empty((0, 3), np.int64)], 0
    for column in sorted(name for name in rows.column_names if name.startswith(LABEL_PREFIX)):
        code_N, classes = factorize_to_list(rows[column])
        known = code_N >= 0
        width = max(len(classes), 1)
        keys, counts = np.unique(place_N[known] * width + code_N[known], return_counts=True)
        pairs.append(np.stack([keys // width, keys % width + n_before, counts], axis=1))
        n_before += len(classes)
    locations, classes, counts = np.concatenate(pairs).T
    return locations, classes, counts, n_before
