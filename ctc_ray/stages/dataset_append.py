"""A finished dataset that grows: the new events of another inventory become further shards.

A helper of `ctc create-dataset --append`. What is there stays as it is, byte for byte; the old
manifest is true until the new one replaces it, so a reader never sees half of an append.
"""

from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa
import pyarrow.compute as pc

from ctc_ray import storage, tables
from ctc_ray.config.dataset import CreateDatasetConfig
from ctc_ray.errors import ConfigError
from ctc_ray.labels import LabelSpace
from ctc_ray.manifest import Manifest, manifest_fingerprint, read_manifest
from ctc_ray.stages.dataset_plan import DatasetPlan
from ctc_ray.units import Unit
from ctc_ray.work import WORK_FOLDER, begin_append, difference


@dataclass(frozen=True)
class Base:
    """The dataset as it is before it grows."""

    uri: str
    manifest: Manifest

    @cached_property
    def _rows(self) -> pa.Table:
        parts = []
        for shard in self.manifest.shards:
            uri = storage.join(self.uri, shard["path"])
            rows = tables.read_table(uri, ["capture_event_id", "location_id"])
            split = pa.array([shard["split"]] * rows.num_rows, pa.string())
            parts.append(rows.append_column("split", split))
        return pa.concat_tables(parts)

    @property
    def events(self) -> pa.ChunkedArray:
        """The ids of the events that it has."""
        return self._rows["capture_event_id"]

    def has_all(self, event_ids: pa.ChunkedArray) -> bool:
        """Whether none of these events is new."""
        return bool(pc.all(pc.is_in(event_ids, value_set=self.events)).as_py())

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
            Unit(name=shard["path"], plan_file="", place=0, n_rows=shard["n_images"])
            for shard in self.manifest.shards
        ]

    def n_units(self, split: str) -> int:
        """How many shards a split has."""
        return sum(shard["split"] == split for shard in self.manifest.shards)


def read_base(config: CreateDatasetConfig) -> Base | None:
    """The dataset that is to grow; None if it has grown by this inventory already.

    Raises:
        ConfigError: there is no finished dataset, it was made with other settings, or a setting
            does not allow it to grow.
    """
    manifest = read_manifest(config.output_uri, "dataset")
    if config.overwrite:
        raise ConfigError("append and overwrite exclude one another")
    if config.split.by == "time":
        raise ConfigError("append: a split by time is made of all events at once; create it anew")
    if config.balance.head is not None:
        raise ConfigError("append: classes are balanced over all events at once; create it anew")
    old, new = ({**c, "inventory_uri": ""} for c in (manifest.config, config.work()))
    if old != new:
        raise ConfigError(
            f"{config.output_uri}: was made with other settings ({difference(old, new)}); "
            "append with the same ones"
        )
    if manifest.inputs.get(config.inventory_uri) == manifest_fingerprint(config.inventory_uri):
        return None
    return Base(config.output_uri, manifest)


def grown(
    base: Base, config: CreateDatasetConfig, plan: DatasetPlan, inventory: Manifest
) -> tuple[Manifest, str]:
    """The manifest of the dataset with the plan's images, and the folder for the plan.

    Raises:
        ConfigError: the class mapping or the metadata fields are not those of the dataset, or an
            append of another inventory is not finished.
    """
    for uri, found in plan.inputs.items():
        if base.manifest.inputs.get(uri) != found:
            raise ConfigError(f"{uri}: the class mapping is not the one that the dataset has")
    if inventory.meta != base.manifest.meta:
        there, here = (", ".join(m) or "none" for m in (base.manifest.meta, inventory.meta))
        raise ConfigError(f"append: metadata fields are {here}, those of the dataset {there}")
    own = {config.inventory_uri: manifest_fingerprint(config.inventory_uri)}
    name = begin_append(config.output_uri, own)
    classes = {
        head: sorted({*names, *plan.labels.classes[head]})
        for head, names in base.manifest.classes.items()
    }
    before = base.manifest.counts.get("appended", [])
    kept = {key: n for key, n in base.manifest.counts.items() if key in plan.counts}
    told = {"inventory": config.inventory_uri, "images": plan.rows.num_rows}
    manifest = base.manifest.model_copy(
        update={
            "inputs": {**base.manifest.inputs, **own},
            "rows_in": base.manifest.rows_in + plan.rows.num_rows,
            "classes": LabelSpace.from_json(classes).to_json(),
            "counts": {**kept, "appended": [*before, told]},
            "shards": [],
        }
    )
    return manifest, storage.join(WORK_FOLDER, name)
