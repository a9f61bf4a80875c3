"""The work of one unit of `ctc predict`: decode, score, and answer per image and per event."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from threading import Lock

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ctc_ray.columns.threads import InTurn
from ctc_ray.config.prediction import PredictConfig
from ctc_ray.files import parquet, storage
from ctc_ray.labels import LabelSpace
from ctc_ray.predictions.events import aggregate_by_event
from ctc_ray.predictions.scores import score_rows
from ctc_ray.runs.unit_worker import UnitOutput, UnitWorker
from ctc_ray.runs.units import Unit, read_unit
from ctc_ray.schemas import (
    Failure,
    conform,
    labelled_heads,
    meta_fields,
    prediction_schema,
)
from ctc_ray.stages.predict.answer_files import (
    ABOUT_KEY,
    EVENTS,
    VERSIONS,
    part_name,
    part_number,
    read_versions,
)
from ctc_ray.stages.predict.export_files import parts_of_unit
from ctc_ray.stages.predict.sources import (
    VERSION,
    DecodedBatch,
    decode_batches,
    image_columns,
    versions_now,
)

ANSWER_FILE, ANSWER_ROW = "_answer_file", "_answer_row"
"""Columns of a plan: the file below the output, and the row there, that has an image's answer."""


Score = Callable[[npt.NDArray[np.uint8]], Mapping[str, npt.NDArray[np.float32]]]
"""Images (B, S, S, 3) of the network's own size -> head -> probabilities (B, K)."""


@dataclass(frozen=True)
class Network:
    """What a worker knows of the model."""

    labels: LabelSpace
    image_size: int
    keep_aspect: bool
    is_stack: bool
    onnx_uri: str | None
    """The network for ONNX Runtime; None: PyTorch computes it."""


@dataclass(frozen=True)
class UnitScorer:
    """Makes workers that hold the model; can be pickled."""

    config: PredictConfig
    about: str
    """What every file of answers says of itself."""
    network: Network

    def make_worker(self, n_threads: int) -> UnitWorker:
        """A worker that decodes and, on CPUs, scores with this many threads."""
        scoring = InTurn(1 if self.config.gpu_per_worker else n_threads)
        return _Scorer(self.config, self.about, self.network, n_threads, scoring)


@dataclass(frozen=True)
class _Scorer:
    """A worker of `ctc predict`."""

    config: PredictConfig
    about: str
    network: Network
    n_threads: int
    scoring: InTurn
    _making: Lock = field(default_factory=Lock)

    @cached_property
    def score(self) -> Score:
        """What computes the network, made when it is needed: some processes only write answers."""
        if self.network.onnx_uri is None:
            return _by_torch(self.config)
        from ctc_ray.models.onnx_scorer import OnnxScorer

        content = storage.read_bytes(self.network.onnx_uri)
        return OnnxScorer(content, self.network.labels).predict_probs

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
            image_size=self.network.image_size,
            keep_aspect=self.network.keep_aspect,
            is_stack=self.network.is_stack,
            n_threads=self.n_threads,
        )
        with self._making:  # units are answered by several threads
            score = self.score
        return pa.concat_tables(self.scoring.map(partial(self._score, score), batches))

    def _score(self, score: Score, batch: DecodedBatch) -> pa.Table:
        probs = {
            head: np.repeat(probs_MK, batch.n_rows_M, axis=0)
            for head, probs_MK in score(batch.pixels_MSSC).items()
        }
        scored = score_rows(batch.rows, self.network.labels, probs)
        return scored.append_column(VERSION, batch.rows[VERSION])

    def _with_former_answers(self, rows: pa.Table) -> pa.Table:
        """The rows with the answers that `ANSWER_FILE` and `ANSWER_ROW` say.

        All else, such as places, times and labels, is what the source says now.
        """
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
        answers = pa.concat_tables(parts, promote_options="default").take(pa.array(order))
        columns = dict(zip(answers.column_names, answers.columns, strict=True))
        columns |= dict(zip(planned.column_names, planned.columns, strict=True))
        heads, meta = self.network.labels.heads, meta_fields(planned.schema)
        schema = prediction_schema(heads, meta, labelled_heads(planned.schema, heads))
        found = conform(pa.table(columns), schema, where="predictions")
        return found.append_column(VERSION, answers[VERSION])

    def fail(self, rows: pa.Table, failure: Failure) -> pa.Table:
        """Predictions of images that all have this failure."""
        failures = pa.array([failure.value] * rows.num_rows, pa.string())
        versions = versions_now(self.config, rows)
        rows = rows.select(image_columns(rows)).append_column("failure", failures)
        labels = self.network.labels
        return score_rows(rows, labels, labels.no_probs()).append_column(VERSION, versions)

    def output(self, unit: Unit, answers: pa.Table) -> UnitOutput:
        """A file of images, one of events, one of the files' versions, and parts of exports."""
        labels, number = self.network.labels, part_number(unit.name)
        about = {ABOUT_KEY: self.about}
        images = answers.drop_columns([VERSION]).replace_schema_metadata(about)
        events = aggregate_by_event(
            images,
            labels,
            method=self.config.aggregation,
            renormalize=self.config.renormalize,
            top_k=self.config.top_k,
        )
        events = events.replace_schema_metadata(about)
        versions = answers.select(["image_id", VERSION]).rename_columns(["image_id", "version"])
        files = {
            **parts_of_unit(self.config.export, number, images, events, labels),
            part_name(EVENTS, number): _file(events),
            part_name(VERSIONS, number): parquet.table_bytes(versions),
            unit.name: _file(images),
        }
        return UnitOutput(files, images.num_rows, images.num_rows - images["failure"].null_count)


def _by_torch(config: PredictConfig) -> Score:
    import torch  # takes seconds and 400 MB, which ONNX Runtime does not need

    from ctc_ray.models.bundle import load_bundle
    from ctc_ray.models.classifier import predict_probs

    on_gpu = config.gpu_per_worker > 0
    if not on_gpu:
        # Threads score whole batches: with one thread per batch the bits are the same on any number
        # of CPUs.
        torch.set_num_threads(1)
    bundle = load_bundle(config.bundle_uri, device="cuda" if on_gpu else "cpu")
    if config.uncalibrated:
        bundle = bundle.uncalibrated()
    return partial(predict_probs, bundle, precision=config.precision)


def _file(predictions: pa.Table) -> pa.Buffer:
    encodings = parquet.float_list_encodings(predictions.schema)
    return parquet.table_bytes(predictions, encodings=encodings)
