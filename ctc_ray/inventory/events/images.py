"""The images of an inventory in order of their events; rows are built on request.

E capture events, N images.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ctc_ray.columns.factorize import factorize
from ctc_ray.columns.hashing import Hashes, image_ids, repeated_hashes, repeated_images
from ctc_ray.inventory.events.source_rows import SourceRows
from ctc_ray.schemas import conform, inventory_schema

Ints = npt.NDArray[np.int64]
Numbers = npt.NDArray[np.int32]


@dataclass(frozen=True)
class EventLayout:
    """The order of the images in the inventory, without repeated images.

    Images are sorted by event index; images of an event keep the order of the source.
    """

    event_indices: Numbers
    """N: index of each image's event."""
    source_indices: Numbers
    """N: index of each image among the images of the source."""
    image_indices: Numbers
    """N: index of each image within its event, from 0."""
    n_images: Numbers
    """E: number of images of each event."""
    duplicates: Ints
    """Ascending indices of the source's images that occur earlier in the same event."""
    repeated_uri_hashes: Hashes
    """Hashes of the URIs that occur more than once, in one event or in several."""


def order_by_event(
    events_N: Numbers, uris: pa.Array, uri_hashes: Hashes, n_events: int
) -> EventLayout:
    """The order of a source's images by event, each image of an event once.

    Args:
        events_N: event index of each image, in the order of the source.
        uris: URI of each image.
        uri_hashes: `hash_text(uris)`.
        n_events: number of events; an event may have no image.
    """
    repeated = repeated_hashes(uri_hashes)
    duplicates = np.zeros(0, np.int64)
    if len(repeated):
        duplicates = repeated_images(events_N, uris, uri_hashes)
    if len(duplicates):
        kept = np.delete(np.arange(len(events_N), dtype=np.int32), duplicates)
        source_N = kept[np.argsort(events_N[kept], kind="stable")]
    else:
        source_N = np.argsort(events_N, kind="stable").astype(np.int32)
    event_N = events_N[source_N]
    n_images_E = np.bincount(event_N, minlength=n_events).astype(np.int32)
    first_E = (np.cumsum(n_images_E) - n_images_E).astype(np.int32)
    image_index_N = np.arange(len(event_N), dtype=np.int32) - np.repeat(first_E, n_images_E)
    return EventLayout(event_N, source_N, image_index_N, n_images_E, duplicates, repeated)


@dataclass(frozen=True)
class EventColumns:
    """The columns of E capture events, sorted by id."""

    ids: pa.Array
    observations: pa.Array
    """List of observations per event, as structs of head -> label."""
    observation_counts: pa.Array
    """How often the source gives each of the observations, as lists of the same lengths."""
    attributes: Mapping[str, pa.Array]
    """Location, deployment and metadata: column -> value per event, null is unknown."""


@dataclass(frozen=True)
class AssembledImages:
    """The images that `assemble` has put in order; rows are built from the source on request."""

    source: SourceRows
    events: EventColumns
    layout: EventLayout
    event_hashes: Hashes
    """E: hash of each event id."""
    uri_hashes: Hashes
    """Hash of each URI of the source, in the order of the source."""
    content_hashes: pa.Array | None = None
    """N: hash of each file's content, in the order of the inventory; None: not computed."""

    def __len__(self) -> int:
        return len(self.layout.event_indices)

    @property
    def observations(self) -> pa.Array:
        """The list of observations of each event that has an image."""
        has_image_E = self.layout.n_images > 0
        lists_E = self.events.observations
        return lists_E if has_image_E.all() else lists_E.filter(pa.array(has_image_E))

    @property
    def uris(self) -> pa.Array:
        """The URI of each image, in the order of the inventory."""
        return self.source.image_uris.take(pa.array(self.layout.source_indices))

    @property
    def cameras(self) -> Numbers:
        """Camera index of each image, in the order of the source; -1 is unknown.

        A camera is a deployment at its location, or the location where the deployment is unknown.
        """
        locations, deployments = (
            factorize(self.events.attributes[name])[0] for name in ("location_id", "deployment_id")
        )
        known_E = (locations >= 0) | (deployments >= 0)
        pairs_E = (locations + np.int64(1)) * (deployments.max(initial=-1) + 2) + deployments + 1
        cameras_E = np.where(known_E, factorize(pa.array(pairs_E))[0], np.int32(-1))
        result = np.full(len(self.source.image_uris), -1, np.int32)
        result[self.layout.source_indices] = cameras_E[self.layout.event_indices]
        return result

    @property
    def n_events(self) -> int:
        """Number of events with an image."""
        return int(np.count_nonzero(self.layout.n_images))

    def rows(self, start: int, stop: int) -> pa.Table:
        """The rows [start, stop) of the inventory."""
        event_N = self.layout.event_indices[start:stop]
        source_N = self.layout.source_indices[start:stop]
        events, images = pa.array(event_N), pa.array(source_N)
        source, own = self.source, self.events
        columns = {
            "image_id": image_ids(self.event_hashes[event_N], self.uri_hashes[source_N]),
            "image_uri": source.image_uris.take(images),
            "capture_event_id": own.ids.take(events),
            "image_index": pa.array(self.layout.image_indices[start:stop]),
            "n_images": pa.array(self.layout.n_images[event_N]),
            "observations": own.observations.take(events),
            "observation_counts": own.observation_counts.take(events),
            **{name: values.take(events) for name, values in own.attributes.items()},
        }
        for name, values in (("captured_at", source.captured_at), ("boxes", source.boxes)):
            columns[name] = pa.nulls(len(events)) if values is None else values.take(images)
        content = self.content_hashes
        columns["content_hash"] = (
            pa.nulls(len(events)) if content is None else content.slice(start, len(events))
        )
        schema = inventory_schema(tuple(source.labels), tuple(source.meta))
        return conform(pa.table(columns), schema, where="inventory")

    def with_content(self, hashes: pa.Array) -> Self:
        """The images with a hash of each file's content, in the order of the inventory."""
        return replace(self, content_hashes=hashes)


@dataclass(frozen=True)
class StoredImages:
    """The images of an inventory that exists already, as its rows."""

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
        """The images with a hash of each file's content, in the order of the rows."""
        column = self.table.schema.get_field_index("content_hash")
        field = self.table.schema.field(column)
        return replace(self, table=self.table.set_column(column, field, hashes))

    @property
    def n_events(self) -> int:
        """Number of events."""
        return int(pc.sum(pc.equal(self.table["image_index"], 0)).as_py() or 0)
