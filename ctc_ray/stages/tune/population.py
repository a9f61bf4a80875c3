"""Population-based training (Jaderberg et al. 2017, arXiv:1711.09846), a generation at a time.

A trial is a member of a generation. It trains from the weights of its parent, a trial of the
generation before. The last quarter of a generation is replaced: each goes on from a trial of the
first quarter, with a sample that is changed a little. All others go on from themselves.

What a trial does follows from the records of the generation before and the seed alone, so a search
that was interrupted goes on as if it had not been.
"""

import math
import random
from collections.abc import Callable, Mapping
from typing import Any, assert_never

from ctc_ray.columns.seeds import stable_hash
from ctc_ray.config.search import Dimension, draw, is_searched
from ctc_ray.stages.tune.objective import Objective
from ctc_ray.stages.tune.records import EndedTrial
from ctc_ray.stages.tune.samples import RandomSamples, Samples

_REPLACED = 4  # one in so many, as in the paper
_DRAWN_AGAIN = 0.25  # share of values that do not stay near those of the parent
_STEP = 0.2  # of the range of a field


class Population(Samples):
    """The samples and parents of all generations."""

    def __init__(
        self,
        dimensions: Mapping[str, Dimension],
        objective: Objective,
        ended: Mapping[int, EndedTrial],
        *,
        value_of: Callable[[int], float],
        size: int,
        first: RandomSamples,
    ) -> None:
        """A population of which some trials may have ended.

        Args:
            ended: number -> trial; trials that end later are in it as soon as they have.
            value_of: the objective of the model of a trial that is done.
            size: trials of a generation.
            first: gives the samples of the first generation; its seed is that of all.
        """
        self._dimensions, self._objective, self._ended = dimensions, objective, ended
        self._value_of, self._size, self._first = value_of, size, first

    def is_ready(self, number: int) -> bool:
        """Whether the generation before has ended."""
        return all(other in self._ended for other in self._before(number))

    def sample(self, number: int) -> Mapping[str, Any]:
        """See `Samples`."""
        parent = self.parent(number)
        if parent is None:
            return self._first.sample(number)
        if parent == number - self._size:
            return self._ended[parent].sample
        return self._changed(number, self._ended[parent].sample)

    def parent(self, number: int) -> int | None:
        """See `Samples`; None in the first generation, and after one without a sound model."""
        ranked = self._ranked(self._before(number))
        if not ranked:
            return None
        n_chosen = max(1, self._size // _REPLACED)
        own = number - self._size
        if own in ranked[: self._size - n_chosen]:
            return own
        return self._random(number, "parent").choice(ranked[:n_chosen])

    def _before(self, number: int) -> range:
        """The trials of the generation before; none for the first generation."""
        first = number - number % self._size
        return range(max(0, first - self._size), first)

    def _ranked(self, numbers: range) -> list[int]:
        """Those with a sound model, best first."""
        sign = 1 if self._objective.direction == "min" else -1
        done = [n for n in numbers if self._ended[n].state == "done"]
        return sorted(done, key=lambda n: (sign * self._value_of(n), n))

    def _random(self, number: int, name: str) -> random.Random:
        return random.Random(stable_hash(f"{name}/{number}", self._first.seed, 0))

    def _changed(self, number: int, old: Mapping[str, Any]) -> dict[str, Any]:
        """A sample near another one."""
        sample: dict[str, Any] = {}
        for name, dimension in self._dimensions.items():
            if not is_searched(dimension, sample):
                continue
            rng = self._random(number, name)
            if dimension.kind == "same_as":
                sample[name] = dimension.tied(sample)
            elif name not in old or rng.random() < _DRAWN_AGAIN:
                sample[name] = _drawn(dimension, rng)
            else:
                sample[name] = _near(dimension, old[name], rng.choice((-1, 1)))
        return sample


def _drawn(dimension: Dimension, rng: random.Random) -> Any:
    """A value at random."""
    alone = {"": Dimension(dimension.kind, dimension.values)}
    return draw(alone, seed=rng.getrandbits(32), number=0)[""]


def _near(dimension: Dimension, value: Any, sign: int) -> Any:
    """The value a step further, within the range; an option stays as it is."""
    match dimension.kind:
        case "choice" | "grid" | "same_as":
            return value
        case "uniform":
            low, high = dimension.values
            return min(high, max(low, value + sign * _STEP * (high - low)))
        case "loguniform":
            low, high = dimension.values
            return min(high, max(low, value * math.exp(sign * _STEP * math.log(high / low))))
        case "randint":
            low, high = dimension.values
            step = max(1, round(_STEP * (high - low)))
            return min(high - 1, max(low, value + sign * step))
        case _:
            assert_never(dimension.kind)
