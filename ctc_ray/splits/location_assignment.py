"""The split of each location while it is being decided, with the counts that decide it.

L locations, S splits, C classes of all heads together, P pairs of a location and a class of it.
"""

import copy
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ctc_ray.columns.factorize import Ints

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]

_MAX_MOVES = 1000  # a bound; each move improves the shares, and a few dozen are usual


@dataclass
class Assignment:
    """The split of each location, and the number of images and locations per split and class."""

    chosen: Ints  # L: index of the split; -1 is open
    sizes: Ints  # L: number of images
    ranks: Ints  # L: rank in the order of the hash
    targets: Floats  # S: wanted number of images
    pair_locations: Ints  # P: index of the location
    pair_classes: Ints  # P: index of the class
    pair_counts: Ints  # P: images of the location with the class
    n_classes: int

    def __post_init__(self) -> None:
        self.chosen = self.chosen.copy()
        n_splits = len(self.targets)
        self.n_images = max(float(self.targets.sum()), 1.0)
        self.n_locations = np.bincount(self.pair_classes, minlength=self.n_classes)  # C
        n_images_C = np.bincount(self.pair_classes, self.pair_counts, self.n_classes)
        self.pair_parts = self.pair_counts / n_images_C[self.pair_classes]  # share of the class
        done = self.chosen >= 0
        self.deficits = self.targets - np.bincount(
            self.chosen[done], weights=self.sizes[done], minlength=n_splits
        )
        self.n_having = np.zeros((self.n_classes, n_splits), np.int64)  # CS: number of locations
        decided = done[self.pair_locations]
        np.add.at(
            self.n_having,
            (self.pair_classes[decided], self.chosen[self.pair_locations[decided]]),
            1,
        )
        self.n_open = np.bincount(self.pair_classes[~decided], minlength=self.n_classes)
        self.classes_of = _Groups(self.pair_locations, self.pair_classes, len(self.chosen))
        self.locations_of = _Groups(self.pair_classes, self.pair_locations, self.n_classes)

    def copy(self) -> "Assignment":
        """An independent copy."""
        other = copy.copy(self)
        for name in ("chosen", "ranks", "deficits", "n_having", "n_open"):
            setattr(other, name, getattr(self, name).copy())
        return other

    def shortfall(self) -> tuple[int, float]:
        """How far the splits are from their aims: the smaller tuple is the better assignment.

        Returns:
            Number of pairs of a split and a class that the split lacks, counting the classes with
            enough locations for every split; sum of the deviations of all splits from their
            targets, as a share of all images.
        """
        could_C = self.n_locations >= len(self.targets)
        n_missing = int(np.count_nonzero(self.n_having[could_C] == 0))
        return n_missing, float(np.abs(self.deficits).sum() / self.n_images)

    def decide(self, location: int, split: int) -> None:
        """Put an open location into a split."""
        self.chosen[location] = split
        self.deficits[split] -= self.sizes[location]
        self.n_having[self.classes_of[location], split] += 1
        self.n_open[self.classes_of[location]] -= 1

    def cover_classes(self) -> None:
        """Give every split a location of each class with enough locations, rarest class first."""
        for class_ in np.argsort(self.n_locations, kind="stable"):
            if self.n_locations[class_] < len(self.targets):
                continue
            for split in np.argsort(-self.deficits, kind="stable"):
                if self.n_having[class_, split] == 0:
                    self._give(int(class_), int(split))

    def _give(self, class_: int, split: int) -> None:
        """Put an open location of the class, if there is one, into the split."""
        candidates = self.locations_of[class_]
        candidates = candidates[self.chosen[candidates] < 0]
        if len(candidates) == 0:
            return
        # images above the split's target, beyond the excess that any split would have
        sizes = self.sizes[candidates]
        over = np.maximum(sizes - self.deficits[split], 0)
        over = over - np.maximum(sizes - self.deficits.max(), 0)
        n_missing_C = (self.n_having == 0).sum(axis=1)
        # a class with just enough open locations must not lose one to a split that has the class
        is_scarce_C = (self.n_having[:, split] > 0) & (n_missing_C > 0)
        is_scarce_C &= self.n_open <= n_missing_C
        n_scarce = np.array([is_scarce_C[self.classes_of[k]].sum() for k in candidates])
        best = np.lexsort((self.ranks[candidates], over, n_scarce))[0]
        self.decide(int(candidates[best]), split)

    def fill(self) -> None:
        """Put each open location, in the order of the hash, into the split lacking most images."""
        open_L = np.flatnonzero(self.chosen < 0)
        for location in open_L[np.argsort(self.ranks[open_L])]:
            self.decide(int(location), int(np.argmax(self.deficits)))

    def even_shares(self, free_L: Bools) -> None:
        """Move free locations from the split most above its target to the one most below it.

        Stops when no such move reduces the deviations. No split loses the last location of a class.
        """
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
        """Move a decided location to another split."""
        before = self.chosen[location]
        self.deficits[before] += self.sizes[location]
        self.n_having[self.classes_of[location], before] -= 1
        self.n_open[self.classes_of[location]] += 1
        self.decide(location, split)


class _Groups:
    """Key -> its values, in their given order."""

    def __init__(self, keys: Ints, values: Ints, n_keys: int) -> None:
        self._values = values[np.argsort(keys, kind="stable")]
        self._starts = np.append(0, np.cumsum(np.bincount(keys, minlength=n_keys)))

    def __getitem__(self, key: int) -> Ints:
        return self._values[self._starts[key] : self._starts[key + 1]]
