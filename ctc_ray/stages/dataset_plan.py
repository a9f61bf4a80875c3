"""What `ctc create-dataset` puts into a dataset, decided before an image is read.

The steps, in this order (that of the original where it has them):

1. `mapping_uri` renames and merges classes.
2. `observations` gives every event one label per head, or leaves it out.
3. `filter.remove`, then `filter.keep`, by the labels of any observation of the event.
4. `filter.drop_missing_labels`, then `filter.min_events_per_class`, by the event's one label.
5. `split` gives every event its split; undated events may be left out here.
6. `balance` samples frequent classes down, after the split: no split depends on it.

Every step keeps or leaves out whole events and counts both.
"""

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ctc_ray import storage
from ctc_ray.config.dataset import CreateDatasetConfig
from ctc_ray.errors import ConfigError, LabelError
from ctc_ray.inventory.balance import Limit, balanced
from ctc_ray.inventory.filters import label_rows
from ctc_ray.inventory.leakage import CONTENT_COLUMN, lacking_classes, leakage, split_shares
from ctc_ray.inventory.mapping import map_classes, read_mapping
from ctc_ray.inventory.selection import all_labelled, has_label, in_frequent_classes
from ctc_ray.inventory.splits import assign_splits
from ctc_ray.labels import LabelSpace
from ctc_ray.manifest import Manifest
from ctc_ray.schemas import conform, label_column, planned_schema

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class DatasetPlan:
    """The images of a dataset, each with its labels and its split."""

    rows: pa.Table
    """With `planned_schema`, in the order of the inventory."""
    splits: pa.Array
    labels: LabelSpace
    counts: dict[str, Any]
    """For the manifest: what each step left out, shares, lacking classes, leakage."""
    inputs: dict[str, str]
    """URI -> fingerprint of what was read besides the inventory."""


def plan_dataset(
    config: CreateDatasetConfig,
    table: pa.Table,
    inventory: Manifest,
    *,
    fixed: Mapping[str, str] | None = None,
) -> DatasetPlan:
    """The images of an inventory that become a dataset.

    Args:
        fixed: location -> split that is decided already; of `split.by location` only.

    Raises:
        ConfigError: a setting does not fit the inventory, or no image is left.
        LabelError: there is no such head, or an event has several observations.
    """
    _check_heads(config, inventory)
    selection = _Selection(table)
    table, inputs = _mapped(config, table, selection)
    labelled = label_rows(table, config.heads, observations=config.observations)
    rows = labelled.rows
    if CONTENT_COLUMN in table.column_names:
        content = table[CONTENT_COLUMN].filter(pa.array(labelled.kept))
        rows = rows.append_column(CONTENT_COLUMN, content)
    table = table.filter(pa.array(labelled.kept))
    selection.note("observations", rows)
    rows = _filtered(config, table, rows, selection)
    _require_rows(rows, config)
    split = config.split
    splits = assign_splits(
        rows,
        by=split.by,
        fractions=split.fractions,
        salt=split.salt,
        fixed=fixed,
        undated=split.undated,
    )
    rows, splits = rows.filter(pc.is_valid(splits)), splits.drop_null()
    selection.note("split.undated", rows)
    _require_rows(rows, config)
    wanted = {} if split.by.startswith("meta:") else split.fractions
    shares = split_shares(splits, wanted)
    if config.balance.head is not None:
        balance = config.balance
        limit = Limit(
            config.balance.head, balance.max_events_per_class, balance.splits, balance.salt
        )
        stays = pa.array(balanced(rows, splits, limit))
        rows, splits = rows.filter(stays), splits.filter(stays)
    selection.note("balance", rows)
    names = [share["split"] for share in shares]
    counts = {
        "events_left_out_for_several_observations": labelled.n_events_dropped,
        "images_left_out_with_them": labelled.n_images_dropped,
        "images_in_inventory": selection.n_images,
        "mapped_classes_that_do_not_occur": selection.n_unused,
        "left_out": selection.steps,
        "shares": shares,
        "classes_not_in_every_split": lacking_classes(
            rows, splits, heads=config.heads, names=names
        ),
        "leakage": leakage(rows, splits),
    }
    where = config.inventory_uri
    rows = conform(rows, planned_schema(config.heads, inventory.meta), where=where)
    labels = LabelSpace.from_table(rows, {head: label_column(head) for head in config.heads})
    return DatasetPlan(rows, splits, labels, counts, inputs)


class _Selection:
    """Counts what each step leaves out."""

    def __init__(self, table: pa.Table) -> None:
        self.n_images, self.n_unused = table.num_rows, 0
        self.steps: list[dict[str, Any]] = []
        self._events, self._images = _n_events(table), table.num_rows

    def note(self, step: str, rows: pa.Table) -> None:
        """Note what is left after a step; a step that left out nothing is not listed."""
        n_events, n_images = _n_events(rows), rows.num_rows
        if n_images < self._images:
            found = {"events": self._events - n_events, "images": self._images - n_images}
            self.steps.append({"step": step, **found})
        self._events, self._images = n_events, n_images


def _n_events(rows: pa.Table) -> int:
    return int(pc.count_distinct(rows["capture_event_id"]).as_py())


def _check_heads(config: CreateDatasetConfig, inventory: Manifest) -> None:
    known = ", ".join(inventory.classes) or "none"
    for head in config.heads:
        if head not in inventory.classes:
            raise LabelError(f"heads: {head!r} is no head of the inventory; its heads are {known}")
    if config.balance.head is not None and config.balance.head not in config.heads:
        heads = ", ".join(config.heads)
        raise ConfigError(f"balance.head {config.balance.head!r} is none of the heads {heads}")


def _mapped(
    config: CreateDatasetConfig, table: pa.Table, selection: _Selection
) -> tuple[pa.Table, dict[str, str]]:
    uri = config.mapping_uri
    if uri is None:
        return table, {}
    mapped = map_classes(table, read_mapping(uri))
    selection.n_unused = len(mapped.unused)
    if mapped.unused:
        named = ", ".join(mapped.unused[:5])
        logger.warning("%s: %d classes do not occur: %s", uri, len(mapped.unused), named)
    return mapped.table, {uri: hashlib.sha256(storage.read_bytes(uri)).hexdigest()}


def _filtered(
    config: CreateDatasetConfig, table: pa.Table, rows: pa.Table, selection: _Selection
) -> pa.Table:
    """The rows that the filters keep; `table` is the inventory, row by row the same images."""
    wanted = config.filter
    is_removed = has_label(table, wanted.remove, setting="filter.remove")
    is_kept = has_label(table, wanted.keep, setting="filter.keep")
    is_kept |= not wanted.keep
    rows, is_kept = rows.filter(pa.array(~is_removed)), is_kept[~is_removed]
    selection.note("filter.remove", rows)
    rows = rows.filter(pa.array(is_kept))
    selection.note("filter.keep", rows)
    if wanted.drop_missing_labels:
        rows = rows.filter(pa.array(all_labelled(rows, config.heads)))
    selection.note("filter.drop_missing_labels", rows)
    if wanted.min_events_per_class:
        enough = in_frequent_classes(rows, config.heads, wanted.min_events_per_class)
        rows = rows.filter(pa.array(enough))
    selection.note("filter.min_events_per_class", rows)
    return rows


def _require_rows(rows: pa.Table, config: CreateDatasetConfig) -> None:
    if rows.num_rows == 0:
        raise ConfigError(f"{config.inventory_uri}: no image is left to put into a dataset")
