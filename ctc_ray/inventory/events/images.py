"""The images of an inventory, side by side by event, as short columns; rows when asked for.

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
class Layout:
    """The images by event, in the order of the source, without repeated ones."""

    events_of: Numbers
    """Number of each image's event."""
    places: Numbers
    """Of each image among the source's."""
    indices: Numbers
    """Of each image in its event."""
    n_images: Numbers
    """Of each event."""
    doubles: Ints
    """Places of the source's images that their event has named before."""
    shared: Hashes
    """Of the URIs that occur more than once, in one event or in several."""


def lay_out(events_N: Numbers, uris: pa.Array, uri_hashes: Hashes, n_events: int) -> Layout:
    """Lay the images of a source side by side.

    Args:
        events_N: number of each image's event.
        uris: of each image, with its hash.
    """
    shared = repeated_hashes(uri_hashes)
    doubles = repeated_images(events_N, uris, uri_hashes) if len(shared) else np.zeros(0, np.int64)
    if len(doubles):
        kept = np.delete(np.arange(len(events_N), dtype=np.int32), doubles)
        place_N = kept[np.argsort(events_N[kept], kind="stable")]
    else:
        place_N = np.argsort(events_N, kind="stable").astype(np.int32)
    event_N = events_N[place_N]
    n_images_E = np.bincount(event_N, minlength=n_events).astype(np.int32)
    first_E = (np.cumsum(n_images_E) - n_images_E).astype(np.int32)
    indices = np.arange(len(event_N), dtype=np.int32) - np.repeat(first_E, n_images_E)
    return Layout(event_N, place_N, indices, n_images_E, doubles, shared)


@dataclass(frozen=True)
class EventColumns:
    """The columns of E capture events, sorted by id."""

    ids: pa.Array
    observations: pa.Array
    observation_counts: pa.Array
    facts: Mapping[str, pa.Array]


@dataclass(frozen=True)
class InventoryImages:
    """The images in the order of the inventory, as short columns; rows are made when asked for."""

    source: SourceRows
    events: EventColumns
    layout: Layout
    event_hashes: Hashes  # E
    uri_hashes: Hashes  # of the source's images
    content_hashes: pa.Array | None = None

    def __len__(self) -> int:
        return len(self.layout.events_of)

    @property
    def observations(self) -> pa.Array:
        """The list of observations of each event that has an image."""
        has_image_E = self.layout.n_images > 0
        lists_E = self.events.observations
        return lists_E if has_image_E.all() else lists_E.filter(pa.array(has_image_E))

    @property
    def uris(self) -> pa.Array:
        """The URI of each image, in the order of the inventory."""
        return self.source.image_uris.take(pa.array(self.layout.places))

    @property
    def cameras(self) -> Numbers:
        """A number of the camera of each image, in the order of the source; -1 is not known.

        A camera is a deployment at its location, or the location where there is no deployment.
        """
        places, deployments = (
            factorize(self.events.facts[name])[0] for name in ("location_id", "deployment_id")
        )
        known_E = (places >= 0) | (deployments >= 0)
        both_E = (places + np.int64(1)) * (deployments.max(initial=-1) + 2) + deployments + 1
        numbers_E = np.where(known_E, factorize(pa.array(both_E))[0], np.int32(-1))
        result = np.full(len(self.source.image_uris), -1, np.int32)
        result[self.layout.places] = numbers_E[self.layout.events_of]
        return result

    @property
    def n_events(self) -> int:
        """Events with an image."""
        return int(np.count_nonzero(self.layout.n_images))

    def rows(self, start: int, stop: int) -> pa.Table:
        """The rows [start, stop) of the inventory."""
        event_N, place_N = self.layout.events_of[start:stop], self.layout.places[start:stop]
        events, places = pa.array(event_N), pa.array(place_N)
        source, own = self.source, self.events
        columns = {
            "image_id": image_ids(self.event_hashes[event_N], self.uri_hashes[place_N]),
            "image_uri": source.image_uris.take(places),
            "capture_event_id": own.ids.take(events),
            "image_index": pa.array(self.layout.indices[start:stop]),
            "n_images": pa.array(self.layout.n_images[event_N]),
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
