"""`ctc create-dataset`: decode and resize the images of an inventory into Parquet shards.

in:  INVENTORY
out: SHARD as split=<name>/part-NNNNN.parquet, _failures.parquet, manifest.json
"""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc

from ctc_ray import __version__
from ctc_ray.columns.event_runs import cut_by_events
from ctc_ray.columns.threads import run_both
from ctc_ray.config.dataset import CreateDatasetConfig
from ctc_ray.console.progress import Progress
from ctc_ray.files import parquet, storage
from ctc_ray.files.prefetch import read_ahead
from ctc_ray.images.resize import ShardImage, to_shard_jpeg
from ctc_ray.runs.failures import check_failures, read_footers, write_failures
from ctc_ray.runs.manifest import Manifest, is_complete, manifest_fingerprint, read_manifest
from ctc_ray.runs.output_folder import begin_work, finish_work
from ctc_ray.runs.units import PlanWriter, Unit, missing_units, read_unit
from ctc_ray.schemas import SCHEMA_VERSION, Failure, conform, shard_schema
from ctc_ray.stages.cluster.executor import run_units
from ctc_ray.stages.create_dataset import estimate
from ctc_ray.stages.create_dataset import footers as report
from ctc_ray.stages.create_dataset.append import Base, grown, read_base, require_fitting
from ctc_ray.stages.create_dataset.image_root import require_image_root
from ctc_ray.stages.create_dataset.inventory_rows import InventoryRows, find_rows, read_columns
from ctc_ray.stages.create_dataset.plan import (
    DatasetPlan,
    plan_dataset,
    rows_by_split,
    waiting_columns,
    whole_rows,
)

logger = logging.getLogger(__name__)

_IMAGES_PER_ROW_GROUP = 128  # about 4 MB of JPEG: what a training worker reads at once
# of a shard's footer
_ABOUT_KEY = "ctc_dataset"


def run(config: CreateDatasetConfig) -> Manifest:
    """Do the units whose shard is missing; the manifest comes last. `check` writes nothing."""
    if config.check is not None:
        return _check(config)
    begun = prepare(config)
    if begun is None:
        logger.info("%s is complete already", config.output_uri)
        return read_manifest(config.output_uri, "dataset")
    _run_missing(begun.config, begun.manifest, begun.units, begun.manifest.rows_in)
    return _finish(begun.config, begun.manifest, begun.units)


@dataclass(frozen=True)
class Begun:
    """A dataset of which all is decided and no image is read."""

    config: CreateDatasetConfig
    manifest: Manifest
    units: list[Unit]


def prepare(config: CreateDatasetConfig) -> Begun | None:
    """All that comes before the first unit; None if the dataset is complete already."""
    config = _absolute(config)
    inventory = read_manifest(config.inventory_uri, "inventory")
    if config.append:
        return _prepare_append(config, inventory)
    if config.overwrite or not is_complete(config.output_uri):
        require_image_root(config)
    plan = plan_dataset(config, read_columns(config), inventory)
    inputs = {config.inventory_uri: manifest_fingerprint(config.inventory_uri), **plan.inputs}
    work = {**config.work(), "inputs": inputs}
    if begin_work(config.output_uri, "dataset", work, overwrite=config.overwrite):
        return None
    writers = {
        name: PlanWriter(
            config.output_uri,
            f"split={name}",
            config.images_per_unit,
            columns=waiting_columns(config.heads),
        )
        for name in _splits(plan)
    }
    units, counts = run_both(lambda: _units(plan, writers), lambda: plan.counts)
    manifest = Manifest(
        kind="dataset",
        config=config.work(),
        inputs=inputs,
        rows_in=plan.rows.num_rows,
        classes=plan.labels.to_json(),
        meta=inventory.meta,
        counts=counts,
    )
    return Begun(config, manifest, units)


def _check(config: CreateDatasetConfig) -> Manifest:
    config = _absolute(config)
    require_image_root(config)
    inventory = read_manifest(config.inventory_uri, "inventory")
    if config.append:
        new = _new_events(config, inventory)
        if new is None:
            logger.info("%s has all these events already", config.output_uri)
            return read_manifest(config.output_uri, "dataset")
        plan = new[1]
    else:
        plan = plan_dataset(config, read_columns(config), inventory)
    return estimate.check(config, plan, inventory, decode_rows)


def _new_events(
    config: CreateDatasetConfig, inventory: Manifest
) -> tuple[Base, DatasetPlan] | None:
    """The dataset that is to grow and what it grows by; None if nothing is new."""
    base = read_base(config)
    table = read_columns(config)
    if base is None:
        return None
    n_other = base.n_events_with_other_images(table["capture_event_id"])
    if n_other:
        logger.warning(
            "%s: %d events have another number of images than in the dataset, where they stay as "
            "they are; create it anew to have these images",
            config.inventory_uri,
            n_other,
        )
    if base.has_all(table["capture_event_id"]):
        return None
    fixed = base.splits_of_locations if config.split.by == "location" else None
    plan = plan_dataset(config, table, inventory, fixed=fixed, already=base.events)
    require_fitting(base, plan, inventory)
    return base, plan


def _prepare_append(config: CreateDatasetConfig, inventory: Manifest) -> Begun | None:
    new = _new_events(config, inventory)
    if new is None:
        return None
    require_image_root(config)
    base, plan = new
    manifest, plans = grown(base, config, plan)
    writers = {
        name: PlanWriter(
            config.output_uri,
            f"split={name}",
            config.images_per_unit,
            first=base.n_units(name),
            plans=plans,
            columns=waiting_columns(config.heads),
        )
        for name in _splits(plan)
    }
    units = [*base.units, *_units(plan, writers)]
    return Begun(config, manifest, sorted(units, key=lambda unit: unit.name))


