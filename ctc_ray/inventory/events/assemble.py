"""From the rows of a source to an inventory: one row per image, the rows of an event merged.

R source rows, E capture events, N images, M observations. Everything is done on whole columns.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ctc_ray.columns.arrays import TEXT
from ctc_ray.columns.factorize import factorize
from ctc_ray.columns.hashing import hash_text
from ctc_ray.columns.threads import run_both
from ctc_ray.errors import SchemaError
from ctc_ray.inventory.events.event_values import conflicts_to_text, event_attributes
from ctc_ray.inventory.events.images import (
    AssembledImages,
    EventColumns,
    StoredImages,
    order_by_event,
)
from ctc_ray.inventory.events.observation_lists import observation_lists, observations_to_text
from ctc_ray.inventory.events.source_rows import Ints, SourceRows
from ctc_ray.inventory.findings import Findings
from ctc_ray.schemas import meta_column

__all__ = ["TEXT", "Inventory", "SourceRows", "assemble"]

_ROWS_PER_CHUNK = 1 << 20

Numbers = npt.NDArray[np.int32]
Flags = npt.NDArray[np.bool_]
Attributes = tuple[dict[str, pa.Array], dict[str, pa.Array]]


@dataclass(frozen=True)
class Inventory:
    """The images of a source, sorted by event id, and findings about the source."""

    images: AssembledImages | StoredImages
    heads: tuple[str, ...]
    meta: tuple[str, ...]
    findings: Findings
    empty_events: pa.Table
    """The events without an image, which have no row in `table`: id, location, metadata and
    observations."""

    @cached_property
    def table(self) -> pa.Table:
        """All rows. For a large inventory use `images.rows`, which needs less memory."""
        n_rows = len(self.images)
        starts = range(0, n_rows, _ROWS_PER_CHUNK)
        return pa.concat_tables(self.images.rows(i, i + _ROWS_PER_CHUNK) for i in starts)


def assemble(rows: SourceRows, *, where: str, findings: Findings | None = None) -> Inventory:
    """The inventory of a source: rows with equal event ids are merged, one row per image.

    Images and observations of an event keep the order of their first occurrence; repeated ones are
    kept once. An observation without any label is kept only if its event has no other. Location,
    deployment and metadata are the event's first non-null value. Events are sorted by id as
    strings.

    Args:
        where: the source's name, for messages.
        findings: what the reader of the source has found already.

    Raises:
        SchemaError: the source has no image.
    """
    events_R, event_ids_E = factorize(rows.event_ids, sort=True)
    uri_hashes = hash_text(rows.image_uris)
    n_events = len(event_ids_E)
    events_N = _at(events_R, rows.image_rows)
    if len(events_N) == 0:
        raise SchemaError(f"{where}: no image in {len(rows.event_ids)} rows")

    def event_columns() -> tuple[tuple[pa.Array, pa.Array], Attributes]:
        lists = observation_lists(rows.labels, _at(events_R, rows.observation_rows), n_events)
        return lists, event_attributes(_attribute_columns(rows), events_R, n_events)

    layout, ((lists_E, counts_E), (attributes, conflicts)) = run_both(
        lambda: order_by_event(events_N, rows.image_uris, uri_hashes, n_events), event_columns
    )
    has_image_E, duplicates = layout.n_images > 0, layout.duplicates
    several_E = pc.list_value_length(lists_E).fill_null(0).to_numpy() > 1

    def ids(chosen_E: Flags) -> pa.Array:
        return event_ids_E.take(pa.array(np.flatnonzero(chosen_E)))

    found = findings or Findings()
    found = found.plus(_merged_rows(events_R, event_ids_E))
    found = found.listed(
        "duplicate_images",
        rows.image_uris.take(pa.array(duplicates)),
        event_ids_E.take(pa.array(events_N[duplicates])),
    )
    found = found.listed("events_without_image", ids(~has_image_E))
    conflicting = pa.array(several_E & has_image_E)
    found = found.listed(
        "events_with_several_observations",
        event_ids_E.filter(conflicting),
        observations_to_text(lists_E.filter(conflicting)),
    )
    for kind, details_E in conflicts_to_text(conflicts).items():
        chosen_E = details_E.is_valid().to_numpy(zero_copy_only=False) & has_image_E
        found = found.listed(kind, ids(chosen_E), details_E.filter(pa.array(chosen_E)))
    events = EventColumns(event_ids_E, lists_E, counts_E, attributes)
    return Inventory(
        images=AssembledImages(rows, events, layout, hash_text(event_ids_E), uri_hashes),
        heads=tuple(rows.labels),
        meta=tuple(rows.meta),
        findings=found,
        empty_events=_empty_events(event_ids_E, attributes, lists_E, has_image_E),
    )


def _at(events_R: Numbers, rows: Ints | None) -> Numbers:
    """The event index of each of the rows; None: of every row once."""
    return events_R if rows is None else events_R[rows]


def _merged_rows(events_R: Numbers, event_ids_E: pa.Array) -> Findings:
    """`rows_merged`: events of several rows; the count is that of the rows which are not first."""
    n_rows_E = np.bincount(events_R, minlength=len(event_ids_E))
    several = np.flatnonzero(n_rows_E > 1)
    texts = pa.array(n_rows_E[several]).cast(pa.string())
    details = pc.binary_join_element_wise(texts, "rows", " ")
    n_merged = len(events_R) - len(event_ids_E)
    return Findings().listed(
        "rows_merged", event_ids_E.take(pa.array(several)), details, count=n_merged
    )


def _attribute_columns(rows: SourceRows) -> dict[str, pa.Array | None]:
    return {
        "location_id": rows.location_ids,
        "deployment_id": rows.deployment_ids,
        **{meta_column(name): values for name, values in rows.meta.items()},
    }


def _empty_events(
    event_ids_E: pa.Array, attributes: Mapping[str, pa.Array], lists_E: pa.Array, has_image_E: Flags
) -> pa.Table:
    empty = pa.array(np.flatnonzero(~has_image_E))
    columns = {"capture_event_id": event_ids_E, **attributes}
    texts = {name: values.take(empty).cast(pa.string()) for name, values in columns.items()}
    return pa.table({**texts, "observations": lists_E.take(empty)})
