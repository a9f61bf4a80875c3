"""Which images of which files are an event, and which events have images in several units.

A unit is a few neighbouring files of predictions. An event whose images are all in one unit is
answered there. The images of all other events are moved: each unit writes them into a file, in
pieces, one for each part of the moved events; then a unit of its own answers for each part.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ctc_ray.columns.event_runs import cut_at_starts
from ctc_ray.files import parquet, storage
from ctc_ray.predictions.regroup import Regrouped
from ctc_ray.runs.layout import WORK_FOLDER
from ctc_ray.runs.units import Unit
from ctc_ray.stages.aggregate.images import ImageFiles
from ctc_ray.stages.predict.answer_files import EVENTS, part_name

MOVED = storage.join(WORK_FOLDER, "moved")
_PLANS = storage.join(WORK_FOLDER, "rows")

ROW, ORDER, PART = "_row", "_order", "_part"
"""Columns of a plan: row in the unit's files, null if the image has no prediction; position among
all images, event by event; part of the moved events, -1 if the event is in one unit."""

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Part:
    """Moved events that are answered together."""

    unit: Unit
    pieces: tuple[tuple[str, int], ...]
    """Path below the output and index of each piece of its images."""


@dataclass(frozen=True)
class Plan:
    """The work."""

    units: Sequence[Unit]
    """For each, the images of its own events are answered and those of others are moved."""
    parts: Sequence[Part]

    @property
    def n_moved(self) -> int:
        """Images that are moved."""
        return sum(part.unit.n_rows for part in self.parts)


def plan_whole_events(units: Sequence[ImageFiles]) -> list[Unit]:
    """The units where each file holds whole events, as `ctc predict` writes them."""
    return [
        Unit(part_name(EVENTS, number), plan_file="", index=number, n_rows=sum(files.n_rows))
        for number, files in enumerate(units)
    ]


def plan_regrouped(
    output_uri: str, units: Sequence[ImageFiles], images: Regrouped, images_per_unit: int
) -> Plan:
    """Write the plan file of each unit, unless a killed run has."""
    first_U = np.cumsum([0, *(sum(files.n_rows) for files in units)])
    unit_R = _units_of(images.rows, first_U)
    part_R = _parts(images.events, unit_R, images_per_unit)
    order = np.argsort(unit_R, kind="stable")
    bounds = np.searchsorted(unit_R[order], np.arange(len(units) + 1))
    planned, pieces = [], dict[int, list[tuple[str, int]]]()
    for number in range(len(units)):
        rows = order[bounds[number] : bounds[number + 1]]
        if len(rows) == 0:
            continue
        name = part_name(MOVED, number).replace(".parquet", ".arrow")
        plan_file = part_name(_PLANS, number).replace(".parquet", ".arrow")
        plan_uri = storage.join(output_uri, plan_file)
        if not storage.exists(plan_uri):
            table = _plan_table(images, rows, images.rows[rows] - first_U[number], part_R[rows])
            parquet.write_batches(plan_uri, [table])
        planned.append(Unit(name, plan_file, index=0, n_rows=len(rows)))
        for index, part in enumerate(np.unique(part_R[rows][part_R[rows] >= 0]).tolist()):
            pieces.setdefault(part, []).append((name, index))
    n_rows_P = np.bincount(part_R[part_R >= 0])
    parts = [
        Part(
            Unit(part_name(EVENTS, len(units) + part), "", part, int(n_rows_P[part])),
            tuple(pieces[part]),
        )
        for part in sorted(pieces)
    ]
    return Plan(planned, parts)


def events_file(unit: Unit) -> str:
    """The path of the answers to the events that are whole in a unit which moves others."""
    number = unit.name.rpartition("-")[2].removesuffix(".arrow")
    return part_name(EVENTS, int(number))


def _units_of(rows: Ints, first_U: Ints) -> Ints:
    """The unit of each image; one without a prediction is where the image before it is."""
    known = np.maximum.accumulate(np.where(rows >= 0, np.arange(len(rows)), 0))
    unit_R: Ints = np.searchsorted(first_U, np.maximum(rows[known], 0), side="right") - 1
    return unit_R


def _parts(
    events: npt.NDArray[np.int32], unit_R: Ints, images_per_unit: int
) -> npt.NDArray[np.int32]:
    """The part of each image's event; -1 if the event is in one unit."""
    starts_E = np.flatnonzero(np.diff(events, prepend=-1))
    lengths_E = np.diff(starts_E, append=len(events))
    low_E, high_E = (of.reduceat(unit_R, starts_E) for of in (np.minimum, np.maximum))
    is_moved_R = np.repeat(low_E != high_E, lengths_E)
    moved = np.flatnonzero(is_moved_R)
    starts = np.flatnonzero(np.diff(events[moved], prepend=-1))
    part_R = np.full(len(events), -1, np.int32)
    for part, (start, stop) in enumerate(cut_at_starts(starts, len(moved), images_per_unit)):
        part_R[moved[start:stop]] = part
    return part_R


def _plan_table(
    images: Regrouped, rows: Ints, row_in_unit: Ints, parts: npt.NDArray[np.int32]
) -> pa.Table:
    chosen = pa.array(rows)
    columns: Mapping[str, pa.Array] = images.columns
    return pa.table(
        {
            ROW: pa.array(row_in_unit, pa.int64(), mask=images.rows[rows] < 0),
            ORDER: chosen,
            PART: pa.array(parts),
            "capture_event_id": images.event_ids.take(pa.array(images.events[rows])),
            **{name: values.take(chosen) for name, values in columns.items()},
        }
    )
