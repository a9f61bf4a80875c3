"""`ctc predict`: answer for every image and every capture event.

A worker decodes and scores a unit and commits it. A unit is scored in batches of the same images in
every run, so the answers are equal to the last bit, whichever worker gives them.

in:  a bundle, and images (a folder, a csv, an INVENTORY, or the SHARDs of a dataset)
out: PREDICTION as images/part-NNNNN.parquet, EVENT_PREDICTION as events/part-NNNNN.parquet,
     metrics.json where the images are labelled, files of --export, _versions/part-NNNNN.parquet
     (of the files that were read), _failures.parquet, _findings.parquet, _manifest.json
"""

import logging
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from ctc_ray.config.prediction import PredictConfig
from ctc_ray.console.progress import Progress
from ctc_ray.files import parquet, storage
from ctc_ray.labels import LabelSpace
from ctc_ray.models.bundle import load_bundle
from ctc_ray.predictions.event_counts import count_events
from ctc_ray.predictions.events import without_images
from ctc_ray.runs.claim import claimed
from ctc_ray.runs.executor import Executor, Job, run_units
from ctc_ray.runs.failures import (
    check_failures,
    read_footers,
    require_all_rows,
    write_failures,
)
from ctc_ray.runs.manifest import MADE_BY, Manifest, is_complete, read_manifest
from ctc_ray.runs.output_folder import Run, is_begun, open_run, replace_work, work_of
from ctc_ray.runs.units import PlanWriter, Unit, missing_units
from ctc_ray.schemas import (
    FAILURES_FILE,
    FINDINGS_FILE,
    labelled_heads,
    meta_fields,
)
from ctc_ray.stages.cluster.in_process_or_ray import choose_executor, require_gpus
from ctc_ray.stages.predict import answer_files, append
from ctc_ray.stages.predict import sources as source
from ctc_ray.stages.predict.about import AnsweringModel, describe_model
from ctc_ray.stages.predict.answer_files import ABOUT_KEY, EVENTS, IMAGES, part_name, part_number
from ctc_ray.stages.predict.counts import write_metrics
from ctc_ray.stages.predict.engine import network_of
from ctc_ray.stages.predict.export_files import formats_there, lacks_exports, write_exports
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
    model = describe_model(config, bundle)
    found = source.read_source(config, model.labels)
    inputs = {config.bundle_uri: model.record.fingerprint, **source.fingerprints(config, found)}
    fields = {**config.result_fields(), "inputs": inputs}
    if config.append and is_begun(config.output_uri):
        return _append(config, found, model, fields, executor)
    if not config.overwrite:
        append.require_unchanged(config, fields, found)
        if _lacks_only_exports(config, model, fields):
            return _export_more(config, model)
    if config.overwrite or not is_complete(config.output_uri):
        _require_inputs(config, found)
    with open_run(config.output_uri, "predictions", fields, overwrite=config.overwrite) as run:
        if isinstance(run, Manifest):
            return run
        units, n_ambiguous = _plan(config, found)
        _run_missing(config, model, run, units, executor, n_images=found.n_images)
        if found.empty_events is not None:
            empty = without_images(
                found.empty_events.rows,
                model.labels,
                labelled=labelled_heads(found.schema, model.labels.heads),
                is_top=config.top_k is not None,
            )
            _write_empty_events(config, model, empty, number=len(units))
        n_images = sum(unit.n_rows for unit in units)
        manifest = _manifest(config, found, model, inputs, n_images=n_images)
        return _finish(config, run, _with_ambiguous(manifest, n_ambiguous), units)


def _require_inputs(config: PredictConfig, found: source.Source) -> None:
    """Check that the images and the GPUs of a run are there."""
    source.require_images(config, found)
    if config.gpu_per_worker:
        require_gpus(config.gpu_per_worker, cpus=config.cpu_per_worker or 1)


