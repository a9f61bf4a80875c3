"""A stage's work as numbered units of whole capture events; what is still missing.

A unit's rows wait in a plan file below `_work/` of the output folder; its result is one file of the
same name. A run does the units whose file is missing, so a killed run resumes.
"""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow as pa

from ctc_ray.columns.event_runs import (
    cut_at_starts,
    cut_by_events,
    run_starts,
)
from ctc_ray.files import parquet, storage
from ctc_ray.runs.layout import WORK_FOLDER, part_stem

_FILES_WAITING = 8  # written by another thread; a limit for the memory that they take
_UNITS_PER_PLAN_FILE = 64  # a task reads the file's footer, and then its own rows


@dataclass(frozen=True)
class Unit:
    """A slice of whole capture events; its result is the file `name` below the output folder."""

    name: str  # e.g. split=train/part-00000.parquet
    plan_file: str  # below the output folder
    index: int  # in the plan file, from 0
    n_rows: int


class PlanWriter:
    """Cuts rows into units and writes their plan files, part by part, in the order of the rows.

    Rows of an event must be neighbours, also from part to part.
    """

    def __init__(
        self,
        output_uri: str,
        folder: str,
        images_per_unit: int,
        *,
        first: int = 0,
        plans: str = WORK_FOLDER,
        columns: Sequence[str] | None = None,
    ) -> None:
        """Nothing is written yet.

        Args:
            columns: the columns to write; None: all.
            folder: where the units' results go, below the output folder, e.g. `split=train`.
            first: number of the first unit.
            plans: folder for the plan files, below the output folder.
        """
        self._output_uri, self._folder = output_uri, folder
        self._first, self._plans, self._columns = first, plans, columns
        self._images_per_unit = images_per_unit
        self._rest: pa.Table | None = None
        self._pool = ThreadPoolExecutor(1)
        self._writing: list[Future[None]] = []
        self._waiting: list[pa.Table] = []
        self.units: list[Unit] = []

    def add(self, rows: pa.Table) -> None:
        """Write plan files for all units that are complete."""
        if self._rest is not None:
            rows = pa.concat_tables([self._rest, rows]).combine_chunks()
        starts = run_starts(rows["capture_event_id"])
        last_event = int(starts[-1]) if len(starts) else 0  # later rows may belong to it
        done = 0
        for start, stop in cut_at_starts(starts, rows.num_rows, self._images_per_unit):
            if stop > last_event:
                break
            self._add_unit(rows.slice(start, stop - start))
            done = stop
        self._rest = rows.slice(done)

    def finish(self) -> list[Unit]:
        """Write plan files for the remaining rows; return all units."""
        if self._rest is not None:
            ids = self._rest["capture_event_id"]
            for start, stop in cut_by_events(ids, self._images_per_unit):
                self._add_unit(self._rest.slice(start, stop - start))
        self._flush()
        self._pool.shutdown()
        for writing in self._writing:
            writing.result()
        return self.units

    def _add_unit(self, rows: pa.Table) -> None:
        number = len(self.units)
        self.units.append(
            Unit(
                name=f"{self._folder}/{part_stem(self._first + number)}.parquet",
                plan_file=self._plan_file(number),
                index=number % _UNITS_PER_PLAN_FILE,
                n_rows=rows.num_rows,
            )
        )
        self._waiting.append(rows if self._columns is None else rows.select(self._columns))
        if len(self._waiting) == _UNITS_PER_PLAN_FILE:
            self._flush()

    def _plan_file(self, number: int) -> str:
        return f"{self._plans}/{self._folder}/plan-{number // _UNITS_PER_PLAN_FILE:05d}.arrow"

    def _flush(self) -> None:
        if self._waiting:
            uri = storage.join(self._output_uri, self._plan_file(len(self.units) - 1))
            self._writing.append(self._pool.submit(_write_once, uri, self._waiting))
            self._waiting = []
        if len(self._writing) > _FILES_WAITING:
            self._writing.pop(0).result()


def _write_once(uri: str, batches: list[pa.Table]) -> None:
    if not storage.exists(uri):  # written by a killed run of the same job
        parquet.write_batches(uri, batches)


def read_unit(output_uri: str, unit: Unit) -> pa.Table:
    """The rows of a unit."""
    return parquet.read_batch(storage.join(output_uri, unit.plan_file), unit.index)


def missing_units(output_uri: str, units: list[Unit]) -> list[Unit]:
    """The units whose result is not yet there, in their order."""
    if not storage.is_folder(output_uri):
        return units
    output_uri = storage.absolute(output_uri)
    there = set(storage.list_files(output_uri))
    return [unit for unit in units if storage.join(output_uri, unit.name) not in there]
