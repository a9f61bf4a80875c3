"""`ctc create-dataset`: decode and resize the images of an inventory into Parquet shards.

in:  INVENTORY
out: SHARD as split=<name>/part-NNNNN.parquet, _failures.parquet, _manifest.json
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import pyarrow.compute as pc

from ctc_ray.columns.threads import run_both
from ctc_ray.config.dataset import CreateDatasetConfig
from ctc_ray.console.progress import Progress
from ctc_ray.files import storage
from ctc_ray.runs.claim import claimed
from ctc_ray.runs.executor import Executor, Job, run_units
from ctc_ray.runs.failures import (
    Footer,
    check_failures,
    read_footers,
    require_all_rows,
    write_failures,
)
from ctc_ray.runs.finished_inventory import find_rows
from ctc_ray.runs.layout import WORK_FOLDER
from ctc_ray.runs.manifest import (
    MADE_BY,
    Manifest,
    is_complete,
    manifest_fingerprint,
    read_manifest,
)
from ctc_ray.runs.output_folder import Run, complete_already, open_run
from ctc_ray.runs.units import PlanWriter, Unit, missing_units
from ctc_ray.schemas import FAILURES_FILE
from ctc_ray.stages.cluster.in_process_or_ray import choose_executor
from ctc_ray.stages.create_dataset import estimate
from ctc_ray.stages.create_dataset import footers as report
from ctc_ray.stages.create_dataset.append import (
    ExistingDataset,
    extended_manifest,
    read_existing,
    require_fitting,
)
from ctc_ray.stages.create_dataset.image_root import require_image_root
from ctc_ray.stages.create_dataset.plan import (
    DatasetPlan,
    plan_dataset,
    rows_by_split,
    waiting_columns,
)
from ctc_ray.stages.create_dataset.planned_columns import read_columns
from ctc_ray.stages.create_dataset.shards import ShardMaker, about_dataset, decode_rows
from ctc_ray.stages.create_dataset.unit_order import plans_folder

logger = logging.getLogger(__name__)


def run(config: CreateDatasetConfig, *, executor: Executor | None = None) -> Manifest:
    """Do the units whose shard is missing; the manifest comes last. `check` writes nothing.

    Args:
        executor: runs the units; None: this process for a few, else Ray.
    """
    config = _absolute(config)
    if config.check is not None:
        return _check(config)
    with _prepared(config) as prepared:
        if isinstance(prepared, Manifest):
            return prepared
        _run_missing(prepared, executor)
        return _finish(prepared)


@dataclass(frozen=True)
class PreparedDataset:
    """A dataset of which everything is decided and no image has been read yet."""

    config: CreateDatasetConfig
    run: Run
    manifest: Manifest
    """The manifest without the counts that are read from the shards."""
    units: list[Unit]


@contextmanager
def _prepared(config: CreateDatasetConfig) -> Iterator[PreparedDataset | Manifest]:
    """All that comes before the first unit; the manifest if the dataset is complete already."""
    inventory = read_manifest(config.inventory_uri, "inventory")
    if config.append:
        with _prepared_append(config, inventory) as prepared:
            yield prepared
        return
    if config.overwrite or not is_complete(config.output_uri):
        require_image_root(config)
    plan = plan_dataset(config, read_columns(config, inventory), inventory)
    inputs = {config.inventory_uri: manifest_fingerprint(config.inventory_uri), **plan.inputs}
    fields = {**config.result_fields(), "inputs": inputs}
    with open_run(config.output_uri, "dataset", fields, overwrite=config.overwrite) as run:
        if isinstance(run, Manifest):
            yield run
            return
        units, summary = run_both(lambda: _write_units(config, plan), lambda: plan.summary)
        manifest = Manifest(
            kind="dataset",
            config=config.result_fields(),
            inputs=inputs,
            rows_in=plan.rows.num_rows,
            classes=plan.classes,
            meta=inventory.meta,
            summary=summary,
        )
        yield PreparedDataset(config, run, manifest, units)


def _check(config: CreateDatasetConfig) -> Manifest:
    require_image_root(config)
    inventory = read_manifest(config.inventory_uri, "inventory")
    if config.append:
        new = _new_events(config, inventory)
        if new is None:
            logger.info("%s has all these events already", config.output_uri)
            return read_manifest(config.output_uri, "dataset")
        plan = new[1]
    else:
        plan = plan_dataset(config, read_columns(config, inventory), inventory)
    return estimate.check(config, plan, inventory, decode_rows)


def _new_events(
    config: CreateDatasetConfig, inventory: Manifest
) -> tuple[ExistingDataset, DatasetPlan] | None:
    """The dataset that is to grow and what it grows by; None if nothing is new."""
    existing = read_existing(config)
    table = read_columns(config, inventory)
    if existing is None:
        return None
    n_other = existing.n_events_with_other_images(table["capture_event_id"])
    if n_other:
        logger.warning(
            "%s: %d events have another number of images than in the dataset, where they stay as "
            "they are; create it anew to have these images",
            config.inventory_uri,
            n_other,
        )
    if existing.has_all(table["capture_event_id"]):
        return None
    fixed = existing.splits_of_locations if config.split.by == "location" else None
    plan = plan_dataset(config, table, inventory, fixed=fixed, already=existing.events)
    require_fitting(existing, plan, inventory)
    return existing, plan


@contextmanager
def _prepared_append(
    config: CreateDatasetConfig, inventory: Manifest
) -> Iterator[PreparedDataset | Manifest]:
    if read_existing(config) is None:  # a folder that is only read must not be claimed
        yield complete_already(config.output_uri, "dataset")
        return
    with claimed(config.output_uri, f"{MADE_BY['dataset']} --append") as claim:
        new = _new_events(config, inventory)
        if new is None:
            logger.info("%s is complete already", config.output_uri)
            yield read_manifest(config.output_uri, "dataset")
            return
        require_image_root(config)
        existing, plan = new
        manifest, plans = extended_manifest(existing, config, plan)
        units = _write_units(config, plan, first=existing.n_units, plans=plans)
        units = sorted([*existing.units, *units], key=lambda unit: unit.name)
        yield PreparedDataset(config, Run(config.output_uri, claim), manifest, units)


def _absolute(config: CreateDatasetConfig) -> CreateDatasetConfig:
    root, mapping = config.image_root_uri, config.mapping_uri
    return config.replaced(
        inventory_uri=storage.absolute(config.inventory_uri),
        output_uri=storage.absolute(config.output_uri),
        image_root_uri=None if root is None else storage.absolute(root),
        mapping_uri=None if mapping is None else storage.absolute(mapping),
    )


def _write_units(
    config: CreateDatasetConfig,
    plan: DatasetPlan,
    *,
    first: Callable[[str], int] = lambda _: 0,
    plans: str = WORK_FOLDER,
) -> list[Unit]:
    """Write the plan files of all units, split by split.

    Args:
        first: split -> number of its first unit.
        plans: folder for the plan files, below the output folder.
    """
    folders = {name: f"split={name}" for name in sorted(pc.unique(plan.splits).to_pylist())}
    plans, is_by_hash = plans_folder(config.output_uri, plans, list(folders.values()))
    writers: Mapping[str, PlanWriter] = {
        name: PlanWriter(
            config.output_uri,
            folder,
            config.images_per_unit,
            first=first(name),
            plans=plans,
            columns=waiting_columns(config.heads),
        )
        for name, folder in folders.items()
    }
    for name, rows in rows_by_split(plan, plan.events(is_by_hash=is_by_hash)):
        writers[name].add(rows)
    return [unit for writer in writers.values() for unit in writer.finish()]


def _run_missing(prepared: PreparedDataset, executor: Executor | None) -> None:
    config, manifest, units = prepared.config, prepared.manifest, prepared.units
    n_rows = manifest.rows_in
    missing = missing_units(config.output_uri, units)
    progress = Progress("create-dataset", n_rows)
    progress.skip(n_rows - sum(unit.n_rows for unit in missing))
    logger.info("create-dataset: %d images in %d shards", n_rows, len(units))
    if len(missing) < len(units):
        logger.info("%d shards are there already", len(units) - len(missing))
    inventory = find_rows(config.inventory_uri)
    maker = ShardMaker(config, inventory, tuple(manifest.meta), about_dataset(config, manifest))
    job = Job(config.output_uri, prepared.run.claim, maker.make_worker)
    run_units(executor or choose_executor(missing), missing, job, report=progress.add)
    progress.finish()


def _write_failures(
    config: CreateDatasetConfig, footers: list[Footer], n_rows: int
) -> dict[str, int]:
    """Write the failures table; an append that fails leaves that of the dataset as it is."""
    uri = storage.join(config.output_uri, FAILURES_FILE)
    aside = storage.join(config.output_uri, WORK_FOLDER, "append", FAILURES_FILE)
    first = aside if config.append else uri
    failures = write_failures(first, config.output_uri, footers)
    check_failures(
        first, failures, n_rows, config.max_failure_fraction, root_uri=config.image_root_uri
    )
    if config.append:
        storage.write_bytes(uri, storage.read_bytes(aside))
    return failures.counts


def _finish(prepared: PreparedDataset) -> Manifest:
    config, manifest = prepared.config, prepared.manifest
    footers = read_footers(config.output_uri, prepared.units)
    n_rows = sum(footer.n_rows for footer in footers)
    require_all_rows(config.output_uri, n_rows, manifest.rows_in)
    failures = _write_failures(config, footers, n_rows)
    shards = [report.shard_record(footer) for footer in footers]
    labels = report.label_counts(manifest, footers)
    finished = manifest.model_copy(
        update={
            "rows_out": n_rows,
            "failures": failures,
            "shards": shards,
            "labels": labels,
            "pixels": report.pixel_sums(footers),
            "splits": report.split_counts(shards),
            "summary": manifest.summary | report.label_tables(labels),
        }
    )
    prepared.run.finish(finished)
    logger.info(
        "wrote %d images, %d failures to %s", n_rows, sum(failures.values()), config.output_uri
    )
    return finished
