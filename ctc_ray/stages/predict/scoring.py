"""The work of one unit of `ctc predict`: decode, score, and answer per image and per event."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from ctc_ray.columns.threads import map_ahead
from ctc_ray.config.prediction import PredictConfig
from ctc_ray.files import parquet
from ctc_ray.models.bundle import Bundle, load_bundle
from ctc_ray.models.classifier import predict_probs
from ctc_ray.predictions.events import aggregate_by_event
from ctc_ray.predictions.scores import score_rows
from ctc_ray.runs.unit_worker import UnitOutput, UnitWorker
from ctc_ray.runs.units import Unit, read_unit
from ctc_ray.schemas import Failure
from ctc_ray.stages.predict.sources import decode_batches, image_columns

IMAGES, EVENTS = "images", "events"  # folders below the output

Batch = tuple[pa.Table, npt.NDArray[np.uint8]]


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
        """Predictions per image."""
        batches = decode_batches(
            self.config,
            rows,
            image_size=self.bundle.image_size,
            keep_aspect=self.bundle.keep_aspect,
            n_threads=self.n_threads,
        )
        n_threads = 1 if self.on_gpu else self.n_threads
        return pa.concat_tables(map_ahead(self._score, batches, n_threads=n_threads))

    def _score(self, batch: Batch) -> pa.Table:
        rows, pixels_NSSC = batch
        return score_rows(rows, self.bundle.label_space, predict_probs(self.bundle, pixels_NSSC))

    def fail(self, rows: pa.Table, failure: Failure) -> pa.Table:
        """Predictions of images that all have this failure."""
        failures = pa.array([failure.value] * rows.num_rows, pa.string())
        rows = rows.select(image_columns(rows)).append_column("failure", failures)
        labels = self.bundle.label_space
        none = {head: np.zeros((0, labels.n_classes(head)), np.float32) for head in labels.heads}
        return score_rows(rows, labels, none)

    def output(self, unit: Unit, answers: pa.Table) -> UnitOutput:
        """A file of images, and one of events."""
        labels = self.bundle.label_space
        events = aggregate_by_event(answers, labels, method=self.config.aggregation)
        files = {
            events_name(unit): parquet.table_bytes(events),
            unit.name: parquet.table_bytes(answers),
        }
        return UnitOutput(files, answers.num_rows, answers.num_rows - answers["failure"].null_count)


def events_name(unit: Unit) -> str:
    """Path of the unit's event predictions, below the output folder."""
    return f"{EVENTS}/{unit.name.rpartition('/')[2]}"
