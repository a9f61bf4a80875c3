"""A finished dataset that grows: the new events of another inventory become further shards.

A helper of `ctc create-dataset --append`. What is there stays as it is, byte for byte; the old
manifest is true until the new one replaces it, so a reader never sees half of an append.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ctc_ray.columns.factorize import factorize
from ctc_ray.config.dataset import CreateDatasetConfig
from ctc_ray.errors import ConfigError
from ctc_ray.files import parquet, storage
from ctc_ray.runs.append_journal import begin_append, end_append, growing_by
from ctc_ray.runs.layout import WORK_FOLDER
from ctc_ray.runs.manifest import Manifest, manifest_fingerprint, read_manifest
from ctc_ray.runs.output_folder import difference
from ctc_ray.runs.records import AppendRecord
from ctc_ray.runs.units import Unit
from ctc_ray.schemas import label_column
from ctc_ray.splits.report import (
    IMAGE_COLUMN,
    classes_not_in_every_split,
    files_with_several_labels,
    leakage,
    split_shares,
)
from ctc_ray.stages.create_dataset.plan import DatasetPlan
from ctc_ray.stages.create_dataset.planned_columns import with_image_hashes


@dataclass(frozen=True)
class ExistingDataset:
    """The dataset as it is before it grows."""

    uri: str
    manifest: Manifest

    @cached_property
    def _rows(self) -> pa.Table:
        names = _counted_columns(self.manifest)
        parts = []
        for shard in self.manifest.shards:
            rows = parquet.read_table(storage.join(self.uri, shard.path), [*names, "image_uri"])
            rows = with_image_hashes(rows)
            split = pa.array([shard.split] * rows.num_rows, pa.string())
            parts.append(rows.append_column("split", split))
        return pa.concat_tables(parts)

    def with_new(self, plan: DatasetPlan) -> tuple[pa.Table, pa.ChunkedArray]:
        """Event, location, labels and URI of its images and the plan's, and the split of each."""
        names = _counted_columns(self.manifest)
        new = {name: plan.rows[name].cast(pa.string()) for name in names}
        new[IMAGE_COLUMN] = plan.rows[IMAGE_COLUMN]
        new["split"] = plan.splits.cast(pa.string())
        rows = pa.table(new, schema=self._rows.schema)
        both = pa.concat_tables([self._rows, rows])
        return both.select([*names, IMAGE_COLUMN]), both["split"]

    def n_events_with_other_images(self, event_ids: pa.ChunkedArray) -> int:
        """How many of its events have another number of images among these rows."""
        there, here = (_n_images(ids) for ids in (self.events, event_ids))
        both = there.join(here, "values", join_type="inner", right_suffix="_here")
        return int(pc.sum(pc.not_equal(both["counts"], both["counts_here"])).as_py() or 0)

    @property
    def events(self) -> pa.ChunkedArray:
        """The ids of the events that it has."""
        return self._rows["capture_event_id"]

    def has_all(self, event_ids: pa.ChunkedArray) -> bool:
        """Whether none of these events is new."""
        is_there = pc.is_in(factorize(event_ids)[1], value_set=self.events)
        return bool(pc.all(is_there, min_count=0).as_py())

    @property
    def splits_of_locations(self) -> dict[str, str]:
        """Location -> split."""
        placed = self._rows.group_by(["location_id", "split"]).aggregate([]).to_pylist()
        return {
            row["location_id"]: row["split"] for row in placed if row["location_id"] is not None
        }

    @property
    def units(self) -> list[Unit]:
        """Its shards, as units that are done."""
        return [
            Unit(name=shard.path, plan_file="", index=0, n_rows=shard.n_images)
            for shard in self.manifest.shards
        ]

    def n_units(self, split: str) -> int:
        """How many shards a split has."""
        return sum(shard.split == split for shard in self.manifest.shards)


def _counted_columns(manifest: Manifest) -> list[str]:
    return ["capture_event_id", "location_id", *(label_column(head) for head in manifest.heads)]


def _n_images(event_ids: pa.ChunkedArray) -> pa.Table:
    if not pa.types.is_dictionary(event_ids.type):
        counts = pc.value_counts(event_ids)
        return pa.Table.from_batches([pa.RecordBatch.from_struct_array(counts)])
    event_N, events = factorize(event_ids)
    return pa.table({"values": events, "counts": np.bincount(event_N, minlength=len(events))})


