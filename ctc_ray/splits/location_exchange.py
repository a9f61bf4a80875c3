"""Exchanges of locations between splits, to balance the shares of all images and of each class.

L movable locations plus one empty slot (-1), S splits, C classes of all heads together, X classes
plus one column for all images, P pairs of a location and a class of it.
"""

from collections.abc import Callable
from functools import partial
from itertools import combinations

import numpy as np

from ctc_ray.columns.factorize import Ints
from ctc_ray.splits.location_assignment import Assignment, Bools, Floats

NEAR = 0.001  # sum of the deviations of all splits, as a share of all images
_MAX_STEPS = 1000  # a bound; each step improves, and a few dozen are usual
_WEIGHTS = (1, 30, 1000)  # weight of all images; each class has weight 1
# Shares are whole numbers of this unit: sums of their products are exact in any order of addition,
# so every machine chooses the same locations.
_PARTS = 1 << 20

# source, target, slots given, slots taken -> change of a measure by each exchange [given, taken]
_Change = Callable[[int, int, Ints, Ints], Floats]


class Exchange:
    """Exchanges of two movable locations between two splits, and moves of one, while they help.

    Changes the assignment in place. No exchange takes the last location of a class from a split. A
    move is an exchange for the empty slot.
    """

    def __init__(self, assignment: Assignment, movable_L: Bools) -> None:
        work = self._assignment = assignment
        self._location_L = np.append(np.flatnonzero(movable_L), -1)  # -1: empty, without an image
        self._sizes = np.append(work.sizes, 0)[self._location_L]
        parts_P = np.rint(work.pair_parts * _PARTS)
        is_movable_P = movable_L[work.pair_locations]
        slots = np.searchsorted(self._location_L[:-1], work.pair_locations[is_movable_P])
        cells = (slots, work.pair_classes[is_movable_P])
        self._has_LC = np.zeros((len(self._location_L), work.n_classes), np.float32)
        self._has_LC[cells] = 1
        parts = np.rint(work.sizes * (_PARTS / work.n_images))
        self._parts_LX = np.zeros((len(self._location_L), work.n_classes + 1))
        self._parts_LX[cells] = parts_P[is_movable_P]
        self._parts_LX[:, -1] = np.append(parts, 0)[self._location_L]
        self._surplus_SX = np.zeros((len(work.targets), work.n_classes + 1))
        np.add.at(self._surplus_SX, (work.chosen[work.pair_locations], work.pair_classes), parts_P)
        np.add.at(self._surplus_SX[:, -1], work.chosen, parts)
        wanted_S = work.targets / work.n_images
        self._surplus_SX -= np.rint(np.outer(wanted_S, self._surplus_SX.sum(axis=0)))

    def shares_first(self) -> None:
        """Balance the shares of all images, then the classes without worsening the shares."""
        self._improve(self._deviation_change)
        self._even_classes()

    def classes_first(self) -> None:
        """Balance the classes, giving the shares of all images more and more weight.

        The shares decide last.
        """
        for weight in _WEIGHTS:
            self._improve(self._unevenness_change(weight))
        if self._assignment.shortfall()[1] > NEAR:
            self._improve(self._deviation_change)
        self._even_classes()

    def unevenness(self) -> float:
        """Sum over splits and classes of (share of the class's images - wanted share)^2."""
        return float((self._surplus_SX[:, :-1] ** 2).sum()) / _PARTS**2

    def _even_classes(self) -> None:
        limit = max(self._assignment.shortfall()[1], NEAR) * self._assignment.n_images + 1e-6
        self._improve(partial(self._change_within, limit, self._unevenness_change(0)))

    def _improve(self, change: _Change) -> None:
        pairs = list(combinations(range(len(self._surplus_SX)), 2))
        for _ in range(_MAX_STEPS if pairs else 0):
            found = [self._best(change, *pair) for pair in pairs]
            index = int(np.argmin([least for least, _, _ in found]))
            (least, given, taken), (source, target) = found[index], pairs[index]
            if least >= -1e-6:
                return
            self._move(given, source, target)
            self._move(taken, target, source)

    def _best(self, change: _Change, source: int, target: int) -> tuple[float, int, int]:
        """The least change by an exchange, the slot the source gives, and the slot it takes."""
        is_empty_L = self._location_L < 0
        split_L = np.where(is_empty_L, -1, self._assignment.chosen[self._location_L])
        given, taken = (np.flatnonzero((split_L == k) | (split_L < 0)) for k in (source, target))
        after = change(source, target, given, taken)
        row, column = np.unravel_index(int(np.argmin(after)), after.shape)
        if self._loses_class(source, target, given[[row]], taken[[column]]).any():
            after[self._loses_class(source, target, given, taken)] = np.inf
            row, column = np.unravel_index(int(np.argmin(after)), after.shape)
        return float(after[row, column]), int(given[row]), int(taken[column])

    def _loses_class(self, source: int, target: int, given: Ints, taken: Ints) -> Bools:
        """Whether an exchange takes the last location of a class from a split: [given, taken]."""
        has_given, has_taken = self._has_LC[given], self._has_LC[taken]
        sole_source, sole_target = (self._assignment.n_having[:, k] == 1 for k in (source, target))
        n_lost = (has_given * sole_source) @ (1 - has_taken).T
        n_lost += (1 - has_given) @ (has_taken * sole_target).T
        return np.asarray(n_lost > 0)

    def _move(self, slot: int, source: int, target: int) -> None:
        if self._location_L[slot] < 0:
            return
        self._assignment.move(int(self._location_L[slot]), target)
        self._surplus_SX[source] -= self._parts_LX[slot]
        self._surplus_SX[target] += self._parts_LX[slot]

    def _deviation_change(self, source: int, target: int, given: Ints, taken: Ints) -> Floats:
        """Change of the total deviation from the target sizes, in images, for every exchange."""
        moved = self._sizes[given][:, np.newaxis] - self._sizes[taken]
        lack, other_lack = self._assignment.deficits[source], self._assignment.deficits[target]
        after = np.abs(lack + moved) + np.abs(other_lack - moved)
        return np.asarray(after - abs(lack) - abs(other_lack))

    def _unevenness_change(self, weight: int) -> _Change:
        """Change of half the unevenness, with all images as one more class of this weight."""
        weight_X = np.append(np.ones(self._assignment.n_classes), weight)
        weighted_LX = self._parts_LX * weight_X
        squares_L = (self._parts_LX * weighted_LX).sum(axis=1)

        def change(source: int, target: int, given: Ints, taken: Ints) -> Floats:
            slope_L = weighted_LX @ (self._surplus_SX[source] - self._surplus_SX[target])
            by_giving, by_taking = squares_L - slope_L, squares_L + slope_L
            cross = self._parts_LX[given] @ weighted_LX[taken].T
            return np.asarray(by_giving[given][:, np.newaxis] + by_taking[taken] - 2 * cross)

        return change

    def _change_within(
        self, limit: float, change: _Change, source: int, target: int, given: Ints, taken: Ints
    ) -> Floats:
        """The change, infinite for exchanges after which the total deviation exceeds the limit.

        Args:
            limit: in images.
        """
        deviation = np.abs(self._assignment.deficits).sum()
        after = change(source, target, given, taken)
        after[deviation + self._deviation_change(source, target, given, taken) > limit] = np.inf
        return after
