"""`ctc create-dataset`: decode and resize the images of an inventory into Parquet shards.

in:  INVENTORY
out: SHARD as split=<name>/part-NNNNN.parquet, _failures.parquet, manifest.json
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ctc_ray import __version__, logs, storage, tables
from ctc_ray.config.dataset import CreateDatasetConfig
from ctc_ray.images.resize import ShardImage, to_shard_jpeg
from ctc_ray.manifest import Manifest, manifest_fingerprint, read_manifest
from ctc_ray.schemas import SCHEMA_VERSION, Failure, conform, label_column, shard_schema
from ctc_ray.stages import runtime
from ctc_ray.stages.dataset_plan import DatasetPlan, plan_dataset, planned_rows, read_columns
from ctc_ray.units import (
    PlanWriter,
    Unit,
    cut_by_events,
    event_starts,
    missing_units,
    read_unit,
)
from ctc_ray.work import begin_work, finish_work

logger = logging.getLogger(__name__)

_IMAGES_PER_ROW_GROUP = 128  # about 4 MB of JPEG: what a training worker reads at once
# of a shard's footer
_ABOUT_KEY, _GROUPS_KEY, _LABELS_KEY = "ctc_dataset", "ctc_row_groups", "ctc_labels"


def run(config: CreateDatasetConfig) -> Manifest:
    """Do the units whose shard is missing; the manifest comes last."""
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
    plan = plan_dataset(config, read_columns(config), inventory)
    inputs = {config.inventory_uri: manifest_fingerprint(config.inventory_uri), **plan.inputs}
    work = {**config.work(), "inputs": inputs}
    if begin_work(config.output_uri, "dataset", work, overwrite=config.overwrite):
        return None
    manifest = Manifest(
        kind="dataset",
        config=config.work(),
        inputs=inputs,
        rows_in=plan.rows.num_rows,
        classes=plan.labels.to_json(),
        meta=inventory.meta,
        counts=plan.counts,
    )
    return Begun(config, manifest, _units(config, plan, inventory))


def _absolute(config: CreateDatasetConfig) -> CreateDatasetConfig:
    root, mapping = config.image_root_uri, config.mapping_uri
    return config.replaced(
        inventory_uri=storage.absolute(config.inventory_uri),
        output_uri=storage.absolute(config.output_uri),
        image_root_uri=None if root is None else storage.absolute(root),
        mapping_uri=None if mapping is None else storage.absolute(mapping),
    )


def _units(config: CreateDatasetConfig, plan: DatasetPlan, inventory: Manifest) -> list[Unit]:
    """Lay all units ready, split by split in the order of their names."""
    writers = {
        name: PlanWriter(config.output_uri, f"split={name}", config.images_per_unit)
        for name in sorted(pc.unique(plan.splits).to_pylist())
    }
    for name, rows in planned_rows(config, plan, inventory):
        writers[name].add(rows)
    return [unit for writer in writers.values() for unit in writer.finish()]


def _run_missing(
    config: CreateDatasetConfig, manifest: Manifest, units: list[Unit], n_rows: int
) -> None:
    missing = missing_units(config.output_uri, units)
    progress = logs.Progress("create-dataset", n_rows)
    progress.skip(n_rows - sum(unit.n_rows for unit in missing))
    logger.info("create-dataset: %d images in %d shards", n_rows, len(units))
    if len(missing) < len(units):
        logger.info("%d shards are there already", len(units) - len(missing))
    work = partial(write_shard, config, tuple(manifest.meta), _about(config, manifest))
    runtime.run_units(missing, work, progress=progress)
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
    config: CreateDatasetConfig, meta: Sequence[str], about: str, unit: Unit
) -> dict[str, int]:
    """Decode, resize and commit the images of one unit; the counts of rows and failures."""
    rows = read_unit(config.output_uri, unit)
    uris = [storage.under_root(config.image_root_uri, uri) for uri in rows["image_uri"].to_pylist()]
    images: list[ShardImage | Failure] = [
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
        for raw in runtime.read_ahead(uris, config.threads_per_task)
    ]
    shard = conform(_with_images(rows, images), shard_schema(config.heads, meta), where=unit.name)
    cuts = cut_by_events(shard["capture_event_id"], _IMAGES_PER_ROW_GROUP)
    groups = [shard.slice(start, stop - start) for start, stop in cuts]
    tables.write_row_groups(
        storage.join(config.output_uri, unit.name),
        groups,
        metadata={
            _ABOUT_KEY: about,
            _GROUPS_KEY: json.dumps([_group_counts(group) for group in groups]),
            _LABELS_KEY: json.dumps(_label_counts(shard, config.heads)),
        },
        raw_column="jpeg",
    )
    n_failed = sum(isinstance(image, Failure) for image in images)
    return {"n_rows": shard.num_rows, "n_failed": n_failed}


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


def _group_counts(group: pa.Table) -> list[int]:
    """Images, events, events with a usable image, usable images: training plans epochs by it."""
    starts = event_starts(group["capture_event_id"])
    usable = pc.is_null(group["failure"]).to_numpy().astype(np.int64)
    usable_events = np.count_nonzero(np.add.reduceat(usable, starts))
    return [group.num_rows, len(starts), int(usable_events), int(usable.sum())]


def _label_counts(shard: pa.Table, heads: Sequence[str]) -> dict[str, dict[str, int]]:
    """Head -> class -> usable images with this label."""
    usable = shard.filter(pc.is_null(shard["failure"]))
    return {
        head: {
            found["values"]: found["counts"]
            for found in pc.value_counts(usable[label_column(head)].drop_null()).to_pylist()
        }
        for head in heads
    }


def _finish(config: CreateDatasetConfig, manifest: Manifest, units: list[Unit]) -> Manifest:
    footers = runtime.read_footers(config.output_uri, units)
    failures = runtime.write_failures(config.output_uri, footers)
    n_rows = sum(footer.n_rows for footer in footers)
    runtime.check_failures(config.output_uri, failures, n_rows, config.max_failure_fraction)
    shards = [
        {
            "path": footer.name,
            "split": _split(footer),
            "n_images": footer.n_rows,
            "n_failed": footer.n_failed,
            "groups": json.loads(footer.metadata[_GROUPS_KEY]),
        }
        for footer in footers
    ]
    finished = manifest.model_copy(
        update={
            "rows_out": n_rows,
            "failures": failures,
            "shards": shards,
            "labels": (labels := _labels(manifest, footers)),
            "counts": _counts(shards) | manifest.counts | _label_tables(labels),
        }
    )
    finish_work(config.output_uri, finished)
    logger.info(
        "wrote %d images, %d failures to %s", n_rows, sum(failures.values()), config.output_uri
    )
    return finished


def _labels(
    manifest: Manifest, footers: Sequence[runtime.Footer]
) -> dict[str, dict[str, dict[str, int]]]:
    """Split -> head -> class -> usable images; every class is named in every split."""
    labels: dict[str, dict[str, dict[str, int]]] = {}
    for footer in footers:
        split = labels.setdefault(
            _split(footer), {h: dict.fromkeys(names, 0) for h, names in manifest.classes.items()}
        )
        for head, counts in json.loads(footer.metadata[_LABELS_KEY]).items():
            for name, n in counts.items():
                split[head][name] += n
    return labels


def _label_tables(labels: dict[str, dict[str, dict[str, int]]]) -> dict[str, Any]:
    heads = next(iter(labels.values()))
    return {
        f"usable images per class of {head}": [
            {"class": name, **{split: counts[head][name] for split, counts in labels.items()}}
            for name in heads[head]
        ]
        for head in heads
    }


def _split(footer: runtime.Footer) -> str:
    return footer.name.partition("/")[0].removeprefix("split=")


def _counts(shards: list[dict[str, Any]]) -> dict[str, Any]:
    splits: dict[str, dict[str, int]] = {}
    for shard in shards:
        counts = splits.setdefault(shard["split"], {"images": 0, "events": 0, "failed": 0})
        counts["images"] += shard["n_images"]
        counts["events"] += sum(group[1] for group in shard["groups"])
        counts["failed"] += shard["n_failed"]
    return {
        "shards": len(shards),
        "splits": [{"split": name, **counts} for name, counts in splits.items()],
    }