def read_existing(config: CreateDatasetConfig) -> ExistingDataset | None:
    """The dataset that is to grow; None if it has grown by this inventory already.

    Raises:
        ConfigError: there is no finished dataset, it was made with other settings, or a setting
            does not allow it to grow.
    """
    manifest = read_manifest(config.output_uri, "dataset")
    if config.split.by == "time":
        raise ConfigError("append: a split by time is made of all events at once; create it anew")
    if config.balance.head is not None:
        raise ConfigError("append: classes are balanced over all events at once; create it anew")
    if config.filter.min_events_per_class or config.filter.min_images_per_class:
        raise ConfigError("append: rare classes are counted in all events at once; create it anew")
    old, new = ({**c, "inventory_uri": ""} for c in (manifest.config, config.result_fields()))
    if old != new:
        raise ConfigError(
            f"{config.output_uri}: was made with other settings ({difference(old, new)}); "
            "append with the same ones"
        )
    if manifest.inputs.get(config.inventory_uri) == manifest_fingerprint(config.inventory_uri):
        return None
    return ExistingDataset(config.output_uri, manifest)


def require_fitting(existing: ExistingDataset, plan: DatasetPlan, inventory: Manifest) -> None:
    """Check that the plan of this inventory can become a part of the dataset.

    Raises:
        ConfigError: the class mapping or the metadata fields are not those of the dataset.
    """
    for uri, found in plan.inputs.items():
        if existing.manifest.inputs.get(uri) != found:
            raise ConfigError(f"{uri}: the class mapping is not the one that the dataset has")
    if inventory.meta != existing.manifest.meta:
        there, here = (", ".join(m) or "none" for m in (existing.manifest.meta, inventory.meta))
        raise ConfigError(f"append: metadata fields are {here}, those of the dataset {there}")


def extended_manifest(
    existing: ExistingDataset, config: CreateDatasetConfig, plan: DatasetPlan
) -> tuple[Manifest, str]:
    """The manifest of the dataset with the plan's images, and the folder for the plan.

    Raises:
        ConfigError: an append of another inventory is not finished.
    """
    own = {config.inventory_uri: manifest_fingerprint(config.inventory_uri)}
    if config.overwrite or not growing_by(existing.uri, done=existing.manifest.inputs):
        _delete_unfinished(existing)  # no journal tells whose these shards are
    name = begin_append(config.output_uri, own, done=existing.manifest.inputs)
    classes = {
        head: sorted({*names, *plan.classes[head]})
        for head, names in existing.manifest.classes.items()
    }
    manifest = existing.manifest.model_copy(
        update={
            "inputs": {**existing.manifest.inputs, **own},
            "rows_in": existing.manifest.rows_in + plan.rows.num_rows,
            "classes": classes,
            **_summaries(existing, config, plan),
            "shards": [],
        }
    )
    return manifest, storage.join(WORK_FOLDER, name)


def _delete_unfinished(existing: ExistingDataset) -> None:
    """Delete the shards that an append has left without finishing, and its plan."""
    known = {storage.join(existing.uri, shard.path) for shard in existing.manifest.shards}
    for uri in parquet.list_tables(existing.uri):
        if uri not in known and storage.is_inside(uri, existing.uri):
            storage.delete_file(uri)
    end_append(existing.uri)


def _summaries(
    existing: ExistingDataset, config: CreateDatasetConfig, plan: DatasetPlan
) -> Mapping[str, Any]:
    """Counts of the whole dataset; what was left out is listed per inventory."""
    before = existing.manifest.summary
    rows, splits = existing.with_new(plan)
    shares = split_shares(
        splits, {} if config.split.by.startswith("meta:") else config.split.fractions
    )
    names = [share["split"] for share in shares]
    appended = AppendRecord(
        inventory=config.inventory_uri,
        images_in_inventory=plan.n_images_in_inventory,
        images=plan.rows.num_rows,
        left_out=plan.left_out,
    )
    everything = [*existing.manifest.appended, appended]
    missing = classes_not_in_every_split(rows, splits, heads=config.heads, names=names)
    differing = files_with_several_labels(rows, list(config.heads))
    summary = {
        **{title: value for title, value in before.items() if title in plan.summary},
        **({"files_with_several_labels": differing} if differing else {}),
        "shares": shares,
        "classes_not_in_every_split": missing,
        "leakage": leakage(rows, splits),
        "appended": [record.model_dump() for record in everything],
    }
    return {"summary": summary, "appended": everything}
