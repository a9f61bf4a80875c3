"""Whole locations into splits: shares and classes kept as well as the locations allow.

L locations, S splits, C classes of all heads together, P pairs (location, class that it has).
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ctc_ray.errors import ConfigError
from ctc_ray.inventory.columns import Ints, encode, named
from ctc_ray.inventory.fractions import boundaries, unit_interval
from ctc_ray.schemas import LABEL_PREFIX

_MAX_MOVES = 1000  # each brings the shares nearer; a few dozen are usual
_MAX_EXCHANGED = 1000  # locations
_ATTEMPTS = 20
_MAX_REPEATED = 10_000  # locations; with more of them the first attempt is near enough
_GOOD_ENOUGH = 0.005  # sum of the deviations of all splits, as a share of all images


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
    brings the shares nearer and costs no split a class. If the shares are still off, other orders
    are tried, and the best one stays. The order of the rows does not matter; other images may
    change the splits of all locations but the fixed ones. Events without location are hashed by
    their own id.

    Args:
        fractions: split -> share of images in [0, 1]; sums to 1 within 1e-9.
        salt: changes the assignment as a whole, e.g. for cross-validation.
        fixed: location -> split that is decided already; others than those here do not matter.

    Raises:
        ConfigError: fractions do not sum to 1, a name is no name of a folder, or a fixed split is
            none of the splits.
    """
    splits, ends = boundaries(fractions)
    is_place = pc.is_valid(rows["location_id"]).to_numpy()
    place_N, places = encode(rows["location_id"])
    lone_N, events = encode(rows["capture_event_id"].filter(pc.is_null(rows["location_id"])))
    place_N[~is_place] = lone_N + len(places)
    drawn = np.searchsorted(ends, [unit_interval(event, salt) for event in events], side="right")
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
    pairs = _location_classes(rows, place_N, len(given_L))

    def assignment(attempt: int) -> _Assignment:
        own_salt = f"{salt}\0{attempt}" if attempt else salt
        hashes = [unit_interval(name, own_salt) for name in places]
        rank_L = np.full(len(given_L), len(given_L))
        rank_L[np.argsort(hashes, kind="stable")] = np.arange(len(places))
        return _Assignment(given_L, n_images_L, rank_L, targets, *pairs)

    n_attempts = _ATTEMPTS if len(given_L) <= _MAX_REPEATED else 1
    best = _best(assignment(attempt) for attempt in range(n_attempts))
    return named(best[place_N], splits)


def _best(assignments: Iterable["_Assignment"]) -> Ints:
    """The split of each location by the first assignment that is good enough, else the best."""
    best, least = np.empty(0, np.int64), (math.inf, math.inf)
    for work in assignments:
        is_free_L = work.chosen < 0
        work.cover()
        work.fill()
        work.even(is_free_L)
        work.exchange(is_free_L)
        if work.fault() < least:
            best, least = work.chosen, work.fault()
        if least <= (0, _GOOD_ENOUGH):
            break
    return best


