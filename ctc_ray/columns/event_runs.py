"""Runs of equal neighbouring values: where each capture event begins, and cuts between events."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc


def cut_by_events(
    event_ids: pa.Array | pa.ChunkedArray, images_per_unit: int
) -> list[tuple[int, int]]:
    """Row ranges [start, stop) of about `images_per_unit` rows that never split an event.

    Rows of an event must be neighbours. A longer event is a unit of its own.
    """
    return cut_at_starts(event_starts(event_ids), len(event_ids), images_per_unit)


def cut_at_starts(
    starts: npt.NDArray[np.int64], n_rows: int, images_per_unit: int
) -> list[tuple[int, int]]:
    """Row ranges of about `images_per_unit` rows that begin and end at one of the starts."""
    cuts, start = [], 0
    while start < n_rows:
        place = int(np.searchsorted(starts, start + images_per_unit, side="right")) - 1
        stop = int(starts[place]) if starts[place] > start else _next_start(starts, start, n_rows)
        if n_rows - start <= images_per_unit:
            stop = n_rows
        cuts.append((start, stop))
        start = stop
    return cuts


def _next_start(starts: npt.NDArray[np.int64], start: int, n_rows: int) -> int:
    place = int(np.searchsorted(starts, start, side="right"))
    return int(starts[place]) if place < len(starts) else n_rows


def event_starts(event_ids: pa.Array | pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """The row at which each run of equal values begins; nulls are equal to one another.

    Args:
        event_ids: text, or dictionary-encoded text.
    """
    if len(event_ids) == 0:
        return np.zeros(0, np.int64)
    if pa.types.is_dictionary(event_ids.type):
        event_ids = _indices(event_ids)
    one, other = event_ids[1:], event_ids[:-1]
    changes = pc.not_equal(one, other)
    if event_ids.null_count:
        changes = pc.or_(changes.fill_null(False), pc.not_equal(one.is_null(), other.is_null()))
    starts: npt.NDArray[np.int64] = np.flatnonzero(np.asarray(changes)) + 1
    return np.insert(starts, 0, 0)


def _indices(coded: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    if isinstance(coded, pa.ChunkedArray):
        return pa.chunked_array([chunk.indices for chunk in coded.unify_dictionaries().chunks])
    return coded.indices
