"""From what a source says, row by row, to an inventory: one row per image, events united.

R source rows, E capture events, N images, M observations. Everything is done on whole columns:
10 million rows cost no Python object each, but for the hash that is the image's id.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ctc_ray.errors import SchemaError
from ctc_ray.inventory.findings import Findings
from ctc_ray.schemas import conform, inventory_schema, meta_column

TEXT = pa.large_string()  # while columns are whole: 10 million URIs are more than 2 GiB of text

_ROWS_PER_CHUNK = 1 << 20
_ID_BYTES = 16
_MAX_CODES = 1 << 31  # codes of events and of observations multiply to less than 2**63

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Inventory:
    """The images of a source, sorted by event id, and what is worth telling about the source."""

    table: pa.Table
    heads: tuple[str, ...]
    meta: tuple[str, ...]
    findings: Findings
    empty_events: pa.Table
    """The events without an image, which have no row in `table`: id, place and metadata."""


@dataclass(frozen=True)
class SourceRows:
    """The columns of a source. Rows with the same event id, neighbours or not, are one event."""

    event_ids: pa.Array
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


@dataclass(frozen=True)
class _Images:
    """The images in the order of the inventory."""

    events: Ints
    source: Ints  # place among the source's images
    index: Ints
    n_images: Ints


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
    images, n_duplicates = _order_images(events_R[rows.image_rows], rows.image_uris)
    if len(images.events) == 0:
        raise SchemaError(f"{where}: no image in {len(rows.event_ids)} rows")
    lists_E, counts_E = _observation_lists(rows, events_R[rows.observation_rows], n_events)
    facts, conflicts_E = _event_facts(rows, events_R, n_events)
    has_image_E = np.bincount(images.events, minlength=n_events) > 0
    several_E = pc.list_value_length(lists_E).fill_null(0).to_numpy() > 1

    def ids(chosen_E: npt.NDArray[np.bool_]) -> pa.Array:
        return event_ids_E.take(pa.array(np.flatnonzero(chosen_E)))

    found = findings or Findings()
    found = found.counted(rows_merged=len(events_R) - n_events, duplicate_images=n_duplicates)
    found = found.listed("events_without_image", ids(~has_image_E))
    found = found.listed("events_with_several_observations", ids(several_E & has_image_E))
    found = found.listed("conflicting_metadata", ids(conflicts_E & has_image_E))
    whole = _Whole(rows, images, event_ids_E, lists_E, counts_E, facts)
    return Inventory(
        table=_table(whole, where=where),
        heads=tuple(rows.labels),
        meta=tuple(rows.meta),
        findings=found,
        empty_events=_empty_events(event_ids_E, facts, has_image_E),
    )


def number_events(event_ids: pa.Array) -> tuple[Ints, pa.Array]:
    """The number of each row's event, and the distinct ids, sorted as strings, by that number."""
    encoded = event_ids.dictionary_encode()
    order = pc.sort_indices(encoded.dictionary).to_numpy()
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    return rank[encoded.indices.to_numpy()], encoded.dictionary.take(pa.array(order))


def image_ids(event_ids: pa.Array, image_uris: pa.Array) -> pa.Array:
    """32 hex digits per image: a hash of its event's id and its URI."""
    separator = pa.scalar("\0", TEXT)
    keys = pc.binary_join_element_wise(event_ids.cast(TEXT), image_uris.cast(TEXT), separator)
    digests = b"".join(
        blake2b(key, digest_size=_ID_BYTES).digest()
        for key in keys.cast(pa.large_binary()).to_pylist()
    )
    offsets = np.arange(len(keys) + 1, dtype=np.int64) * 2 * _ID_BYTES
    text = pa.py_buffer(digests.hex().encode())
    return pa.LargeStringArray.from_buffers(len(keys), pa.py_buffer(offsets), text)


def _order_images(events_N: Ints, uris_N: pa.Array) -> tuple[_Images, int]:
    """The images by event, each URI once per event, and the number of repeated ones."""
    encoded = uris_N.dictionary_encode()
    kept = np.arange(len(events_N))
    if len(encoded.dictionary) < len(events_N):
        codes = encoded.indices.to_numpy().astype(np.int64)
        kept = _first_occurrences(events_N * len(encoded.dictionary) + codes)
    source = kept[np.argsort(events_N[kept], kind="stable")]
    events = events_N[source]
    n_images_E = np.bincount(events)
    first_E = np.cumsum(n_images_E) - n_images_E
    index = np.arange(len(events)) - first_E[events]
    return _Images(events, source, index, n_images_E[events]), len(events_N) - len(kept)


def _first_occurrences(keys: Ints) -> Ints:
    """The places, ascending, where each distinct key is first met."""
    return np.sort(np.unique(keys, return_index=True)[1]).astype(np.int64)