def _location_classes(rows: pa.Table, place_N: Ints, n_places: int) -> tuple[Ints, Ints, int]:
    """The pairs of a location and a class that it has, by location, and the number of classes."""
    pairs, n_before = [np.empty((0, 2), np.int64)], 0
    for column in sorted(name for name in rows.column_names if name.startswith(LABEL_PREFIX)):
        code_N, classes = encode(rows[column])
        known = code_N >= 0
        width = max(len(classes), 1)
        keys = np.unique(place_N[known] * width + code_N[known])
        pairs.append(np.stack([keys // width, keys % width + n_before], axis=1))
        n_before += len(classes)
    whole = np.concatenate(pairs)
    return whole[:, 0], whole[:, 1], n_before


@dataclass
class _Assignment:
    """What has been decided so far; -1 in `chosen` is open."""

    chosen: Ints  # split of each location
    sizes: Ints  # images of each location
    ranks: Ints  # in the order of the hash
    targets: npt.NDArray[np.float64]  # images
    pair_locations: Ints  # of each pair
    pair_classes: Ints
    n_classes: int

    def __post_init__(self) -> None:
        self.chosen = self.chosen.copy()
        n_splits = len(self.targets)
        done = self.chosen >= 0
        self.deficits = self.targets - np.bincount(
            self.chosen[done], weights=self.sizes[done], minlength=n_splits
        )
        self.n_having = np.zeros((self.n_classes, n_splits), np.int64)  # locations with the class
        decided = done[self.pair_locations]
        np.add.at(
            self.n_having,
            (self.pair_classes[decided], self.chosen[self.pair_locations[decided]]),
            1,
        )
        self.n_open = np.bincount(self.pair_classes[~decided], minlength=self.n_classes)
        self.of_location = _groups(self.pair_locations, self.pair_classes, len(self.chosen))
        self.of_class = _groups(self.pair_classes, self.pair_locations, self.n_classes)

    def fault(self) -> tuple[int, float]:
        """Splits that lack a class which could be in all, and the sum of all deviations."""
        n_locations_C = np.bincount(self.pair_classes, minlength=self.n_classes)
        could_C = n_locations_C >= len(self.targets)
        n_lacking = int(np.count_nonzero(self.n_having[could_C] == 0))
        return n_lacking, float(np.abs(self.deficits).sum() / max(self.targets.sum(), 1))

    def put(self, location: int, split: int) -> None:
        """Decide a location that is open."""
        self.chosen[location] = split
        self.deficits[split] -= self.sizes[location]
        self.n_having[self.of_location[location], split] += 1
        self.n_open[self.of_location[location]] -= 1

    def cover(self) -> None:
        """Give every split a location of every class that has enough of them, rarest first."""
        n_locations_C = np.bincount(self.pair_classes, minlength=self.n_classes)
        for number in np.argsort(n_locations_C, kind="stable"):
            if n_locations_C[number] < len(self.targets):
                continue
            for split in np.argsort(-self.deficits, kind="stable"):
                if self.n_having[number, split] == 0:
                    self._give(int(number), int(split))

    def _give(self, number: int, split: int) -> None:
        candidates = self.of_class[number]
        candidates = candidates[self.chosen[candidates] < 0]
        if len(candidates) == 0:
            return
        # images too many, beyond those that it would be wherever it went
        sizes = self.sizes[candidates]
        over = np.maximum(sizes - self.deficits[split], 0)
        over = over - np.maximum(sizes - self.deficits.max(), 0)
        lacking_C = (self.n_having == 0).sum(axis=1)
        # a class that has just enough open locations left must not lose one to a split that has it
        spoilt_C = (self.n_having[:, split] > 0) & (lacking_C > 0) & (self.n_open <= lacking_C)
        spoils = np.array([spoilt_C[self.of_location[place]].sum() for place in candidates])
        best = np.lexsort((self.ranks[candidates], over, spoils))[0]
        self.put(int(candidates[best]), split)

    def fill(self) -> None:
        """Give each open location, in the order of the hash, to the split that lacks most."""
        open_L = np.flatnonzero(self.chosen < 0)
        for location in open_L[np.argsort(self.ranks[open_L])]:
            self.put(int(location), int(np.argmax(self.deficits)))

    def even(self, free_L: npt.NDArray[np.bool_]) -> None:
        """Move free locations from a split above its share to one below, while that helps."""
        for _ in range(_MAX_MOVES):
            source, target = int(np.argmin(self.deficits)), int(np.argmax(self.deficits))
            excess, deficit = -self.deficits[source], self.deficits[target]
            sole_P = self.n_having[self.pair_classes, source] == 1
            needed = np.zeros(len(self.chosen), bool)
            needed[self.pair_locations[sole_P]] = True
            movable = np.flatnonzero(free_L & (self.chosen == source) & ~needed)
            sizes = self.sizes[movable]
            after = np.abs(excess - sizes) + np.abs(deficit - sizes)
            if len(movable) == 0 or after.min() >= excess + deficit - 1e-6:
                return
            self.move(int(movable[np.lexsort((self.ranks[movable], after))[0]]), target)

    def exchange(self, free_L: npt.NDArray[np.bool_]) -> None:
        """Exchange two free locations of any two splits, or move one, while that helps.

        With many locations this would take long, and moves alone come near enough.
        """
        places = np.append(np.flatnonzero(free_L), -1)  # -1: none, of no size and no class
        if not 1 < len(places) <= _MAX_EXCHANGED:
            return
        has_LC = np.zeros((len(places), self.n_classes), np.float32)
        rows = np.searchsorted(places[:-1], self.pair_locations)
        is_free = free_L[self.pair_locations]
        has_LC[rows[is_free], self.pair_classes[is_free]] = 1
        pairs = list(combinations(range(len(self.targets)), 2))
        for _ in range(_MAX_MOVES if pairs else 0):
            steps = [self._best_exchange(places, has_LC, *pair) for pair in pairs]
            number = int(np.argmin([change for change, _, _ in steps]))
            (change, given, taken), (source, target) = steps[number], pairs[number]
            if change >= -1e-6:
                return
            for place, split in ((given, target), (taken, source)):
                if place >= 0:
                    self.move(place, split)

    def _best_exchange(
        self, places: Ints, has_LC: npt.NDArray[np.float32], source: int, target: int
    ) -> tuple[float, int, int]:
        """How the sum of the deviations changes, and which location is given for which."""
        sides = [
            np.flatnonzero((self.chosen[places] == k) | (places < 0)) for k in (source, target)
        ]
        given, taken = (places[side] for side in sides)
        has_given, has_taken = (has_LC[side] for side in sides)
        sole_source, sole_target = (self.n_having[:, k] == 1 for k in (source, target))
        n_lost = (has_given * sole_source) @ (1 - has_taken).T
        n_lost += (1 - has_given) @ (has_taken * sole_target).T
        sizes = np.where(places < 0, 0, self.sizes[places])
        moved = sizes[sides[0]][:, np.newaxis] - sizes[sides[1]]
        lack, other_lack = self.deficits[source], self.deficits[target]
        after = np.abs(lack + moved) + np.abs(other_lack - moved)
        after[n_lost > 0] = np.inf
        row, column = np.unravel_index(int(np.argmin(after)), after.shape)
        change = float(after[row, column] - abs(lack) - abs(other_lack))
        return change, int(given[row]), int(taken[column])

    def move(self, location: int, split: int) -> None:
        """Decide otherwise about a location."""
        before = self.chosen[location]
        self.deficits[before] += self.sizes[location]
        self.n_having[self.of_location[location], before] -= 1
        self.n_open[self.of_location[location]] += 1
        self.put(location, split)


def _groups(keys: Ints, values: Ints, n_keys: int) -> Sequence[Ints]:
    """The values of each key."""
    order = np.argsort(keys, kind="stable")
    return (
        np.split(values[order], np.cumsum(np.bincount(keys, minlength=n_keys))[:-1])
        if n_keys
        else []
    )
