"""What does the work of a unit, step by step, and what it makes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa

from ctc_ray.runs.units import Unit
from ctc_ray.schemas import Failure

UNITS_AT_ONCE = 2
"""Units that a kept worker has in hand: the images of the next are read while the last ones of this
are scored and its answers written."""


@dataclass(frozen=True)
class UnitOutput:
    """What a unit's work has made, in memory: nothing is written yet."""

    files: Mapping[str, pa.Buffer]
    """Path below the output folder -> content. The unit's own file comes last: where it is, the
    unit is done."""
    n_rows: int
    n_failed: int


class UnitWorker(Protocol):
    """Does the work of units; may hold something expensive, such as a model.

    Where workers are kept, several threads call one.
    """

    def read(self, unit: Unit) -> pa.Table:
        """The rows of a unit, one per image."""

    def answer(self, rows: pa.Table) -> pa.Table:
        """What becomes of some rows of a unit, row by row; only here are images touched."""

    def fail(self, rows: pa.Table, failure: Failure) -> pa.Table:
        """The output rows of images that all have this failure; no image is read."""

    def output(self, unit: Unit, answers: pa.Table) -> UnitOutput:
        """The files of a unit, from what became of all its rows, in their order."""
