"""What `ctc create-dataset` puts into a dataset, decided before an image is read.

The steps, in this order (that of the original where it has them):

1. `mapping_uri` renames and merges classes.
2. `observations` gives every event one label per head, or leaves it out.
3. `filter.remove`, then `filter.keep`, by the labels of any observation of the event.
4. `filter.drop_missing_labels`, then `filter.min_events_per_class` and
   `filter.min_images_per_class`, by the event's one label.
5. `split` gives every event its split; undated events may be left out here.
6. `balance` samples frequent classes down, after the split: no split depends on it.

Every step keeps or leaves out whole events and counts both.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ctc_ray.columns.event_runs import run_starts
from ctc_ray.columns.factorize import factorize
from ctc_ray.config.dataset import CreateDatasetConfig
from ctc_ray.errors import ConfigError, LabelError
from ctc_ray.files import storage
from ctc_ray.labels import LabelSpace
from ctc_ray.runs.finished_inventory import InventoryRows
from ctc_ray.runs.manifest import Manifest
from ctc_ray.schemas import (
    conform,
    label_column,
    planned_schema,
)
from ctc_ray.selection.balance import ClassCap, within_class_cap
from ctc_ray.selection.class_mapping import map_classes, read_mapping
from ctc_ray.selection.filters import all_labelled, has_label, in_frequent_classes
from ctc_ray.selection.labelling import label_rows
from ctc_ray.splits.assign import assign_splits
from ctc_ray.splits.report import (
    classes_not_in_every_split,
    files_with_several_labels,
    leakage,
    split_shares,
)
from ctc_ray.stages.create_dataset.unit_order import EventRows, by_hash

logger = logging.getLogger(__name__)

ROW = "_row"  # column of a plan: number of the row in the inventory


@dataclass(frozen=True)
class DatasetPlan:
    """The images of a dataset, each with its labels and its split."""

    rows: pa.Table
    """In the order of the inventory: `_row`, its index there, the columns that the plan was made
    by, and `label_<head>`."""
    splits: pa.Array
    labels: LabelSpace | None
    """None: the dataset has no head."""
    n_images_in_inventory: int
    left_out: list[dict[str, Any]]
    """Step of the selection, with the events and images that it left out."""
    steps: dict[str, Any]
    """For the summary: what each step left out, and the shares of the splits."""
    inputs: dict[str, str]
    """URI -> fingerprint of what was read besides the inventory."""
    splits_with_a_share: tuple[str, ...]
    """The splits that should, or do, have images."""

    @property
    def classes(self) -> dict[str, list[str]]:
        """Head -> its classes."""
        return {} if self.labels is None else self.labels.to_json()

    def events(self, *, is_by_hash: bool = True) -> EventRows:
        """The events, in the order of a hash or in that of the inventory."""
        event_ids = self.rows["capture_event_id"]
        if is_by_hash:
            return by_hash(event_ids, self.rows[ROW].to_numpy())
        starts = run_starts(event_ids)
        return EventRows(starts, np.diff(starts, append=len(event_ids)))

    @cached_property
    def summary(self) -> dict[str, Any]:
        """For people: the steps, the classes that a split lacks, and the leakage."""
        lacking = classes_not_in_every_split(
            self.rows, self.splits, heads=list(self.classes), names=self.splits_with_a_share
        )
        differing = files_with_several_labels(self.rows, list(self.classes))
        return {
            **self.steps,
            "classes_not_in_every_split": lacking,
            "leakage": leakage(self.rows, self.splits),
            **({"files_with_several_labels": differing} if differing else {}),
        }


def plan_dataset(
    config: CreateDatasetConfig,
    table: pa.Table,
    inventory: Manifest,
    *,
    fixed: Mapping[str, str] | None = None,
    already: pa.ChunkedArray | None = None,
) -> DatasetPlan:
    """The images of an inventory that become a dataset.

    Args:
        table: the inventory's rows, at least with the columns of `read_columns`; best as it gives
            them, with events and locations as numbers.
        fixed: location -> split that is decided already; of `split.by location` only.
        already: ids of events that are left out, because the dataset has them.

    Raises:
        ConfigError: a setting does not fit the inventory, or no image is left.
        LabelError: there is no such head, or an event has several observations.
    """
    _check_heads(config, inventory)
    table = table.append_column(ROW, pa.array(np.arange(table.num_rows)))
    selection = _Selection(table)
    if already is not None:
        event_N, events = factorize(table["capture_event_id"])
        is_new = pc.invert(pc.is_in(events, value_set=already))
        table = _where(np.asarray(is_new)[event_N], table)
        selection.note("in the dataset already", table)
    table, inputs = _mapped(config, table, selection)
    labelled = label_rows(table, config.heads, observations=config.observations)
    rows = labelled.rows
    table = _where(labelled.kept, table)
    selection.note("observations", rows)
    rows = _filtered(config, table, rows, selection, is_append=already is not None)
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
    if splits.null_count:
        rows, splits = rows.filter(pc.is_valid(splits)), splits.drop_null()
    selection.note("split.undated", rows)
    _require_rows(rows, config)
    wanted = {} if split.by.startswith("meta:") else split.fractions
    shares = split_shares(splits, wanted)
    if config.balance.head is not None:
        balance = config.balance
        limit = ClassCap(
            config.balance.head, balance.max_events_per_class, balance.splits, balance.salt
        )
        stays = pa.array(within_class_cap(rows, splits, limit))
        rows, splits = rows.filter(stays), splits.filter(stays)
    selection.note("balance", rows)
    steps = {
        "events_left_out_for_several_observations": labelled.n_events_dropped,
        "images_left_out_with_them": labelled.n_images_dropped,
        "images_in_inventory": selection.n_images,
        "mapped_classes_that_do_not_occur": selection.n_unused,
        "left_out": selection.steps,
        "shares" if config.balance.head is None else "shares before balancing": shares,
    }
    columns = {head: label_column(head) for head in config.heads}
    labels = LabelSpace.from_table(rows, columns) if columns else None
    names = tuple(share["split"] for share in shares)
    return DatasetPlan(
        rows, splits, labels, selection.n_images, selection.steps, steps, inputs, names
    )


def waiting_columns(heads: Sequence[str]) -> list[str]:
    """What a row carries while it waits in its unit; all else is read from the inventory."""
    return [ROW, *(label_column(head) for head in heads)]


def rows_by_split(plan: DatasetPlan, events: EventRows) -> Iterator[tuple[str, pa.Table]]:
    """The rows of each split: the event, and the `waiting_columns`.

    They come in parts of about a million rows.

    Args:
        events: of the plan, in the order in which their rows are to come.
    """
    rows = plan.rows.select(["capture_event_id", *waiting_columns(list(plan.classes))])
    split_N, splits = factorize(plan.splits)
    split_E = split_N[events.starts]
    for code in pc.sort_indices(splits).to_pylist():
        for part in events.where(split_E == code).rows():
            yield splits[code].as_py(), rows.take(pa.array(part))


def whole_rows(
    waiting: pa.Table, inventory: InventoryRows, heads: Sequence[str], meta: Sequence[str]
) -> pa.Table:
    """Planned rows with the inventory columns joined back (`planned_schema`)."""
    schema = planned_schema(heads, meta)
    labels = [label_column(head) for head in heads]
    columns = [name for name in schema.names if name not in labels]
    rows = inventory.read(waiting[ROW].to_numpy(), columns)
    for name in labels:
        rows = rows.append_column(name, waiting[name])
    return conform(rows, schema, where=inventory.inventory_uri)


def _where(is_kept: npt.NDArray[np.bool_], rows: pa.Table) -> pa.Table:
    """The rows that are kept; nothing is copied where all are."""
    return rows if is_kept.all() else rows.filter(pa.array(is_kept))


class _Selection:
    """Counts what each step leaves out."""

    def __init__(self, table: pa.Table) -> None:
        self.n_images, self.n_unused = table.num_rows, 0
        self.steps: list[dict[str, Any]] = []
        self._events, self._images = _n_events(table), table.num_rows

    def note(self, step: str, rows: pa.Table) -> None:
        """Note what is left after a step; a step that left out nothing is not listed."""
        n_images = rows.num_rows
        if n_images < self._images:
            n_events = _n_events(rows)
            found = {"events": self._events - n_events, "images": self._images - n_images}
            self.steps.append({"step": step, **found})
            self._events, self._images = n_events, n_images


def _n_events(rows: pa.Table) -> int:
    return len(run_starts(rows["capture_event_id"]))


def _check_heads(config: CreateDatasetConfig, inventory: Manifest) -> None:
    known = ", ".join(inventory.classes) or "none"
    if not config.heads and inventory.classes:
        raise LabelError(f"heads is required (option --heads); the inventory's heads are {known}")
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
    return mapped.table, {uri: storage.digest(uri)}


def _filtered(
    config: CreateDatasetConfig,
    table: pa.Table,
    rows: pa.Table,
    selection: _Selection,
    *,
    is_append: bool,
) -> pa.Table:
    """The rows that the filters keep; `table` is the inventory, row by row the same images."""
    wanted = config.filter
    # the new events of an append may lack a class that the dataset has
    allow = wanted.allow_unmatched or is_append
    is_removed = has_label(table, wanted.remove, setting="filter.remove", allow_unmatched=allow)
    is_kept = has_label(table, wanted.keep, setting="filter.keep", allow_unmatched=allow)
    is_kept |= not wanted.keep
    rows, is_kept = _where(~is_removed, rows), is_kept[~is_removed]
    selection.note("filter.remove", rows)
    rows = _where(is_kept, rows)
    selection.note("filter.keep", rows)
    if wanted.drop_missing_labels:
        rows = _where(all_labelled(rows, config.heads), rows)
    selection.note("filter.drop_missing_labels", rows)
    if wanted.min_events_per_class:
        enough = in_frequent_classes(rows, config.heads, wanted.min_events_per_class)
        rows = _where(enough, rows)
    selection.note("filter.min_events_per_class", rows)
    if wanted.min_images_per_class:
        n_events, n_images = wanted.min_events_per_class, wanted.min_images_per_class
        enough = in_frequent_classes(rows, config.heads, n_events, min_images=n_images)
        rows = _where(enough, rows)
    selection.note("filter.min_images_per_class", rows)
    return rows


def _require_rows(rows: pa.Table, config: CreateDatasetConfig) -> None:
    if rows.num_rows == 0:
        raise ConfigError(f"{config.inventory_uri}: no image is left to put into a dataset")
