"""`ctc predict`: answer for every image and every capture event.

CPU tasks decode; model actors score; the driver commits a unit when its last batch has come. A row
of the pipeline is one whole batch of one unit, so a batch holds the same images in every run and
the answers are the same to the last bit, however the tasks fall out.

in:  a bundle, and images (a folder, a csv, an INVENTORY, or the SHARDs of a dataset)
out: PREDICTION as images/part-NNNNN.parquet, EVENT_PREDICTION as events/part-NNNNN.parquet,
     predictions.csv and predictions.json on request, _failures.parquet, manifest.json
"""

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray.data

from ctc_ray.config.prediction import PredictConfig
from ctc_ray.console import logs
from ctc_ray.console.progress import Progress
from ctc_ray.errors import CtcError
from ctc_ray.files import parquet, storage
from ctc_ray.labels import LabelSpace
from ctc_ray.models.bundle import load_bundle
from ctc_ray.models.classifier import classify
from ctc_ray.predictions.events import aggregate_by_event, without_images
from ctc_ray.predictions.scores import score_rows
from ctc_ray.predictions.writers.original import csv_chunks, json_chunks
from ctc_ray.runs.executor import raise_unit_error
from ctc_ray.runs.failures import check_failures, read_footers, write_failures
from ctc_ray.runs.manifest import Manifest, manifest_fingerprint, read_manifest
from ctc_ray.runs.output_folder import begin_work, finish_work
from ctc_ray.runs.units import Unit, missing_units, write_plan
from ctc_ray.stages.cluster.connect import connect, n_cpus, require
from ctc_ray.stages.cluster.executor import dataset_of_units
from ctc_ray.stages.predict import sources as source

logger = logging.getLogger(__name__)

_IMAGES, _EVENTS = "images", "events"
_COMMIT_THREADS = 4
_BLOCK_BYTES = 32 << 20  # decoded batches are handed on in blocks of about this size
_CPU_PER_DECODE, _CPU_PER_ACTOR = 0.25, 0.75  # on CPUs, scoring is the larger part


def run(config: PredictConfig) -> Manifest:
    """Do the units whose predictions are missing; the manifest comes last."""
    config = _absolute(config)
    bundle = read_manifest(config.bundle_uri, "bundle")
    load_bundle(config.bundle_uri)  # weights that are damaged are told now, not by every actor
    found = source.read_source(config)
    rows = found.rows
    inputs = {
        config.bundle_uri: manifest_fingerprint(config.bundle_uri),
        **source.fingerprints(config, rows),
    }
    work = {**config.work(), "inputs": inputs}
    actors = f"--gpu-per-worker {config.gpu_per_worker:g}"
    require(actors, cpus=1, gpus=config.gpu_per_worker)
    if begin_work(config.output_uri, "predictions", work, overwrite=config.overwrite):
        logger.info("%s is complete already", config.output_uri)
        return read_manifest(config.output_uri, "predictions")
    units = write_plan(config.output_uri, _IMAGES, rows, config.images_per_unit)
    labels = LabelSpace.from_json(bundle.classes)
    _run_missing(config, bundle, units, rows.num_rows)
    _write_empty_events(config, labels, found, n_units=len(units))
    manifest = Manifest(
        kind="predictions",
        config=config.work(),
        inputs=inputs,
        rows_in=rows.num_rows,
        classes=bundle.classes,
        meta=source.meta_fields(rows),
        counts={"findings": dict(found.findings)} if found.findings else {},
    )
    return _finish(config, labels, manifest, units)


def _absolute(config: PredictConfig) -> PredictConfig:
    names = ("bundle_uri", "output_uri", "images_uri", "csv_uri", "inventory_uri", "dataset_uri")
    uris = {name: getattr(config, name) for name in (*names, "image_root_uri")}
    return config.replaced(**{k: storage.absolute(v) for k, v in uris.items() if v is not None})


