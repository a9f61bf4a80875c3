"""Runs of equal neighbouring rows: where capture events begin, and cuts between events."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

IMAGES_PER_STACK = 3
"""Images of an event that a stack holds: one per channel."""


def cut_by_events(
    event_ids: pa.Array | pa.ChunkedArray, images_per_unit: int
) -> list[tuple[int, int]]:
    """Row ranges [start, stop) of about `images_per_unit` rows that never split an event.

    Rows of an event must be neighbours. A longer event is a range of its own.
    """
    return cut_at_starts(run_starts(event_ids), len(event_ids), images_per_unit)


def cut_at_starts(
    starts: npt.NDArray[np.int64], n_rows: int, images_per_unit: int
) -> list[tuple[int, int]]:
    """Row ranges [start, stop) of about `images_per_unit` rows, cut only at `starts`.

    Args:
        starts: rows at which a range may begin, ascending; the first is 0.
    """
    cuts, start = [], 0
    while start < n_rows:
        index = int(np.searchsorted(starts, start + images_per_unit, side="right")) - 1
        stop = int(starts[index]) if starts[index] > start else _next_start(starts, start, n_rows)
        if n_rows - start <= images_per_unit:
            stop = n_rows
        cuts.append((start, stop))
        start = stop
    return cuts


def _next_start(starts: npt.NDArray[np.int64], start: int, n_rows: int) -> int:
    index = int(np.searchsorted(starts, start, side="right"))
    return int(starts[index]) if index < len(starts) else n_rows


def run_starts(values: pa.Array | pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """The row at which each run of equal values begins, ascending; two nulls are equal.

    Args:
        values: text, e.g. event ids, or dictionary-encoded text.
    """
    if len(values) == 0:
        return np.zeros(0, np.int64)
    if pa.types.is_dictionary(values.type):
        values = _indices(values)
    later, before = values[1:], values[:-1]
    changes = pc.not_equal(later, before)
    if values.null_count:
        changes = pc.or_(changes.fill_null(False), pc.not_equal(later.is_null(), before.is_null()))
    starts: npt.NDArray[np.int64] = np.flatnonzero(np.asarray(changes)) + 1
    return np.insert(starts, 0, 0)


def run_starts_of_codes(columns: Sequence[npt.NDArray[np.int32]]) -> npt.NDArray[np.int64]:
    """The rows that differ from the row before them in any column, ascending; row 0 is one.

    Args:
        columns: codes as `factorize` gives them, all of the same length > 0.
    """
    differs = np.ones(len(columns[0]), bool)
    differs[1:] = False
    for values in columns:
        differs[1:] |= values[1:] != values[:-1]
    return np.flatnonzero(differs)


def _indices(encoded: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    if isinstance(encoded, pa.ChunkedArray):
        return pa.chunked_array([chunk.indices for chunk in encoded.unify_dictionaries().chunks])
    return encoded.indices
