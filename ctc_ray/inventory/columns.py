"""Columns of text as numbers, for counting without a Python object per row."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ctc_ray.units import event_starts

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
    starts = event_starts(chunked)
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


def first_rows(codes: Ints, n_names: int) -> Ints:
    """The first row of each number 0 … n_names - 1; every one of them must occur."""
    rows = np.empty(n_names, np.int64)
    places = np.arange(len(codes))[::-1]
    rows[codes[::-1]] = places  # of several values assigned, the last stays
    return rows
