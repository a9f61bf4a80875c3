"""Columns of text as numbers, for counting without a Python object per row."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Ints = npt.NDArray[np.int64]


def encode(values: pa.Array | pa.ChunkedArray) -> tuple[Ints, list[str]]:
    """The number of each value among the distinct ones, -1 for null, and these, sorted."""
    codes, names = number(values)
    return codes, names.to_pylist()


def number(values: pa.Array | pa.ChunkedArray) -> tuple[Ints, pa.Array]:
    """The same with the distinct values as a column.

    Equal neighbours, as the events of an inventory are, are looked at once.
    """
    chunked = values if isinstance(values, pa.ChunkedArray) else pa.chunked_array([values])
    starts = _run_starts(chunked)
    heads = chunked.take(pa.array(starts))
    if len(heads) > 1 and pc.all(pc.less(heads[:-1], heads[1:]), skip_nulls=False).as_py():
        codes, names = np.arange(len(heads)), heads
    else:
        names = pc.unique(heads).drop_null()
        names = names.take(pc.sort_indices(names))
        codes = pc.index_in(heads, value_set=names).fill_null(-1).to_numpy().astype(np.int64)
    if isinstance(names, pa.ChunkedArray):
        names = names.combine_chunks()
    return np.repeat(codes, np.diff(starts, append=len(chunked))), names


def n_runs(values: pa.Array | pa.ChunkedArray) -> int:
    """Of a column whose equal values are neighbours: how many different ones there are."""
    return len(_run_starts(values))


def _run_starts(values: pa.Array | pa.ChunkedArray) -> Ints:
    """The places at which a value differs from the one before; nulls are equal to one another."""
    if len(values) == 0:
        return np.zeros(0, np.int64)
    one, other = values[1:], values[:-1]
    differs = pc.not_equal(one, other).fill_null(False)
    differs = pc.or_(differs, pc.not_equal(one.is_null(), other.is_null()))
    starts = np.flatnonzero(np.asarray(differs)) + 1
    return np.concatenate([[0], starts]).astype(np.int64)


def first_rows(codes: Ints, n_names: int) -> Ints:
    """The first row of each number 0 … n_names - 1; every one of them must occur."""
    rows = np.empty(n_names, np.int64)
    places = np.arange(len(codes))[::-1]
    rows[codes[::-1]] = places  # of several values assigned, the last stays
    return rows
