"""Group images into capture events: by deployment, and by gaps in time between images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ctc_ray.inventory.sources.camera_names import in_camera_order

_ID_BYTES = 12
_MICROSECONDS = 1_000_000
_FAR_S = 3600  # no burst of a camera has a pause of an hour

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class GroupedImages:
    """Images sorted by event, and the event id of each."""

    order: Ints
    """Index in the input of each sorted image; an event's images are neighbours, sorted by time."""
    event_ids: pa.Array
    """Event id of each sorted image; large_string."""


def group_by_gap(
    image_uris: pa.Array,
    captured_at: pa.Array,
    deployment_ids: pa.Array | None = None,
    *,
    gap_s: float,
    max_images: int | None = None,
    triggers: Mapping[str, pa.Array] | None = None,
) -> GroupedImages:
    """Capture events: images of one deployment, each at most `gap_s` after the one before it.

    The images of a deployment are sorted by time, to the microsecond, then in the order of the
    camera's counter (`in_camera_order`). An image without a time is its own event. Images without a
    deployment are grouped only with one another. Where the camera wrote the number of its event
    into two neighbouring images, the numbers decide, and not the gap.

    An event id is a hash of the deployment, the first time and the first URI. It does not change
    from run to run, with the order of the input, or when later images are added.

    Args:
        captured_at: timestamp[us]; null is unknown.
        deployment_ids: null is unknown; None: all are unknown.
        gap_s: seconds, at least 0; a gap of exactly this length does not end an event.
        max_images: longer events are cut after every `max_images` images; None: never.
        triggers: `event` and `frame`, the numbers that cameras wrote, null where they wrote none;
            an event's frames ascend. None: all are null.
    """
    n_images = len(image_uris)
    if deployment_ids is None:
        deployment_ids = pa.nulls(n_images, pa.large_string())
    numbers = triggers or dict.fromkeys(("event", "frame"), pa.nulls(n_images, pa.int64()))
    rows = pa.table(
        {"deployment": deployment_ids, "time": captured_at, **numbers, "uri": image_uris}
    )
    keys = [(name, "ascending") for name in rows.column_names]
    order = pc.sort_indices(rows, sort_keys=keys).to_numpy().astype(np.int64)
    rows = rows.take(pa.array(order)).combine_chunks()
    is_same = _is_like_previous(rows, ("time", "deployment", "event", "frame"))
    is_same &= np.asarray(rows["time"][1:].is_valid())  # without a time each is its own event
    by_counter = _by_counter(rows, is_same)
    if by_counter is not None:
        order, rows = order[by_counter], rows.take(pa.array(by_counter)).combine_chunks()
    starts = _starts(rows, gap_s=gap_s, max_images=max_images)
    ids_E = _ids(rows.take(pa.array(starts)))
    n_images_E = np.diff(starts, append=n_images)
    return GroupedImages(order, ids_E.take(pa.array(np.repeat(np.arange(len(starts)), n_images_E))))


def in_camera_order_by(columns: Mapping[str, pa.Array], uris: pa.Array) -> Ints:
    """The indices that sort images by these columns, then in the order of the camera's counter.

    Args:
        columns: each ascending, the first decides most; a null comes last and equals a null.
    """
    rows = pa.table({**columns, "uri": uris})
    keys = [(name, "ascending") for name in rows.column_names]
    order = pc.sort_indices(rows, sort_keys=keys).to_numpy().astype(np.int64)
    rows = rows.take(pa.array(order)).combine_chunks()
    by_counter = _by_counter(rows, _is_like_previous(rows, tuple(columns)))
    result: Ints = order if by_counter is None else order[by_counter]
    return result


