"""Where a search takes the sample of its next trial from."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ctc_ray.config.search import Dimension, draw
from ctc_ray.stages.tune.records import EndedTrial


class Samples:
    """What every method of a search does."""

    def is_ready(self, number: int) -> bool:
        """Whether enough trials have ended to choose the sample of this one."""
        return True

    def sample(self, number: int) -> Mapping[str, Any]:
        """The sample of a trial: dotted field -> value."""
        raise NotImplementedError

    def parent(self, number: int) -> int | None:
        """The trial whose weights this one begins with; None: those that all trials begin with."""
        return None

    def tell(self, trial: EndedTrial) -> None:
        """Learn from a trial that has ended."""


@dataclass(frozen=True)
class RandomSamples(Samples):
    """Samples at random, the same for a seed."""

    dimensions: Mapping[str, Dimension]
    seed: int
    first: Mapping[str, Any] | None = None
    """The sample of trial 0; None: a random one, too."""

    def sample(self, number: int) -> Mapping[str, Any]:
        """See `Samples`."""
        if number == 0 and self.first is not None:
            return self.first
        return draw(self.dimensions, seed=self.seed, number=number)
