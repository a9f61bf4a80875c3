"""Images without an event become capture events: by deployment, and by the gaps between them."""

from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

_ID_BYTES = 12
_MICROSECONDS = 1_000_000

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class GroupedImages:
    """Images in the order of their events, and each one's event."""

    order: Ints
    """Place of each image in the input; an event's images are neighbours, in order of time."""
    event_ids: pa.Array
    """In that order; large_string."""


def group_by_gap(
    image_uris: pa.Array,
    captured_at: pa.Array,
    deployment_ids: pa.Array | None = None,
    *,
    gap_s: float,
    max_images: int | None = None,
) -> GroupedImages:
    """Capture events: images of one deployment, each at most `gap_s` after the one before it.

    Within a deployment images are ordered by time, to the microsecond, then by URI. An image
    without a time is an event of its own, and so is one whose deployment nobody knows only together
    with others of which nobody knows it. An id is a hash of deployment, first time and first URI:
    the same on every run, in any order of the input, and when later images come.

    Args:
        captured_at: timestamp[us]; null is not known.
        deployment_ids: null is not known.
        gap_s: seconds, at least 0; a gap of exactly this much does not end an event.
        max_images: an event that would be longer is cut after this many.
    """
    n_images = len(image_uris)
    if deployment_ids is None:
        deployment_ids = pa.nulls(n_images, pa.large_string())
    rows = pa.table({"deployment": deployment_ids, "time": captured_at, "uri": image_uris})
    keys = [(name, "ascending") for name in rows.column_names]
    order = pc.sort_indices(rows, sort_keys=keys).to_numpy().astype(np.int64)
    rows = rows.take(pa.array(order))
    starts = _starts(rows, gap_s=gap_s, max_images=max_images)
    ids_E = _ids(rows.take(pa.array(starts)))
    n_images_E = np.diff(starts, append=n_images)
    return GroupedImages(order, ids_E.take(pa.array(np.repeat(np.arange(len(starts)), n_images_E))))


def _starts(rows: pa.Table, *, gap_s: float, max_images: int | None) -> Ints:
    """The places of the sorted rows at which an event begins."""
    if rows.num_rows == 0:
        return np.zeros(0, np.int64)
    codes = rows["deployment"].combine_chunks().dictionary_encode().indices.fill_null(-1).to_numpy()
    times = rows["time"].combine_chunks()
    dated = times.is_valid().to_numpy(zero_copy_only=False)
    micros = times.cast(pa.int64()).fill_null(0).to_numpy()
    begins = np.ones(rows.num_rows, bool)
    begins[1:] = (
        (codes[1:] != codes[:-1])
        | ~(dated[1:] & dated[:-1])
        | (micros[1:] - micros[:-1] > gap_s * _MICROSECONDS)
    )
    if max_images is not None:
        first = np.maximum.accumulate(np.where(begins, np.arange(len(begins)), 0))
        begins |= (np.arange(len(begins)) - first) % max_images == 0
    return np.flatnonzero(begins).astype(np.int64)


def _ids(first_E: pa.Table) -> pa.Array:
    """24 hex digits per event, from its first image."""
    times = first_E["time"].cast(pa.int64()).to_pylist()
    names = zip(first_E["deployment"].to_pylist(), times, first_E["uri"].to_pylist(), strict=True)
    keys = (repr(name).encode() for name in names)
    digests = [blake2b(key, digest_size=_ID_BYTES).hexdigest() for key in keys]
    return pa.array(digests, pa.large_string())
