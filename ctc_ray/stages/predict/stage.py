"""`ctc predict`: answer for every image and every capture event.

A worker decodes and scores a unit and commits it. A unit is scored in batches of the same images in
every run, so the answers are equal to the last bit, whichever worker gives them.

in:  a bundle, and images (a folder, a csv, an INVENTORY, or the SHARDs of a dataset)
out: PREDICTION as images/part-NNNNN.parquet, EVENT_PREDICTION as events/part-NNNNN.parquet,
     predictions.csv and predictions.json on request, _versions/part-NNNNN.parquet (of the files
     that were read), _failures.parquet, _findings.parquet, _manifest.json
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, assert_never

import pyarrow as pa
import pyarrow.compute as pc

from ctc_ray.config.prediction import PredictConfig
from ctc_ray.console.progress import Progress
from ctc_ray.files import parquet, storage
from ctc_ray.labels import LabelSpace
from ctc_ray.models.bundle import bundle_fingerprint, load_bundle
from ctc_ray.predictions.event_counts import count_events
from ctc_ray.predictions.events import without_images
from ctc_ray.predictions.writers.camera_trap_classifier import csv_chunks, json_chunks
from ctc_ray.runs.claim import claimed
from ctc_ray.runs.executor import Executor, Job, run_units
from ctc_ray.runs.failures import (
    check_failures,
    count_failures,
    first_missing,
    read_failures,
    read_footers,
    require_all_rows,
)
from ctc_ray.runs.manifest import MADE_BY, Manifest, is_complete, read_manifest
from ctc_ray.runs.output_folder import Run, is_begun, open_run, replace_work, work_of
from ctc_ray.runs.units import Unit, missing_units, write_plan
from ctc_ray.schemas import FAILURES_FILE, FINDINGS_FILE, meta_fields
from ctc_ray.stages.cluster.in_process_or_ray import choose_executor, require_gpus
from ctc_ray.stages.predict import answer_files, append
from ctc_ray.stages.predict import sources as source
from ctc_ray.stages.predict.answer_files import EVENTS, IMAGES, part_name, part_number
from ctc_ray.stages.predict.growth import plan_growth, read_answered
from ctc_ray.stages.predict.scoring import UnitScorer

logger = logging.getLogger(__name__)


def run(config: PredictConfig, *, executor: Executor | None = None) -> Manifest:
    """Do the units whose predictions are missing; the manifest comes last.

    Args:
        executor: runs the units; None: this process for a few, else Ray.
    """
    config = _absolute(config)
    read_manifest(config.bundle_uri, "bundle")
    bundle = load_bundle(config.bundle_uri)  # what is damaged is reported now, not by every worker
    if config.append:
        bundle.require_single_images("--append")
    found = source.read_source(config)
    rows = found.rows
    inputs = {
        config.bundle_uri: bundle_fingerprint(config.bundle_uri),
        **source.fingerprints(config, rows),
    }
    fields = {**config.result_fields(), "inputs": inputs}
    if config.append and is_begun(config.output_uri):
        return _append(config, found, bundle.label_space, fields, executor)
    if not config.overwrite:
        append.require_unchanged(config, fields, rows)
    if config.overwrite or not is_complete(config.output_uri):
        source.require_images(config, rows)
    if config.gpu_per_worker:
        require_gpus(config.gpu_per_worker)
    with open_run(config.output_uri, "predictions", fields, overwrite=config.overwrite) as run:
        if isinstance(run, Manifest):
            return run
        units = write_plan(config.output_uri, IMAGES, rows, config.images_per_unit)
        _run_missing(config, run, units, executor)
        _write_empty_events(config, bundle.label_space, found.empty_events, number=len(units))
        manifest = _manifest(config, found, bundle.label_space, inputs, n_images=rows.num_rows)
        return _finish(config, run, manifest, units)


def _append(
    config: PredictConfig,
    found: source.Source,
    labels: LabelSpace,
    fields: Mapping[str, Any],
    executor: Executor | None,
) -> Manifest:
    """Answer for what is new or replaced; see `append`."""
    uri, inputs = config.output_uri, fields["inputs"]
    with claimed(uri, f"{MADE_BY['predictions']} --append") as claim:
        append.require_same_settings(
            uri, work_of(uri, "predictions") or {}, fields, bundle_uri=config.bundle_uri
        )
        answered = read_answered(uri, meta_fields(found.rows.schema))
        versions = source.versions_now(config, found.rows)
        growth = plan_growth(answered, found.rows, versions)
        is_current = work_of(uri, "predictions") == fields
        if growth.is_nothing and is_complete(uri) and is_current:
            Run(uri, claim).tidy()
            logger.info("%s: nothing is new", uri)
            return read_manifest(uri, "predictions")
        logger.info("predict: %s", growth)
        source.require_images(config, found.rows)
        if config.gpu_per_worker:
            require_gpus(config.gpu_per_worker)
        run = Run(uri, claim)
        new = append.begin(growth, inputs, images_per_unit=config.images_per_unit)
        _run_missing(config, run, new, executor)
        units = [*append.drop_former_answers(growth), *new]
        units.sort(key=lambda unit: part_number(unit.name))
        answer_files.delete_left_behind(uri)
        _replace_empty_events(config, labels, found.empty_events, units)
        replace_work(uri, "predictions", fields)
        manifest = _manifest(config, found, labels, inputs, n_images=growth.n_images)
        return _finish(config, run, manifest, units)


def _manifest(
    config: PredictConfig,
    found: source.Source,
    labels: LabelSpace,
    inputs: Mapping[str, str],
    *,
    n_images: int,
) -> Manifest:
    """The manifest without what is counted in the files; the table of findings is written."""
    findings_uri = storage.join(config.output_uri, FINDINGS_FILE)
    parquet.write_table(findings_uri, found.findings.table())
    return Manifest(
        kind="predictions",
        config=config.result_fields(),
        inputs=dict(inputs),
        rows_in=n_images,
        classes=labels.to_json(),
        meta=meta_fields(found.rows.schema),
        findings=dict(found.findings.counts),
    )


def _absolute(config: PredictConfig) -> PredictConfig:
    names = (
        *("bundle_uri", "output_uri", "images_uri", "csv_uri", "inventory_uri", "dataset_uri"),
        *("image_root_uri", "clock_corrections_uri"),
    )
    uris = {name: getattr(config, name) for name in names}
    return config.replaced(**{k: storage.absolute(v) for k, v in uris.items() if v is not None})


def _run_missing(
    config: PredictConfig, run: Run, units: list[Unit], executor: Executor | None
) -> None:
    n_rows = sum(unit.n_rows for unit in units)
    missing = missing_units(config.output_uri, units)
    progress = Progress("predict", n_rows)
    progress.skip(n_rows - sum(unit.n_rows for unit in missing))
    logger.info("predict: %d images in %d units", n_rows, len(units))
    job = Job(
        config.output_uri,
        run.claim,
        UnitScorer(config).make_worker,
        keeps_workers=True,
        n_workers=config.workers,
        gpus_per_worker=config.gpu_per_worker,
    )
    executor = executor or choose_executor(missing, gpus=config.gpu_per_worker)
    run_units(executor, missing, job, report=progress.add)
    progress.finish()


def _write_empty_events(
    config: PredictConfig, labels: LabelSpace, events: pa.Table | None, *, number: int
) -> None:
    """Answer, in a file behind those of the units, for events that name no image."""
    if events is not None and events.num_rows:
        logger.warning("%d events name no image: no prediction", events.num_rows)
        uri = storage.join(config.output_uri, part_name(EVENTS, number))
        is_top = config.top_k is not None
        parquet.write_table(uri, without_images(events, labels, is_top=is_top))


def _replace_empty_events(
    config: PredictConfig, labels: LabelSpace, events: pa.Table | None, units: list[Unit]
) -> None:
    """Answer for the events without images of this source, and of those before it."""
    uri, number = config.output_uri, 1 + max(part_number(unit.name) for unit in units)
    former, names = answer_files.read_empty_events(uri)
    is_top = config.top_k is not None
    found = [] if events is None else [without_images(events, labels, is_top=is_top)]
    if former is not None:
        if events is not None:
            ids = events["capture_event_id"].combine_chunks()
            former = former.filter(pc.invert(pc.is_in(former["capture_event_id"], value_set=ids)))
        found.append(former)
    if found:
        together = answer_files.without_events_of_images(uri, pa.concat_tables(found))
        _write_empty_events(config, labels, together, number=number)
    for name in names:
        if name != part_name(EVENTS, number):
            storage.delete_file(storage.join(uri, name))


def _finish(config: PredictConfig, run: Run, manifest: Manifest, units: list[Unit]) -> Manifest:
    labels = LabelSpace.from_json(manifest.classes)
    footers = read_footers(config.output_uri, units)
    table = read_failures(config.output_uri, footers)
    failures = count_failures(table)
    failures_uri = storage.join(config.output_uri, FAILURES_FILE)
    parquet.write_table(failures_uri, table)
    n_rows = sum(footer.n_rows for footer in footers)
    require_all_rows(config.output_uri, n_rows, manifest.rows_in)
    first = first_missing(table, config.image_root_uri)
    check_failures(failures_uri, failures, n_rows, config.max_failure_fraction, first_missing=first)
    _write_exports(config, labels, manifest.meta, units)
    counts = count_events(parquet.list_tables(storage.join(config.output_uri, EVENTS)), labels)
    finished = manifest.model_copy(
        update={
            "rows_out": n_rows,
            "failures": failures,
            "summary": {"events": counts.n_events, **counts.tables()},
        }
    )
    run.finish(finished)
    logger.info("wrote %d images, %d events to %s", n_rows, counts.n_events, config.output_uri)
    return finished


def _write_exports(
    config: PredictConfig, labels: LabelSpace, meta: Sequence[str], units: list[Unit]
) -> None:
    for kind in config.export:
        parts = _parts(config, units)
        match kind:
            case "csv":
                chunks = csv_chunks(parts, labels, meta)
            case "json":
                chunks = json_chunks(parts, labels, meta)
            case _:
                assert_never(kind)
        storage.write_chunks(storage.join(config.output_uri, f"predictions.{kind}"), chunks)


def _parts(config: PredictConfig, units: list[Unit]) -> Iterator[tuple[pa.Table, pa.Table]]:
    """The image and event rows of each unit, and of the events that name no image."""
    images = None
    for unit in units:
        images = parquet.read_table(storage.join(config.output_uri, unit.name))
        events = part_name(EVENTS, part_number(unit.name))
        yield images, parquet.read_table(storage.join(config.output_uri, events))
    empty, _ = answer_files.read_empty_events(config.output_uri)
    if images is not None and empty is not None:
        yield images.slice(0, 0), empty
