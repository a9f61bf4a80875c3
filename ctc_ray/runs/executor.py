"""Units of work, one unit's whole life, and what runs units.

An executor takes units and gives their results in any order. `InProcess` is here; the one that uses
a Ray cluster is in `stages/cluster/executor.py`. Both do the same units with the same code and
write the same bytes.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from ctc_ray.columns.threads import map_ahead, map_in_pool
from ctc_ray.errors import CtcError
from ctc_ray.files import storage
from ctc_ray.files.storage_errors import error_text
from ctc_ray.runs.claim import Claim
from ctc_ray.runs.crashes import Apart, counted_try
from ctc_ray.runs.machine import n_cpus
from ctc_ray.runs.unit_worker import UNITS_AT_ONCE, UnitWorker
from ctc_ray.runs.units import Unit

logger = logging.getLogger(__name__)

TRIES = 3
"""How often a process may end in the middle of a unit before its images are tried in parts."""
_TRIES_OF_COMMAND = 2  # the first is as a rule somebody who has killed it


@dataclass(frozen=True)
class Job:
    """How the units of a run are done; can be pickled."""

    output_uri: str
    claim: Claim | None
    """The claim on the output folder; None: the job writes nothing, as with `--check`."""
    make_worker: Callable[[int], UnitWorker]
    """Makes a worker that uses this many threads."""
    keeps_workers: bool = False
    """A worker lives as long as the job, because it holds something expensive; otherwise one is
    made for every unit."""
    n_workers: int | None = None
    """Kept workers; None: as many as there are CPUs or GPUs for."""
    cpus_per_worker: float | None = 1
    """None: 1, or with GPUs their share of the CPUs of their node."""
    gpus_per_worker: float = 0


@dataclass(frozen=True)
class UnitResult:
    """How a unit ended: counts of its rows, or why it could not be done."""

    n_rows: int
    n_failed: int
    error: str = ""


class Executor(Protocol):
    """Runs units of work."""

    def run(self, units: Sequence[Unit], job: Job) -> Iterator[UnitResult]:
        """Do every unit once and yield its result as soon as it is there, in any order."""


def do_unit(
    unit: Unit,
    job: Job,
    worker: UnitWorker,
    *,
    n_threads: int,
    tries: int = TRIES,
    apart: Apart | None = None,
) -> UnitResult:
    """One unit's whole life: check the claim, work, check again, commit.

    Where processes have ended in the middle of this unit, another process works in this one's
    place, in parts that become smaller, until the images that end it are known.

    Args:
        n_threads: of the worker.
        tries: how many processes may end so.
        apart: a process that works on the rows from the first; None: this one does.
    """
    try:
        if job.claim is None:
            output = worker.output(unit, worker.answer(worker.read(unit)))
            return UnitResult(output.n_rows, output.n_failed)
        job.claim.require_owner()
        storage.set_owner(job.claim.token)
        with counted_try(job.output_uri, unit) as n_ended:
            rows = worker.read(unit)
            if apart is not None:
                answers = apart.answer(unit.name, rows, tries=max(1, tries - n_ended))
            elif n_ended < tries:
                answers = worker.answer(rows)
            else:
                logger.warning(
                    "%s: the process that worked on it was killed; another one tries it", unit.name
                )
                with Apart(partial(job.make_worker, n_threads), worker.fail) as other:
                    answers = other.answer(unit.name, rows, tries=1)
            output = worker.output(unit, answers)
            job.claim.require_owner()  # work takes minutes: another run may have taken over
            for name, content in output.files.items():
                storage.write_bytes(storage.join(job.output_uri, name), content)
    except (CtcError, OSError) as error:
        return UnitResult(0, 0, f"{unit.name}: {error_text(error)}")
    return UnitResult(output.n_rows, output.n_failed)


class InProcess:
    """Does the units one after the other in this process, with threads inside a unit."""

    def __init__(self, n_threads: int | None = None) -> None:
        """None: a thread per CPU."""
        self._n_threads = n_threads or n_cpus()

    def run(self, units: Sequence[Unit], job: Job) -> Iterator[UnitResult]:
        """Do every unit once, in order."""
        worker = job.make_worker(self._n_threads)
        for unit in units:
            # A process that ended here was the command itself, which somebody had to run again.
            yield do_unit(unit, job, worker, n_threads=self._n_threads, tries=_TRIES_OF_COMMAND)


class Beside:
    """Does the units in one process beside this one, which may die."""

    def run(self, units: Sequence[Unit], job: Job) -> Iterator[UnitResult]:
        """Do every unit once, in order, with a thread per CPU, or as many as `n_workers`."""
        n_threads = min(n_cpus(), job.n_workers or n_cpus())
        make_worker = partial(job.make_worker, n_threads)
        worker = make_worker()
        # Ctrl-C ends the process first, so that no thread waits for it
        with ThreadPoolExecutor(UNITS_AT_ONCE) as pool, Apart(make_worker, worker.fail) as apart:

            def do(unit: Unit) -> UnitResult:
                return do_unit(unit, job, worker, n_threads=n_threads, apart=apart)

            yield from map_in_pool(do, units, pool, n_ahead=UNITS_AT_ONCE)


class InThreads:
    """Does several units at once in threads of this process.

    For work in Arrow and numpy, which release Python's lock; a unit's own work has one thread.
    """

    def __init__(self, n_threads: int | None = None) -> None:
        """None: a thread per CPU."""
        self._n_threads = n_threads or n_cpus()

    def run(self, units: Sequence[Unit], job: Job) -> Iterator[UnitResult]:
        """Do every unit once; results come in the order of the units."""
        worker = job.make_worker(1)

        def do(unit: Unit) -> UnitResult:
            return do_unit(unit, job, worker, n_threads=1, tries=_TRIES_OF_COMMAND)

        yield from map_ahead(do, units, n_threads=self._n_threads)


def run_units(
    executor: Executor, units: Sequence[Unit], job: Job, *, report: Callable[[int, int], None]
) -> None:
    """Do the units, and count them.

    Args:
        report: called with the rows and the failed rows of each unit that is done.

    Raises:
        CtcError: a unit cannot be done, or the executor has not done all of them.
    """
    n_done = 0
    for result in executor.run(units, job) if units else ():
        if result.error:
            raise CtcError(f"{result.error} (finished files are kept; the same command resumes)")
        n_done += 1
        report(result.n_rows, result.n_failed)
    if n_done < len(units):
        raise CtcError(
            f"{job.output_uri}: only {n_done} of {len(units)} units were done; "
            "the same command does the others"
        )
