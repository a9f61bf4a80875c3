"""Units of work, one unit's whole life, and what runs units.

An executor takes units and gives their results in any order. `InProcess` is here; the one that uses
a Ray cluster is in `stages/cluster/executor.py`. Both do the same units with the same code and
write the same bytes.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa

from ctc_ray.errors import CtcError
from ctc_ray.files import storage
from ctc_ray.files.storage_errors import error_text
from ctc_ray.runs.claim import Claim
from ctc_ray.runs.machine import n_cpus
from ctc_ray.runs.units import Unit


@dataclass(frozen=True)
class UnitOutput:
    """What a unit's work has made, in memory: nothing is written yet."""

    files: Mapping[str, pa.Buffer]
    """Path below the output folder -> content. The unit's own file comes last: where it is, the
    unit is done."""
    n_rows: int
    n_failed: int


UnitWorker = Callable[[Unit], UnitOutput]
"""Does the work of a unit; may hold something expensive, such as a model."""


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
    cpus_per_worker: float = 1
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


def do_unit(unit: Unit, job: Job, worker: UnitWorker) -> UnitResult:
    """One unit's whole life: check the claim, work, check again, commit."""
    try:
        if job.claim is not None:
            job.claim.require_owner()
            storage.set_owner(job.claim.token)
        output = worker(unit)
        if job.claim is not None:  # work takes minutes: another run may have taken over
            job.claim.require_owner()
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
            yield do_unit(unit, job, worker)


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
