"""From what a source says, row by row, to an inventory: one row per image, events united.

R source rows, E capture events, N images, M observations. Everything is done on whole columns:
10 million rows cost a Python object each only for a moment, for the hash that is the image's id.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ctc_ray.errors import SchemaError
from ctc_ray.inventory.event_facts import TEXT, conflicts_in_words, event_facts
from ctc_ray.inventory.findings import Findings
from ctc_ray.inventory.hashing import Hashes, hash_text, image_ids, repeated
from ctc_ray.inventory.observations import coded, observation_lists
from ctc_ray.schemas import conform, inventory_schema, meta_column

__all__ = ["TEXT", "Inventory", "SourceRows", "assemble", "number_events"]

_ROWS_PER_CHUNK = 1 << 20

Ints = npt.NDArray[np.int64]
Numbers = npt.NDArray[np.int32]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Inventory:
    """The images of a source, sorted by event id, and what is worth telling about the source."""

    images: "InventoryImages | TableImages"
    heads: tuple[str, ...]
    meta: tuple[str, ...]
    findings: Findings
    empty_events: pa.Table
    """The events without an image, which have no row in `table`: id, place and metadata."""

    @cached_property
    def table(self) -> pa.Table:
        """All rows; of a large inventory better in parts, `images.rows`."""
        n_rows = len(self.images)
        starts = range(0, n_rows, _ROWS_PER_CHUNK)
        return pa.concat_tables(self.images.rows(i, i + _ROWS_PER_CHUNK) for i in starts)


@dataclass(frozen=True)
class SourceRows:
    """The columns of a source. Rows with the same event id, neighbours or not, are one event."""

    event_ids: pa.Array  # these and the other columns of text: plain, or dictionary-encoded
    image_rows: Ints
    """Source row of each image, ascending; the images of a row in the order of the source."""
    image_uris: pa.Array
    observation_rows: Ints
    """Source row of each observation, ascending."""
    labels: Mapping[str, pa.Array] = field(default_factory=dict)
    """Head -> label of each observation; null is missing."""
    location_ids: pa.Array | None = None
    deployment_ids: pa.Array | None = None
    captured_at: pa.Array | None = None
    """Of each image, timestamp[us], the camera's local time; null is not known."""
    boxes: pa.Array | None = None
    """Of each image, list<schemas.BOX>; null: nobody has looked for any."""
    meta: Mapping[str, pa.Array] = field(default_factory=dict)
    """Metadata field -> value of each row; null is missing."""


def assemble(rows: SourceRows, *, where: str, findings: Findings | None = None) -> Inventory:
    """Unite the rows of each event and lay its images side by side.

    Images and observations are united in the order of their first occurrence, repeated ones are
    kept once. An observation without any label is kept only if its event has no other. Location,
    deployment and metadata are the event's first value that is not null. Events are sorted by id
    as strings.

    Args:
        where: the source's name in messages.
        findings: what its reader has found already.

    Raises:
        SchemaError: there is no image at all.
    """
    events_R, event_ids_E = number_events(rows.event_ids)
    n_events = len(event_ids_E)
    uri_hashes = hash_text(rows.image_uris)
    events_N = events_R[rows.image_rows]
    doubles = repeated(events_N, rows.image_uris, uri_hashes)
    if len(events_N) == 0:
        raise SchemaError(f"{where}: no image in {len(rows.event_ids)} rows")
    lists_E, counts_E = observation_lists(rows.labels, events_R[rows.observation_rows], n_events)
    facts, conflicts = event_facts(_columns_of_events(rows), events_R, n_events)
    has_image_E = np.bincount(events_N, minlength=n_events) > 0
    several_E = pc.list_value_length(lists_E).fill_null(0).to_numpy() > 1

    def ids(chosen_E: Flags) -> pa.Array:
        return event_ids_E.take(pa.array(np.flatnonzero(chosen_E)))

    found = findings or Findings()
    found = found.counted(rows_merged=len(events_R) - n_events)
    found = found.listed(
        "duplicate_images",
        rows.image_uris.take(pa.array(doubles)),
        event_ids_E.take(pa.array(events_N[doubles])),
    )
    found = found.listed("events_without_image", ids(~has_image_E))
    found = found.listed("events_with_several_observations", ids(several_E & has_image_E))
    for kind, details_E in conflicts_in_words(conflicts).items():
        chosen_E = details_E.is_valid().to_numpy(zero_copy_only=False) & has_image_E
        found = found.listed(kind, ids(chosen_E), details_E.filter(pa.array(chosen_E)))
    events = _Events(event_ids_E, lists_E, counts_E, facts)
    return Inventory(
        images=_lay_out(rows, events_N, doubles, uri_hashes, events),
        heads=tuple(rows.labels),
        meta=tuple(rows.meta),
        findings=found,
        empty_events=_empty_events(event_ids_E, facts, has_image_E),
    )


def number_events(event_ids: pa.Array) -> tuple[Numbers, pa.Array]:
    """The number of each row's event, and the distinct ids, sorted as strings, by that number."""
    codes, distinct = coded(event_ids)
    order = pc.sort_indices(distinct)
    rank = np.empty(len(order), np.int32)
    rank[order.to_numpy()] = np.arange(len(order), dtype=np.int32)
    return rank[codes], distinct.take(order)


def _columns_of_events(rows: SourceRows) -> dict[str, pa.Array | None]:
    return {
        "location_id": rows.location_ids,
        "deployment_id": rows.deployment_ids,
        **{meta_column(name): values for name, values in rows.meta.items()},
    }