def _splits(plan: DatasetPlan) -> list[str]:
    return sorted(pc.unique(plan.splits).to_pylist())


def _absolute(config: CreateDatasetConfig) -> CreateDatasetConfig:
    root, mapping = config.image_root_uri, config.mapping_uri
    return config.replaced(
        inventory_uri=storage.absolute(config.inventory_uri),
        output_uri=storage.absolute(config.output_uri),
        image_root_uri=None if root is None else storage.absolute(root),
        mapping_uri=None if mapping is None else storage.absolute(mapping),
    )


def _units(plan: DatasetPlan, writers: Mapping[str, PlanWriter]) -> list[Unit]:
    """Lay all units ready, split by split."""
    for name, rows in rows_by_split(plan):
        writers[name].add(rows)
    return [unit for writer in writers.values() for unit in writer.finish()]


def _run_missing(
    config: CreateDatasetConfig, manifest: Manifest, units: list[Unit], n_rows: int
) -> None:
    missing = missing_units(config.output_uri, units)
    progress = Progress("create-dataset", n_rows)
    progress.skip(n_rows - sum(unit.n_rows for unit in missing))
    logger.info("create-dataset: %d images in %d shards", n_rows, len(units))
    if len(missing) < len(units):
        logger.info("%d shards are there already", len(units) - len(missing))
    inventory = find_rows(config.inventory_uri)
    work = partial(write_shard, config, inventory, tuple(manifest.meta), _about(config, manifest))
    run_units(missing, work, progress=progress)
    progress.finish()


def _about(config: CreateDatasetConfig, manifest: Manifest) -> str:
    """What a shard says about itself, as JSON: it is understood without its dataset."""
    return json.dumps(
        {
            "schema_version": SCHEMA_VERSION,
            "ctc_version": __version__,
            "inventory_fingerprint": manifest.inputs[config.inventory_uri],
            "resize": config.resize.model_dump(mode="json"),
            "heads": list(manifest.classes),
            "classes": manifest.classes,
        },
        ensure_ascii=False,
    )


def write_shard(
    config: CreateDatasetConfig,
    inventory: InventoryRows,
    meta: Sequence[str],
    about: str,
    unit: Unit,
) -> dict[str, int]:
    """Decode, resize and commit the images of one unit; the counts of rows and failures."""
    inventory.require_unchanged()
    rows = whole_rows(read_unit(config.output_uri, unit), inventory, config.heads, meta)
    images = decode_rows(config, rows)
    shard = conform(_with_images(rows, images), shard_schema(config.heads, meta), where=unit.name)
    cuts = cut_by_events(shard["capture_event_id"], _IMAGES_PER_ROW_GROUP)
    groups = [shard.slice(start, stop - start) for start, stop in cuts]
    parquet.write_row_groups(
        storage.join(config.output_uri, unit.name),
        groups,
        metadata={
            _ABOUT_KEY: about,
            **report.footer_counts(groups, config.heads),
        },
        raw_column="jpeg",
    )
    n_failed = sum(isinstance(image, Failure) for image in images)
    return {"n_rows": shard.num_rows, "n_failed": n_failed}


def decode_rows(config: CreateDatasetConfig, rows: pa.Table) -> list[ShardImage | Failure]:
    """The images of the rows as a shard holds them."""
    uris = [storage.under_root(config.image_root_uri, uri) for uri in rows["image_uri"].to_pylist()]
    return [
        raw
        if isinstance(raw, Failure)
        else to_shard_jpeg(
            raw,
            smallest_side=config.resize.smallest_side,
            quality=config.resize.quality,
            max_pixels=config.max_pixels,
            truncated=config.truncated,
            reencode_small=config.resize.reencode_small,
        )
        for raw in read_ahead(uris, config.threads_per_task)
    ]


def _with_images(rows: pa.Table, images: Sequence[ShardImage | Failure]) -> pa.Table:
    def column(name: str, kind: pa.DataType) -> pa.Array:
        return pa.array([getattr(image, name, None) for image in images], kind)

    failures = [image.value if isinstance(image, Failure) else None for image in images]
    return (
        rows.append_column("jpeg", column("jpeg", pa.binary()))
        .append_column("width", column("width", pa.int32()))
        .append_column("height", column("height", pa.int32()))
        .append_column("failure", pa.array(failures, pa.string()))
    )


def _finish(config: CreateDatasetConfig, manifest: Manifest, units: list[Unit]) -> Manifest:
    footers = read_footers(config.output_uri, units)
    failures = write_failures(config.output_uri, footers)
    n_rows = sum(footer.n_rows for footer in footers)
    check_failures(config.output_uri, failures, n_rows, config.max_failure_fraction)
    shards = [report.shard_entry(footer) for footer in footers]
    labels = report.label_counts(manifest, footers)
    finished = manifest.model_copy(
        update={
            "rows_out": n_rows,
            "failures": failures,
            "shards": shards,
            "labels": labels,
            "counts": report.split_counts(shards) | manifest.counts | report.label_tables(labels),
        }
    )
    finish_work(config.output_uri, finished)
    logger.info(
        "wrote %d images, %d failures to %s", n_rows, sum(failures.values()), config.output_uri
    )
    return finished
