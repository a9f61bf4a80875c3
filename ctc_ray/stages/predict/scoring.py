"""The work of one unit of `ctc predict`: decode, score, and answer per image and per event."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from ctc_ray.columns.threads import map_ahead
from ctc_ray.config.prediction import PredictConfig
from ctc_ray.files import parquet, storage
from ctc_ray.models.bundle import Bundle, load_bundle
from ctc_ray.models.classifier import predict_probs
from ctc_ray.predictions.events import aggregate_by_event
from ctc_ray.predictions.scores import score_rows
from ctc_ray.runs.unit_worker import UnitOutput, UnitWorker
from ctc_ray.runs.units import Unit, read_unit
from ctc_ray.schemas import Failure
from ctc_ray.stages.predict.answer_files import (
    EVENTS,
    VERSIONS,
    part_name,
    part_number,
    read_versions,
)
from ctc_ray.stages.predict.sources import (
    VERSION,
    DecodedBatch,
    decode_batches,
    image_columns,
    versions_now,
)

ANSWER_FILE, ANSWER_ROW = "_answer_file", "_answer_row"
"""Columns of a plan: the file below the output, and the row there, that has an image's answer."""


@dataclass(frozen=True)
class UnitScorer:
    """Makes workers that hold the model; can be pickled."""

    config: PredictConfig

    def make_worker(self, n_threads: int) -> UnitWorker:
        """A worker that decodes and, on CPUs, scores with this many threads."""
        on_gpu = self.config.gpu_per_worker > 0
        if not on_gpu:
            # Threads score whole batches: with one thread per batch the bits are the same on any
            # number of CPUs.
            torch.set_num_threads(1)
        bundle = load_bundle(self.config.bundle_uri, device="cuda" if on_gpu else "cpu")
        bundle = bundle.uncalibrated() if self.config.uncalibrated else bundle
        return _Scorer(self.config, bundle, n_threads, on_gpu)


@dataclass(frozen=True)
class _Scorer:
    """A worker of `ctc predict`."""

    config: PredictConfig
    bundle: Bundle
    n_threads: int
    on_gpu: bool

    def read(self, unit: Unit) -> pa.Table:
        """The planned rows."""
        return read_unit(self.config.output_uri, unit)

    def answer(self, rows: pa.Table) -> pa.Table:
        """Predictions per image, with the `VERSION` of its file."""
        if ANSWER_FILE not in rows.column_names:
            return self._scored(rows)
        has_answer = pc.is_valid(rows[ANSWER_FILE])
        answered, others = rows.filter(has_answer), rows.filter(pc.invert(has_answer))
        found = [self._with_former_answers(answered)] if answered.num_rows else []
        found += [self._scored(others)] if others.num_rows else []
        position = np.argsort(pc.invert(has_answer).to_numpy(), kind="stable")
        return pa.concat_tables(found).take(pa.array(np.argsort(position)))

    def _scored(self, rows: pa.Table) -> pa.Table:
        batches = decode_batches(
            self.config,
            rows,
            image_size=self.bundle.image_size,
            keep_aspect=self.bundle.keep_aspect,
            is_stack=self.bundle.is_stack,
            n_threads=self.n_threads,
        )
        n_threads = 1 if self.on_gpu else self.n_threads
        return pa.concat_tables(map_ahead(self._score, batches, n_threads=n_threads))

    def _score(self, batch: DecodedBatch) -> pa.Table:
        probs = {
            head: np.repeat(probs_MK, batch.n_rows_M, axis=0)
            for head, probs_MK in predict_probs(self.bundle, batch.pixels_MSSC).items()
        }
        scored = score_rows(batch.rows, self.bundle.label_space, probs)
        return scored.append_column(VERSION, batch.rows[VERSION])

    def _with_former_answers(self, rows: pa.Table) -> pa.Table:
        """The rows with the answers that `ANSWER_FILE` and `ANSWER_ROW` say."""
        planned = rows.select(image_columns(rows))
        parts, numbers = [], []
        for name in pc.unique(rows[ANSWER_FILE]).to_pylist():
            is_here = pc.equal(rows[ANSWER_FILE], name)
            chosen = rows[ANSWER_ROW].filter(is_here)
            there = parquet.read_table(storage.join(self.config.output_uri, name))
            version_N = read_versions(self.config.output_uri, name, there["image_id"])
            parts.append(there.append_column(VERSION, version_N).take(chosen))
            numbers.append(np.flatnonzero(is_here.to_numpy()))
        order = np.argsort(np.concatenate(numbers))
        answers = pa.concat_tables(parts).take(pa.array(order))
        for name in planned.column_names:  # what the source says may have changed
            at = answers.column_names.index(name)
            answers = answers.set_column(at, answers.schema.field(at), planned[name])
        return answers

    def fail(self, rows: pa.Table, failure: Failure) -> pa.Table:
        """Predictions of images that all have this failure."""
        failures = pa.array([failure.value] * rows.num_rows, pa.string())
        versions = versions_now(self.config, rows)
        rows = rows.select(image_columns(rows)).append_column("failure", failures)
        labels = self.bundle.label_space
        none = {head: np.zeros((0, labels.n_classes(head)), np.float32) for head in labels.heads}
        return score_rows(rows, labels, none).append_column(VERSION, versions)

    def output(self, unit: Unit, answers: pa.Table) -> UnitOutput:
        """A file of images, one of events, and one of the versions of the images' files."""
        labels, number = self.bundle.label_space, part_number(unit.name)
        images = answers.drop_columns([VERSION])
        events = aggregate_by_event(
            images,
            labels,
            method=self.config.aggregation,
            renormalize=self.config.renormalize,
            top_k=self.config.top_k,
        )
        versions = answers.select(["image_id", VERSION]).rename_columns(["image_id", "version"])
        files = {
            part_name(EVENTS, number): _file(events),
            part_name(VERSIONS, number): parquet.table_bytes(versions),
            unit.name: _file(images),
        }
        return UnitOutput(files, images.num_rows, images.num_rows - images["failure"].null_count)


def _file(predictions: pa.Table) -> pa.Buffer:
    encodings = parquet.float_list_encodings(predictions.schema)
    return parquet.table_bytes(predictions, encodings=encodings)