def _empty_events(
    event_ids_E: pa.Array, facts: Mapping[str, pa.Array], has_image_E: Flags
) -> pa.Table:
    empty = pa.array(np.flatnonzero(~has_image_E))
    columns = {"capture_event_id": event_ids_E, **facts}
    return pa.table(
        {name: values.take(empty).cast(pa.string()) for name, values in columns.items()}
    )


@dataclass(frozen=True)
class _Events:
    ids: pa.Array
    observations: pa.Array
    observation_counts: pa.Array
    facts: Mapping[str, pa.Array]


@dataclass(frozen=True)
class InventoryImages:
    """The images in the order of the inventory, as short columns; rows are made when asked for."""

    source: SourceRows
    events: _Events
    event_hashes: Hashes  # E
    uri_hashes: Hashes  # of the source's images
    events_of: Numbers  # number of each image's event
    places: Numbers  # of each image among the source's
    indices: Numbers  # of each image in its event
    n_images: Numbers  # E
    content_hashes: pa.Array | None = None

    def __len__(self) -> int:
        return len(self.events_of)

    @property
    def observations(self) -> pa.Array:
        """The list of observations of each event that has an image."""
        return self.events.observations.filter(pa.array(self.n_images > 0))

    @property
    def uris(self) -> pa.Array:
        """The URI of each image, in the order of the inventory."""
        return self.source.image_uris.take(pa.array(self.places))

    @property
    def cameras(self) -> Numbers:
        """A number of the camera of each image, in the order of the source; -1 is not known.

        A camera is a deployment at its location, or the location where there is no deployment.
        """
        places, deployments = (
            coded(self.events.facts[name])[0] for name in ("location_id", "deployment_id")
        )
        known_E = (places >= 0) | (deployments >= 0)
        both_E = (places + np.int64(1)) * (deployments.max(initial=-1) + 2) + deployments + 1
        numbers_E = np.where(known_E, np.unique(both_E, return_inverse=True)[1], -1)
        result = np.full(len(self.source.image_uris), -1, np.int32)
        result[self.places] = numbers_E[self.events_of]
        return result

    @property
    def n_events(self) -> int:
        """Events with an image."""
        return int(np.count_nonzero(self.n_images))

    def rows(self, start: int, stop: int) -> pa.Table:
        """The rows [start, stop) of the inventory."""
        event_N, place_N = self.events_of[start:stop], self.places[start:stop]
        events, places = pa.array(event_N), pa.array(place_N)
        source, own = self.source, self.events
        columns = {
            "image_id": image_ids(self.event_hashes[event_N], self.uri_hashes[place_N]),
            "image_uri": source.image_uris.take(places),
            "capture_event_id": own.ids.take(events),
            "image_index": pa.array(self.indices[start:stop]),
            "n_images": pa.array(self.n_images[event_N]),
            "observations": own.observations.take(events),
            "observation_counts": own.observation_counts.take(events),
            **{name: values.take(events) for name, values in own.facts.items()},
        }
        for name, values in (("captured_at", source.captured_at), ("boxes", source.boxes)):
            columns[name] = pa.nulls(len(events)) if values is None else values.take(places)
        content = self.content_hashes
        columns["content_hash"] = (
            pa.nulls(len(events)) if content is None else content.slice(start, len(events))
        )
        schema = inventory_schema(tuple(source.labels), tuple(source.meta))
        return conform(pa.table(columns), schema, where="inventory")

    def with_content(self, hashes: pa.Array) -> Self:
        """These images with the hash of each one's content, in the order of the inventory."""
        return replace(self, content_hashes=hashes)


@dataclass(frozen=True)
class TableImages:
    """The images of an inventory that is there already, as its rows."""

    table: pa.Table

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def rows(self, start: int, stop: int) -> pa.Table:
        """The rows [start, stop) of the inventory."""
        return self.table.slice(start, stop - start)

    @property
    def uris(self) -> pa.ChunkedArray:
        """The URI of each image, in the order of the inventory."""
        return self.table["image_uri"]

    @property
    def observations(self) -> pa.ChunkedArray:
        """The list of observations of each event."""
        return self.table.filter(pc.equal(self.table["image_index"], 0))["observations"]

    def with_content(self, hashes: pa.Array) -> Self:
        """These images with the hash of each one's content."""
        place = self.table.schema.get_field_index("content_hash")
        field = self.table.schema.field(place)
        return replace(self, table=self.table.set_column(place, field, hashes))

    @property
    def n_events(self) -> int:
        """Events with an image."""
        return int(pc.sum(pc.equal(self.table["image_index"], 0)).as_py() or 0)


def _lay_out(
    rows: SourceRows, events_N: Numbers, doubles: Ints, uri_hashes: Hashes, events: _Events
) -> InventoryImages:
    """The images by event, in the order of the source, without repeated ones."""
    kept = np.delete(np.arange(len(events_N), dtype=np.int32), doubles)
    place_N = kept[np.argsort(events_N[kept], kind="stable")]
    event_N = events_N[place_N]
    n_images_E = np.bincount(event_N, minlength=len(events.ids)).astype(np.int32)
    first_E = np.cumsum(n_images_E) - n_images_E
    return InventoryImages(
        source=rows,
        events=events,
        event_hashes=hash_text(events.ids),
        uri_hashes=uri_hashes,
        events_of=event_N,
        places=place_N,
        indices=(np.arange(len(event_N)) - first_E[event_N]).astype(np.int32),
        n_images=n_images_E,
    )