def divide_far_apart(event_ids: pa.Array, captured_at: pa.Array) -> tuple[pa.Array, pa.Array]:
    """Event ids, where neighbouring images of an event are more than an hour apart several.

    Some cameras count their sequences from 1 again after a pause, so one id is two events. The
    first part keeps the id, the second is called `<id> part 2`.

    Args:
        event_ids: of each image; null is no event.
        captured_at: timestamp[us]; an image without a time stays in the first part.

    Returns:
        The event id of each image, and the ids that were divided.
    """
    known = pc.and_(event_ids.is_valid(), captured_at.is_valid())
    rows = np.flatnonzero(known.to_numpy(zero_copy_only=False))
    chosen = pa.array(rows)
    codes = event_ids.take(chosen).dictionary_encode().indices.to_numpy()
    micros = captured_at.take(chosen).cast(pa.int64()).to_numpy()
    order = np.lexsort((micros, codes))
    is_same = np.diff(codes[order]) == 0
    is_far = np.concatenate([[0], is_same & (np.diff(micros[order]) > _FAR_S * _MICROSECONDS)])
    n_far = np.cumsum(is_far[: len(order)])
    first = np.concatenate([[True], ~is_same])[: len(order)]
    part = n_far - np.maximum.accumulate(np.where(first, n_far, 0))
    later = rows[order[part > 0]]
    if len(later) == 0:
        return event_ids, event_ids.slice(0, 0)
    numbers = pa.array((part[part > 0] + 1).astype(str), event_ids.type)
    joiner = pa.scalar(" part ", event_ids.type)
    names = pc.binary_join_element_wise(event_ids.take(pa.array(later)), numbers, joiner)
    replacement = np.full(len(event_ids), -1, np.int64)
    replacement[later] = np.arange(len(later))
    new = names.take(pa.array(replacement, mask=replacement < 0))
    return pc.coalesce(new, event_ids), pc.unique(event_ids.take(pa.array(later)))


def _is_like_previous(rows: pa.Table, names: Sequence[str]) -> Bools:
    """Whether each row but the first has the values of the row before it; null equals null."""
    is_same = np.ones(max(rows.num_rows - 1, 0), bool)
    for name in names:
        values = rows[name]
        neither = pc.and_(values[1:].is_null(), values[:-1].is_null())
        same = pc.or_(pc.fill_null(pc.equal(values[1:], values[:-1]), False), neither)
        is_same &= np.asarray(same)
    return is_same


def _by_counter(rows: pa.Table, is_same: Bools) -> Ints | None:
    """The sorted rows, those of one moment in the order of the camera; None: they are already.

    Args:
        is_same: whether each row but the first is of the moment of the row before it.
    """
    if not is_same.any():
        return None
    continues = np.append(False, is_same)
    in_run = continues | np.append(is_same, False)
    tied = np.flatnonzero(in_run)
    paths = rows["uri"].take(pa.array(tied)).combine_chunks()
    order = in_camera_order(paths, np.flatnonzero(~continues[tied]))
    if (order == np.arange(len(order))).all():
        return None
    result = np.arange(rows.num_rows)
    result[tied] = tied[order]
    return result


def _starts(rows: pa.Table, *, gap_s: float, max_images: int | None) -> Ints:
    """The sorted rows at which an event begins."""
    if rows.num_rows == 0:
        return np.zeros(0, np.int64)
    codes = rows["deployment"].combine_chunks().dictionary_encode().indices.fill_null(-1).to_numpy()
    times = rows["time"].combine_chunks()
    dated = times.is_valid().to_numpy(zero_copy_only=False)
    micros = times.cast(pa.int64()).fill_null(0).to_numpy()
    begins = np.ones(rows.num_rows, bool)
    events, frames = (rows[name].combine_chunks() for name in ("event", "frame"))
    counted = np.asarray(events.is_valid())
    both_counted = counted[1:] & counted[:-1]
    number, frame = (v.fill_null(0).to_numpy() for v in (events, frames))
    is_next = (number[1:] == number[:-1]) & (frame[1:] > frame[:-1])
    is_near = micros[1:] - micros[:-1] <= gap_s * _MICROSECONDS
    begins[1:] = (
        (codes[1:] != codes[:-1])
        | ~(dated[1:] & dated[:-1])
        | ~np.where(both_counted, is_next, is_near)
    )
    if max_images is not None:
        first = np.maximum.accumulate(np.where(begins, np.arange(len(begins)), 0))
        begins |= (np.arange(len(begins)) - first) % max_images == 0
    return np.flatnonzero(begins).astype(np.int64)


def _ids(first_E: pa.Table) -> pa.Array:
    """24 hex digits per event: a hash of its first image's deployment, time and URI."""
    times = first_E["time"].cast(pa.int64()).to_pylist()
    names = zip(first_E["deployment"].to_pylist(), times, first_E["uri"].to_pylist(), strict=True)
    keys = (repr(name).encode() for name in names)
    digests = [blake2b(key, digest_size=_ID_BYTES).hexdigest() for key in keys]
    return pa.array(digests, pa.large_string())
