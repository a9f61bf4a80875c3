"""The work of the units of `ctc aggregate`: read predictions per image, and answer per event."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ctc_ray.config.aggregation import AggregateConfig
from ctc_ray.errors import CtcError
from ctc_ray.files import parquet, storage
from ctc_ray.labels import LabelSpace
from ctc_ray.predictions.events import aggregate_by_event
from ctc_ray.predictions.scores import take_fixed
from ctc_ray.runs.unit_worker import UnitOutput
from ctc_ray.runs.units import Unit, read_unit
from ctc_ray.schemas import Failure
from ctc_ray.stages.aggregate.images import ImageFiles
from ctc_ray.stages.aggregate.plan import ORDER, PART, ROW, Part, events_file
from ctc_ray.stages.predict.answer_files import part_number

_NOT_PREDICTED = "not predicted"  # stands in the column `failure`, so the image counts as failed


@dataclass(frozen=True)
class Aggregator:
    """What all units of a run share; can be pickled."""

    config: AggregateConfig
    label_space: LabelSpace

    def answer(self, rows: pa.Table) -> pa.Buffer:
        """A file of the predictions per event of these rows; rows of an event are neighbours."""
        events = aggregate_by_event(
            rows,
            self.label_space,
            method=self.config.aggregation,
            renormalize=self.config.renormalize,
            top_k=self.config.top_k,
        )
        return parquet.table_bytes(events, encodings=parquet.float_list_encodings(events.schema))


class _Worker:
    """No image is touched, so rows are their own answers."""

    def answer(self, rows: pa.Table) -> pa.Table:
        """The rows."""
        return rows

    def fail(self, rows: pa.Table, failure: Failure) -> pa.Table:
        """No row ends a process; it has a prediction that must not get lost.

        Raises:
            CtcError: always.
        """
        raise CtcError(
            "every process that works on it is killed, perhaps for lack of memory: take a smaller "
            "--images-per-unit, or a larger machine"
        )


@dataclass(frozen=True)
class WholeEvents(_Worker):
    """Answers for files that hold whole events; a unit's index is that of its files."""

    aggregator: Aggregator
    files: Sequence[ImageFiles]

    def __call__(self, n_threads: int) -> "WholeEvents":
        """The worker itself, for a `Job`."""
        return self

    def read(self, unit: Unit) -> pa.Table:
        """The rows of the unit's files."""
        return self.files[unit.index].read()

    def output(self, unit: Unit, answers: pa.Table) -> UnitOutput:
        """One file of events."""
        return UnitOutput({unit.name: self.aggregator.answer(answers)}, answers.num_rows, 0)


@dataclass(frozen=True)
class RegroupedEvents(_Worker):
    """Answers for the events that are whole in a unit, and moves the images of the others."""

    aggregator: Aggregator
    files: Sequence[ImageFiles]
    columns: Sequence[str]
    """The columns of the files that are used; the others are in the plan."""

    def __call__(self, n_threads: int) -> "RegroupedEvents":
        """The worker itself, for a `Job`."""
        return self

    def read(self, unit: Unit) -> pa.Table:
        """The unit's images in the order of the new events, with `ORDER` and `PART`."""
        plan = read_unit(self.aggregator.config.output_uri, unit)
        there = self.files[part_number(events_file(unit))].read(self.columns)
        rows = take_fixed(there, self.aggregator.label_space, plan[ROW].combine_chunks())
        failure = pc.if_else(pc.is_null(plan[ROW]), _NOT_PREDICTED, rows["failure"])
        rows = rows.set_column(rows.column_names.index("failure"), "failure", failure)
        for name in plan.column_names:
            if name != ROW:
                rows = rows.append_column(name, plan[name])
        return rows

    def output(self, unit: Unit, answers: pa.Table) -> UnitOutput:
        """The events that are whole, and a piece of moved images per part."""
        files, moved = self.divided(unit, answers)
        starts = np.flatnonzero(np.diff(moved[PART].to_numpy(), prepend=-1))
        lengths = np.diff(starts, append=moved.num_rows)
        pieces = [moved.slice(*piece) for piece in zip(starts, lengths, strict=True)]
        # the last of the files: where it is, the unit is done
        files[unit.name] = parquet.batches_bytes(pieces, moved.schema, compresses=False)
        return UnitOutput(files, answers.num_rows, 0)

    def divided(self, unit: Unit, answers: pa.Table) -> tuple[dict[str, pa.Buffer], pa.Table]:
        """The file of the events that are whole, if there are any, and the rows of the others."""
        is_moved = answers[PART].to_numpy() >= 0
        if is_moved.all():  # as a rule all or none are
            return {}, answers
        whole = answers if not is_moved.any() else answers.filter(pa.array(~is_moved))
        files = {events_file(unit): self.aggregator.answer(whole)}
        return files, answers.filter(pa.array(is_moved))


@dataclass(frozen=True)
class MovedEvents(_Worker):
    """Answers for events whose images were moved; a unit's index is that of its part."""

    aggregator: Aggregator
    parts: Sequence[Part]

    def __call__(self, n_threads: int) -> "MovedEvents":
        """The worker itself, for a `Job`."""
        return self

    def read(self, unit: Unit) -> pa.Table:
        """The images of the part."""
        output_uri = self.aggregator.config.output_uri
        return pa.concat_tables(
            parquet.read_batch(storage.join(output_uri, name), index)
            for name, index in self.parts[unit.index].pieces
        )

    def output(self, unit: Unit, answers: pa.Table) -> UnitOutput:
        """One file of events."""
        rows = answers.take(pa.array(np.argsort(answers[ORDER].to_numpy())))
        return UnitOutput({unit.name: self.aggregator.answer(rows)}, rows.num_rows, 0)