def _observation_lists(
    rows: SourceRows, events_M: Ints, n_events: int
) -> tuple[pa.Array, pa.Array]:
    """The list of observations of each event, and how often the source gives each of them."""
    if not rows.labels:
        return pa.nulls(n_events, pa.list_(pa.string())), pa.nulls(n_events, pa.list_(pa.int32()))
    labels = list(rows.labels.values())
    codes, n_codes = _observation_codes(labels, len(events_M))
    kept, times_M = np.arange(len(events_M)), np.ones(len(events_M), np.int32)
    if len(kept) and np.bincount(events_M).max() > 1:
        keys = events_M * n_codes + codes
        _, kept, times = np.unique(keys, return_index=True, return_counts=True)
        times_M[kept] = times
        kept = np.sort(kept)
        labelled = np.zeros(len(events_M), bool)
        for values in labels:
            labelled |= values.is_valid().to_numpy(zero_copy_only=False)
        has_label_E = np.zeros(n_events, bool)
        has_label_E[events_M[labelled]] = True
        kept = kept[labelled[kept] | ~has_label_E[events_M[kept]]]
    order = kept[np.argsort(events_M[kept], kind="stable")]
    counts_E = np.bincount(events_M[order], minlength=n_events)
    offsets = np.concatenate([[0], np.cumsum(counts_E)]).astype(np.int32)
    observations = pa.StructArray.from_arrays(
        [values.take(pa.array(order)) for values in labels], names=list(rows.labels)
    )
    counts = pa.array(times_M[order])
    lists = [pa.ListArray.from_arrays(pa.array(offsets), v) for v in (observations, counts)]
    return lists[0], lists[1]


def _observation_codes(labels: list[pa.Array], n_observations: int) -> tuple[Ints, int]:
    """A number per observation, the same exactly for equal ones, and a bound above all numbers."""
    codes, n_codes = np.zeros(n_observations, np.int64), 1
    for values in labels:
        encoded = values.dictionary_encode()
        n_labels = len(encoded.dictionary) + 1  # the last is null
        codes = codes * n_labels + encoded.indices.fill_null(n_labels - 1).to_numpy()
        n_codes *= n_labels
        if n_codes > _MAX_CODES:
            distinct, inverse = np.unique(codes, return_inverse=True)
            codes, n_codes = inverse.astype(np.int64), len(distinct)
    return codes, n_codes


def _event_facts(
    rows: SourceRows, events_R: Ints, n_events: int
) -> tuple[dict[str, pa.Array], npt.NDArray[np.bool_]]:
    """Per column the first value of each event that is not null; which events have others too."""
    columns = {
        "location_id": rows.location_ids,
        "deployment_id": rows.deployment_ids,
        **{meta_column(name): values for name, values in rows.meta.items()},
    }
    facts = {}
    conflicts_E = np.zeros(n_events, bool)
    for name, values in columns.items():
        if values is None:
            facts[name] = pa.nulls(n_events, TEXT)
            continue
        valid = np.flatnonzero(values.is_valid().to_numpy(zero_copy_only=False))
        first_E = np.full(n_events, -1, np.int64)
        first_E[events_R[valid[::-1]]] = valid[::-1]  # of several values assigned, the last stays
        facts[name] = values.take(pa.array(first_E, mask=first_E < 0))
        if n_events < len(events_R):
            codes = values.dictionary_encode().indices.fill_null(-1).to_numpy()
            differs = codes[valid] != codes[first_E[events_R[valid]]]
            conflicts_E[events_R[valid[differs]]] = True
    return facts, conflicts_E


def _empty_events(
    event_ids_E: pa.Array, facts: Mapping[str, pa.Array], has_image_E: npt.NDArray[np.bool_]
) -> pa.Table:
    empty = pa.array(np.flatnonzero(~has_image_E))
    columns = {"capture_event_id": event_ids_E, **facts}
    return pa.table(
        {name: values.take(empty).cast(pa.string()) for name, values in columns.items()}
    )


@dataclass(frozen=True)
class _Whole:
    rows: SourceRows
    images: _Images
    event_ids: pa.Array
    lists: pa.Array
    counts: pa.Array
    facts: Mapping[str, pa.Array]

    def chunk(self, start: int, stop: int) -> pa.Table:
        """The inventory's rows [start, stop)."""
        images = self.images
        events = pa.array(images.events[start:stop])
        source = pa.array(images.source[start:stop])
        event_ids, uris = self.event_ids.take(events), self.rows.image_uris.take(source)
        of_images = {
            name: pa.nulls(len(events)) if values is None else values.take(source)
            for name, values in (
                ("captured_at", self.rows.captured_at),
                ("boxes", self.rows.boxes),
            )
        }
        return pa.table(
            {
                "image_id": image_ids(event_ids, uris),
                "image_uri": uris,
                "capture_event_id": event_ids,
                "image_index": pa.array(images.index[start:stop]),
                "n_images": pa.array(images.n_images[start:stop]),
                **of_images,
                "observations": self.lists.take(events),
                "observation_counts": self.counts.take(events),
                **{name: values.take(events) for name, values in self.facts.items()},
            }
        )


def _table(whole: _Whole, *, where: str) -> pa.Table:
    schema = inventory_schema(tuple(whole.rows.labels), tuple(whole.rows.meta))
    n_rows = len(whole.images.events)
    return pa.concat_tables(
        conform(whole.chunk(start, min(start + _ROWS_PER_CHUNK, n_rows)), schema, where=where)
        for start in range(0, n_rows, _ROWS_PER_CHUNK)
    )