def _plan(config: PredictConfig, found: source.Source) -> tuple[list[Unit], Counter[str]]:
    """The units of all images; head -> events with several labels. A part is in memory."""
    writer = PlanWriter(config.output_uri, IMAGES, config.images_per_unit)
    n_ambiguous = Counter[str]()
    for part in found.read_parts():
        writer.add(part.rows)
        n_ambiguous.update(part.n_ambiguous)
    if found.empty_events is not None:
        n_ambiguous.update(found.empty_events.n_ambiguous)
    return writer.finish(), n_ambiguous


def _with_ambiguous(manifest: Manifest, n_ambiguous: Mapping[str, int]) -> Manifest:
    ambiguous = {head: n for head, n in n_ambiguous.items() if n}
    summary = {"events with several labels": ambiguous} if ambiguous else {}
    return manifest.model_copy(update={"summary": summary})


def _append(
    config: PredictConfig,
    found: source.Source,
    model: AnsweringModel,
    fields: Mapping[str, Any],
    executor: Executor | None,
) -> Manifest:
    """Answer for what is new or replaced; see `append`."""
    uri, inputs = config.output_uri, fields["inputs"]
    formats = [*config.export, *formats_there(uri, model.labels)]
    config = config.replaced(export=tuple(dict.fromkeys(formats)))
    with claimed(uri, f"{MADE_BY['predictions']} --append") as claim:
        append.require_same_settings(
            uri, work_of(uri, "predictions") or {}, fields, bundle_uri=config.bundle_uri
        )
        answered, whole = read_answered(uri, found.schema), found.whole()
        growth = plan_growth(answered, whole.rows, source.versions_now(config, whole.rows))
        is_current = work_of(uri, "predictions") == fields
        if growth.is_nothing and is_complete(uri) and is_current:
            logger.info("%s: nothing is new", uri)
            return _with_exports(config, model, Run(uri, claim))
        logger.info("predict: %s", growth)
        _require_inputs(config, found)
        run = Run(uri, claim)
        new = append.begin(growth, inputs, images_per_unit=config.images_per_unit)
        _run_missing(config, model, run, new, executor, n_images=found.n_images)
        units = [*append.drop_former_answers(growth), *new]
        units.sort(key=lambda unit: part_number(unit.name))
        answer_files.delete_left_behind(uri)
        former, names = answer_files.read_empty_events(uri)
        empty = [
            without_images(
                events, model.labels, labelled=answered.labelled, is_top=config.top_k is not None
            )
            for events in (found.empty_events and found.empty_events.rows, former)
            if events is not None
        ]
        _replace_empty_events(config, model, empty, names, units)
        replace_work(uri, "predictions", fields)
        manifest = _manifest(config, found, model, inputs, n_images=growth.n_images)
        return _finish(config, run, _with_ambiguous(manifest, whole.n_ambiguous), units)


def _lacks_only_exports(
    config: PredictConfig, model: AnsweringModel, fields: Mapping[str, Any]
) -> bool:
    uri = config.output_uri
    is_finished = is_complete(uri) and work_of(uri, "predictions") == fields
    return is_finished and lacks_exports(uri, config.export, model.labels)


def _export_more(config: PredictConfig, model: AnsweringModel) -> Manifest:
    """Write further files of finished predictions."""
    with claimed(config.output_uri, MADE_BY["predictions"]) as claim:
        return _with_exports(config, model, Run(config.output_uri, claim))


def _with_exports(config: PredictConfig, model: AnsweringModel, run: Run) -> Manifest:
    """The manifest of finished predictions, when their files of `export` are there."""
    if lacks_exports(config.output_uri, config.export, model.labels):
        logger.info("predict: writing %s", ", ".join(config.export))
        names = answer_files.list_parts(config.output_uri, IMAGES)
        write_exports(config.output_uri, names, config.export, model.labels)
    run.tidy()
    return read_manifest(config.output_uri, "predictions")


