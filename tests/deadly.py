"""Workers that some images kill; a module that a new process imports at once."""

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import pyarrow as pa

from ctc_ray.runs.crashes import counted_try
from ctc_ray.runs.executor import Executor, Job, UnitResult
from ctc_ray.runs.unit_worker import UnitOutput, UnitWorker
from ctc_ray.runs.units import Unit
from ctc_ray.schemas import Failure


class KilledError(Exception):
    """The executor of a test has been killed in the middle of all its units."""


class KilledInEveryUnit:
    """As if there were a process for each unit, and each had been killed."""

    def run(self, units: Sequence[Unit], job: Job) -> Iterator[UnitResult]:
        self.tries = [counted_try(job.output_uri, unit) for unit in units]
        for one in self.tries:
            one.__enter__()
        raise KilledError


@dataclass(frozen=True)
class WrappedWorker:
    """A worker that does what another one does; its subclasses do something else besides."""

    worker: UnitWorker

    def read(self, unit: Unit) -> pa.Table:
        return self.worker.read(unit)

    def answer(self, rows: pa.Table) -> pa.Table:
        return self.worker.answer(rows)

    def fail(self, rows: pa.Table, failure: Failure) -> pa.Table:
        return self.worker.fail(rows, failure)

    def output(self, unit: Unit, answers: pa.Table) -> UnitOutput:
        return self.worker.output(unit, answers)


@dataclass(frozen=True)
class DeadlyWorker(WrappedWorker):
    """A worker whose process is killed when it has a deadly image, or too many images at once."""

    deadly: frozenset[str]
    most_images: int

    def answer(self, rows: pa.Table) -> pa.Table:
        names = {uri.rpartition("/")[2] for uri in rows["image_uri"].to_pylist()}
        if names & self.deadly or rows.num_rows > self.most_images:
            os.kill(os.getpid(), signal.SIGKILL)
        return self.worker.answer(rows)


@dataclass(frozen=True)
class WithDeadlyImages:
    """An executor whose workers are killed by images of these names; see `DeadlyWorker`."""

    executor: Executor
    deadly: frozenset[str]
    most_images: int = 1_000_000

    def run(self, units: Sequence[Unit], job: Job) -> Iterator[UnitResult]:
        make_worker = partial(self._make_worker, job.make_worker)
        return self.executor.run(units, replace(job, make_worker=make_worker))

    def _make_worker(self, make: Callable[[int], UnitWorker], n_threads: int) -> UnitWorker:
        return DeadlyWorker(make(n_threads), self.deadly, self.most_images)
