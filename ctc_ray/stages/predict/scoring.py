"""The work of one unit of `ctc predict`: decode, score, and answer per image and per event."""

from dataclasses import dataclass
from functools import partial

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
from ctc_ray.runs.executor import UnitOutput, UnitWorker
from ctc_ray.runs.units import Unit, read_unit
from ctc_ray.stages.predict.sources import decode_batches

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
        return partial(self._score_unit, bundle, n_threads=n_threads, on_gpu=on_gpu)

    def _score_unit(
        self, bundle: Bundle, unit: Unit, *, n_threads: int, on_gpu: bool
    ) -> UnitOutput:
        batches = decode_batches(
            self.config,
            read_unit(self.config.output_uri, unit),
            image_size=bundle.image_size,
            keep_aspect=bundle.keep_aspect,
            n_threads=n_threads,
        )
        scored = map_ahead(partial(_score, bundle), batches, n_threads=1 if on_gpu else n_threads)
        images = pa.concat_tables(scored)
        events = aggregate_by_event(images, bundle.label_space, method=self.config.aggregation)
        files = {
            events_name(unit): parquet.table_bytes(events),
            unit.name: parquet.table_bytes(images),
        }
        return UnitOutput(files, images.num_rows, images.num_rows - images["failure"].null_count)


def _score(bundle: Bundle, batch: Batch) -> pa.Table:
    rows, pixels_NSSC = batch
    return score_rows(rows, bundle.label_space, predict_probs(bundle, pixels_NSSC))


def events_name(unit: Unit) -> str:
    """Path of the unit's event predictions, below the output folder."""
    return f"{EVENTS}/{unit.name.rpartition('/')[2]}"