def _manifest(
    config: PredictConfig,
    found: source.Source,
    model: AnsweringModel,
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
        classes=model.labels.to_json(),
        model=model.record,
        meta=meta_fields(found.schema),
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
    config: PredictConfig,
    model: AnsweringModel,
    run: Run,
    units: list[Unit],
    executor: Executor | None,
    *,
    n_images: int,
) -> None:
    """Do the units that have no answers.

    Args:
        n_images: of the source, those that have an answer included.
    """
    n_rows = sum(unit.n_rows for unit in units)
    missing = missing_units(config.output_uri, units)
    progress = Progress("predict", n_rows)
    progress.skip(n_rows - sum(unit.n_rows for unit in missing))
    logger.info("predict: %d images in %d units", n_rows, len(units))
    if not missing:
        return
    network = network_of(config, model.bundle, n_images=n_images)
    job = Job(
        config.output_uri,
        run.claim,
        UnitScorer(config, model.about, network).make_worker,
        keeps_workers=True,
        n_workers=config.workers,
        cpus_per_worker=config.cpu_per_worker,
        gpus_per_worker=config.gpu_per_worker,
    )
    executor = executor or choose_executor(missing, gpus=config.gpu_per_worker, keeps_workers=True)
    run_units(executor, missing, job, report=progress.add)
    progress.finish()


def _write_empty_events(
    config: PredictConfig, model: AnsweringModel, events: pa.Table, *, number: int
) -> None:
    """Answer, in a file behind those of the units, for events that name no image."""
    if events.num_rows:
        logger.warning("%d events name no image: no prediction", events.num_rows)
        uri = storage.join(config.output_uri, part_name(EVENTS, number))
        parquet.write_table(uri, events.replace_schema_metadata({ABOUT_KEY: model.about}))


def _replace_empty_events(
    config: PredictConfig,
    model: AnsweringModel,
    found: list[pa.Table],
    former: list[str],
    units: list[Unit],
) -> None:
    """Answer for the events without images of this source, and of those before it.

    Args:
        found: their predictions. Of an event that is in several tables, the first is valid.
        former: the files that hold predictions of such events.
    """
    uri, number = config.output_uri, 1 + max(part_number(unit.name) for unit in units)
    if found:
        together = pa.concat_tables(found)
        ids = together["capture_event_id"].to_pylist()
        first = dict(zip(reversed(ids), reversed(range(len(ids))), strict=True))
        together = together.take(pa.array(sorted(first.values()), pa.int64()))
        together = answer_files.without_events_of_images(uri, together)
        _write_empty_events(config, model, together, number=number)
    for name in former:
        if name != part_name(EVENTS, number):
            storage.delete_file(storage.join(uri, name))


def _finish(config: PredictConfig, run: Run, manifest: Manifest, units: list[Unit]) -> Manifest:
    labels = LabelSpace.from_json(manifest.classes)
    footers = read_footers(config.output_uri, units)
    failures_uri = storage.join(config.output_uri, FAILURES_FILE)
    failures = write_failures(failures_uri, config.output_uri, footers)
    n_rows = sum(footer.n_rows for footer in footers)
    require_all_rows(config.output_uri, n_rows, manifest.rows_in)
    check_failures(
        failures_uri, failures, n_rows, config.max_failure_fraction, root_uri=config.image_root_uri
    )
    names = [unit.name for unit in units]
    write_exports(config.output_uri, names, config.export, labels)
    with parquet.open_parquet(storage.join(config.output_uri, names[0])) as file:
        labelled = labelled_heads(file.schema_arrow, labels.heads)
    counts = count_events(parquet.list_tables(storage.join(config.output_uri, EVENTS)), labels)
    measured = write_metrics(config.output_uri, labels, labelled)
    finished = manifest.model_copy(
        update={
            "rows_out": n_rows,
            "failures": failures.counts,
            "summary": {
                "events": counts.n_events,
                **counts.tables(),
                **manifest.summary,
                **measured,
            },
        }
    )
    run.finish(finished)
    logger.info("wrote %d images, %d events to %s", n_rows, counts.n_events, config.output_uri)
    return finished
