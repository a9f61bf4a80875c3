"""Locations that splits exchange, so that the splits have their shares of all images and classes.

L movable locations and none, S splits, C classes of all heads together, P pairs (location, class).
"""

from collections.abc import Callable
from functools import partial
from itertools import combinations

import numpy as np

from ctc_ray.columns.factorize import Ints
from ctc_ray.splits.location_assignment import Assignment, Bools, Floats

NEAR = 0.001  # sum of the deviations of all splits, as a share of all images
_MAX_STEPS = 1000  # each helps; a few dozen are usual
_WEIGHTS = (1, 30, 1000)  # of all images, beside each class
# Parts of a class: whole numbers, of whose products the sums are exact in whatever order they are
# added up, so the same locations are chosen on every machine.
_PARTS = 1 << 20

# how a measure changes by exchanging: source, target, rows given, rows taken -> [given, taken]
_Change = Callable[[int, int, Ints, Ints], Floats]


class Exchange:
    """Exchanges of two movable locations between two splits, or moves of one, while one helps.

    No exchange takes the last location of a class from a split.
    """

    def __init__(self, work: Assignment, movable_L: Bools) -> None:
        self._work = work
        self._places = np.append(np.flatnonzero(movable_L), -1)  # -1: none, without an image
        self._sizes = np.append(work.sizes, 0)[self._places]
        parts_P = np.rint(work.pair_parts * _PARTS)
        is_movable_P = movable_L[work.pair_locations]
        rows = np.searchsorted(self._places[:-1], work.pair_locations[is_movable_P])
        at = (rows, work.pair_classes[is_movable_P])
        self._has_LC = np.zeros((len(self._places), work.n_classes), np.float32)
        self._has_LC[at] = 1
        # of each class, and in the last column of all images
        parts = np.rint(work.sizes * (_PARTS / work.n_images))
        self._parts_LX = np.zeros((len(self._places), work.n_classes + 1))
        self._parts_LX[at] = parts_P[is_movable_P]
        self._parts_LX[:, -1] = np.append(parts, 0)[self._places]
        self._surplus_SX = np.zeros((len(work.targets), work.n_classes + 1))
        np.add.at(self._surplus_SX, (work.chosen[work.pair_locations], work.pair_classes), parts_P)
        np.add.at(self._surplus_SX[:, -1], work.chosen, parts)
        wanted_S = work.targets / work.n_images
        self._surplus_SX -= np.rint(np.outer(wanted_S, self._surplus_SX.sum(axis=0)))

    def shares_first(self) -> None:
        """Bring the shares as near as this can, then even the classes without a loss of that."""
        self._improve(self._of_shares)
        self._even()

    def classes_first(self) -> None:
        """Even the classes, with more and more regard to the shares; these have the last word."""
        for weight in _WEIGHTS:
            self._improve(self._of_squares(weight))
        if self._work.fault()[1] > NEAR:
            self._improve(self._of_shares)
        self._even()

    def unevenness(self) -> float:
        """Sum of (share of a class's images in a split - wanted share)^2, of all of both."""
        return float((self._surplus_SX[:, :-1] ** 2).sum()) / _PARTS**2

    def _even(self) -> None:
        limit = max(self._work.fault()[1], NEAR) * self._work.n_images + 1e-6
        self._improve(partial(self._within, limit, self._of_squares(0)))

    def _improve(self, change: _Change) -> None:
        pairs = list(combinations(range(len(self._surplus_SX)), 2))
        for _ in range(_MAX_STEPS if pairs else 0):
            found = [self._best(change, *pair) for pair in pairs]
            number = int(np.argmin([of_pair for of_pair, _, _ in found]))
            (of_pair, given, taken), (source, target) = found[number], pairs[number]
            if of_pair >= -1e-6:
                return
            self._move(given, source, target)
            self._move(taken, target, source)

    def _best(self, change: _Change, source: int, target: int) -> tuple[float, int, int]:
        """The least change, and which row is given for which."""
        split_L = np.where(self._places < 0, -1, self._work.chosen[self._places])
        given, taken = (np.flatnonzero((split_L == k) | (split_L < 0)) for k in (source, target))
        after = change(source, target, given, taken)
        row, column = np.unravel_index(int(np.argmin(after)), after.shape)
        if self._loses(source, target, given[[row]], taken[[column]]).any():
            after[self._loses(source, target, given, taken)] = np.inf
            row, column = np.unravel_index(int(np.argmin(after)), after.shape)
        return float(after[row, column]), int(given[row]), int(taken[column])

    def _loses(self, source: int, target: int, given: Ints, taken: Ints) -> Bools:
        """Whether an exchange takes the last location of a class from either split."""
        has_given, has_taken = self._has_LC[given], self._has_LC[taken]
        sole_source, sole_target = (self._work.n_having[:, k] == 1 for k in (source, target))
        n_lost = (has_given * sole_source) @ (1 - has_taken).T
        n_lost += (1 - has_given) @ (has_taken * sole_target).T
        return np.asarray(n_lost > 0)

    def _move(self, row: int, source: int, target: int) -> None:
        if self._places[row] < 0:
            return
        self._work.move(int(self._places[row]), target)
        self._surplus_SX[source] -= self._parts_LX[row]
        self._surplus_SX[target] += self._parts_LX[row]

    def _of_shares(self, source: int, target: int, given: Ints, taken: Ints) -> Floats:
        """Of the sum of the deviations of all splits, in images."""
        moved = self._sizes[given][:, np.newaxis] - self._sizes[taken]
        lack, other_lack = self._work.deficits[source], self._work.deficits[target]
        after = np.abs(lack + moved) + np.abs(other_lack - moved)
        return np.asarray(after - abs(lack) - abs(other_lack))

    def _of_squares(self, weight: int) -> _Change:
        """Of half the unevenness, all images being one more class that weighs `weight`."""
        weight_X = np.append(np.ones(self._work.n_classes), weight)
        weighted_LX = self._parts_LX * weight_X
        squares_L = (self._parts_LX * weighted_LX).sum(axis=1)

        def change(source: int, target: int, given: Ints, taken: Ints) -> Floats:
            slope_L = weighted_LX @ (self._surplus_SX[source] - self._surplus_SX[target])
            of_given, of_taken = squares_L - slope_L, squares_L + slope_L
            cross = self._parts_LX[given] @ weighted_LX[taken].T
            return np.asarray(of_given[given][:, np.newaxis] + of_taken[taken] - 2 * cross)

        return change

    def _within(
        self, limit: float, change: _Change, source: int, target: int, given: Ints, taken: Ints
    ) -> Floats:
        """A change, of exchanges alone after which the deviations are within the limit, images."""
        fault = np.abs(self._work.deficits).sum()
        after = change(source, target, given, taken)
        after[fault + self._of_shares(source, target, given, taken) > limit] = np.inf
        return after
