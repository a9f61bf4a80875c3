"""Which location goes into which split, as far as it is decided.

L locations, S splits, C classes of all heads together, P pairs (location, class that it has).
"""

import copy
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ctc_ray.columns.factorize import Ints

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]

_MAX_MOVES = 1000  # each brings the shares nearer; a few dozen are usual


@dataclass
class Assignment:
    """What has been decided so far; -1 in `chosen` is open."""

    chosen: Ints  # split of each location
    sizes: Ints  # images of each location
    ranks: Ints  # in the order of the hash
    targets: Floats  # images
    pair_locations: Ints  # of each pair
    pair_classes: Ints
    pair_counts: Ints  # images of the location with the class
    n_classes: int

    def __post_init__(self) -> None:
        self.chosen = self.chosen.copy()
        n_splits = len(self.targets)
        self.n_images = max(float(self.targets.sum()), 1.0)
        self.n_locations = np.bincount(self.pair_classes, minlength=self.n_classes)  # by class
        n_images_C = np.bincount(self.pair_classes, self.pair_counts, self.n_classes)
        self.pair_parts = self.pair_counts / n_images_C[self.pair_classes]  # of the class's images
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
        self.of_location = _Groups(self.pair_locations, self.pair_classes, len(self.chosen))
        self.of_class = _Groups(self.pair_classes, self.pair_locations, self.n_classes)

    def copy(self) -> "Assignment":
        """The same decisions, to be changed on their own."""
        other = copy.copy(self)
        for name in ("chosen", "ranks", "deficits", "n_having", "n_open"):
            setattr(other, name, getattr(self, name).copy())
        return other

    def fault(self) -> tuple[int, float]:
        """Splits that lack a class which could be in all, and the sum of all deviations."""
        could_C = self.n_locations >= len(self.targets)
        n_lacking = int(np.count_nonzero(self.n_having[could_C] == 0))
        return n_lacking, float(np.abs(self.deficits).sum() / self.n_images)

    def put(self, location: int, split: int) -> None:
        """Decide a location that is open."""
        self.chosen[location] = split
        self.deficits[split] -= self.sizes[location]
        self.n_having[self.of_location[location], split] += 1
        self.n_open[self.of_location[location]] -= 1

    def cover(self) -> None:
        """Give every split a location of every class that has enough of them, rarest first."""
        for number in np.argsort(self.n_locations, kind="stable"):
            if self.n_locations[number] < len(self.targets):
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

    def even(self, free_L: Bools) -> None:
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

    def move(self, location: int, split: int) -> None:
        """Decide otherwise about a location."""
        before = self.chosen[location]
        self.deficits[before] += self.sizes[location]
        self.n_having[self.of_location[location], before] -= 1
        self.n_open[self.of_location[location]] += 1
        self.put(location, split)


class _Groups:
    """The values of each key."""

    def __init__(self, keys: Ints, values: Ints, n_keys: int) -> None:
        self._values = values[np.argsort(keys, kind="stable")]
        self._starts = np.append(0, np.cumsum(np.bincount(keys, minlength=n_keys)))

    def __getitem__(self, key: int) -> Ints:
        return self._values[self._starts[key] : self._starts[key + 1]]