def _run_missing(config: PredictConfig, bundle: Manifest, units: list[Unit], n_rows: int) -> None:
    missing = missing_units(config.output_uri, units)
    progress = Progress("predict", n_rows)
    progress.skip(n_rows - sum(unit.n_rows for unit in missing))
    logger.info("predict: %d images in %d units", n_rows, len(units))
    if missing:
        connect()
        labels = LabelSpace.from_json(bundle.classes)
        _commit_all(config, labels, missing, _pipeline(config, bundle, missing), progress)
    progress.finish()


def _pipeline(config: PredictConfig, bundle: Manifest, units: list[Unit]) -> ray.data.Dataset:
    ray.data.DataContext.get_current().target_max_block_size = _BLOCK_BYTES
    on_gpu = config.gpu_per_worker > 0
    n_batches = sum(-(-unit.n_rows // config.batch_size) for unit in units)
    n_actors = min(config.workers or (1 if on_gpu else n_cpus()), n_batches)
    size, keep_aspect = bundle.counts["image_size"], bundle.counts["keep_aspect"]

    def decode(row: dict[str, Any]) -> Iterator[dict[str, Any]]:
        number = row.pop("number")
        unit = Unit(**row)
        try:
            for batch in source.decode_unit(config, unit, image_size=size, keep_aspect=keep_aspect):
                yield {"number": number, **batch}
        except (CtcError, OSError) as error:
            yield {"number": number, **source.failed_batch(unit, error)}

    return (
        dataset_of_units(units)
        .flat_map(decode, num_cpus=1 if on_gpu else _CPU_PER_DECODE)
        .map_batches(
            ScoreBatch,
            fn_constructor_args=(config.bundle_uri, on_gpu),
            batch_size=1,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=n_actors),
            num_cpus=1 if on_gpu else _CPU_PER_ACTOR,
            num_gpus=config.gpu_per_worker,
        )
    )


class ScoreBatch:
    """A model in an actor: one decoded batch in, the batch's prediction rows out."""

    def __init__(self, bundle_uri: str, on_gpu: bool) -> None:
        import torch

        logs.set_up()
        if not on_gpu:
            torch.set_num_threads(1)  # an actor per CPU; the same bits on any number of CPUs
        self._bundle = load_bundle(bundle_uri, device="cuda" if on_gpu else "cpu")

    def __call__(self, batches: pa.Table) -> pa.Table:
        """Score the one batch that is in the table."""
        is_failed = bool(batches["error"][0].as_py())
        answer = b"" if is_failed else source.to_ipc(self._score(batches))
        return batches.drop_columns(["rows", "pixels"]).append_column(
            "predictions", pa.array([answer], pa.large_binary())
        )

    def _score(self, batches: pa.Table) -> pa.Table:
        bundle = self._bundle
        rows = source.from_ipc(batches["rows"][0].as_py())
        side = bundle.image_size
        pixels = np.frombuffer(batches["pixels"][0].as_py(), np.uint8).reshape(-1, side, side, 3)
        return score_rows(rows, bundle.label_space, classify(bundle, pixels))


def _commit_all(
    config: PredictConfig,
    labels: LabelSpace,
    units: list[Unit],
    batches: ray.data.Dataset,
    progress: Progress,
) -> None:
    """Commit each unit when its last batch has come; units in work are all that is held."""
    waiting: dict[int, dict[int, bytes]] = {}
    commits: list[Future[tuple[int, int]]] = []
    with ThreadPoolExecutor(_COMMIT_THREADS) as pool:
        for row in batches.iter_rows():
            raise_unit_error(row["error"])
            parts = waiting.setdefault(row["number"], {})
            parts[row["batch"]] = row["predictions"]
            if len(parts) == row["n_batches"]:
                in_order = [parts[batch] for batch in sorted(parts)]
                del waiting[row["number"]]
                unit = units[row["number"]]
                commits.append(pool.submit(_commit, config, labels, unit, in_order))
            if len(commits) > 2 * _COMMIT_THREADS:
                progress.add(*commits.pop(0).result())
        for commit in commits:
            progress.add(*commit.result())


def _commit(
    config: PredictConfig, labels: LabelSpace, unit: Unit, parts: list[bytes]
) -> tuple[int, int]:
    """Write a unit's events, then its images: that file says that the unit is done."""
    images = pa.concat_tables([source.from_ipc(part) for part in parts])
    events = aggregate_by_event(images, labels, method=config.aggregation)
    parquet.write_table(storage.join(config.output_uri, _events_name(unit)), events)
    parquet.write_table(storage.join(config.output_uri, unit.name), images)
    return images.num_rows, images.num_rows - images["failure"].null_count


def _events_name(unit: Unit) -> str:
    return f"{_EVENTS}/{unit.name.rpartition('/')[2]}"


def _write_empty_events(
    config: PredictConfig, labels: LabelSpace, found: source.Source, *, n_units: int
) -> None:
    """Answer, in a file behind those of the units, for events that name no image."""
    if found.empty_events is not None and found.empty_events.num_rows:
        logger.warning("%d events name no image: no prediction", found.empty_events.num_rows)
        uri = storage.join(config.output_uri, f"{_EVENTS}/part-{n_units:05d}.parquet")
        parquet.write_table(uri, without_images(found.empty_events, labels))


def _finish(
    config: PredictConfig, labels: LabelSpace, manifest: Manifest, units: list[Unit]
) -> Manifest:
    footers = read_footers(config.output_uri, units)
    failures = write_failures(config.output_uri, footers)
    n_rows = sum(footer.n_rows for footer in footers)
    check_failures(config.output_uri, failures, n_rows, config.max_failure_fraction)
    _write_exports(config, labels, manifest.meta, units)
    n_events, predicted = _count_events(config, labels)
    finished = manifest.model_copy(
        update={
            "rows_out": n_rows,
            "failures": failures,
            "counts": {"events": n_events, **manifest.counts, **predicted},
        }
    )
    finish_work(config.output_uri, finished)
    logger.info("wrote %d images, %d events to %s", n_rows, n_events, config.output_uri)
    return finished


def _write_exports(
    config: PredictConfig, labels: LabelSpace, meta: Sequence[str], units: list[Unit]
) -> None:
    chunks = {"csv": csv_chunks, "json": json_chunks}
    for kind in config.export:
        uri = storage.join(config.output_uri, f"predictions.{kind}")
        storage.write_chunks(uri, chunks[kind](_parts(config, units), labels, meta))


def _parts(config: PredictConfig, units: list[Unit]) -> Iterator[tuple[pa.Table, pa.Table]]:
    """The image and event rows of each unit, and of the events that name no image."""
    images = None
    for unit in units:
        images = parquet.read_table(storage.join(config.output_uri, unit.name))
        yield images, parquet.read_table(storage.join(config.output_uri, _events_name(unit)))
    empty_uri = storage.join(config.output_uri, f"{_EVENTS}/part-{len(units):05d}.parquet")
    if images is not None and storage.exists(empty_uri):
        yield images.slice(0, 0), parquet.read_table(empty_uri)


def _count_events(config: PredictConfig, labels: LabelSpace) -> tuple[int, dict[str, Any]]:
    """Number of events, and per head how many were given each class."""
    columns = [f"pred_{head}" for head in labels.heads]
    n_events, given = 0, {head: Counter[str | None]() for head in labels.heads}
    for uri in storage.list_files(storage.join(config.output_uri, _EVENTS)):
        events = parquet.read_table(uri, columns)
        n_events += events.num_rows
        for head in labels.heads:
            for row in pc.value_counts(events[f"pred_{head}"]).to_pylist():
                given[head][row["values"]] += row["counts"]
    predicted = {
        f"events predicted as {head}": [
            {"class": name or "(no usable image)", "events": n}
            for name, n in sorted(counts.items(), key=lambda item: (-item[1], item[0] or ""))
        ]
        for head, counts in given.items()
    }
    return n_events, predicted
