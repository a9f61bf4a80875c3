"""Columns of text as numbers, for counting without a Python object per row."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Ints = npt.NDArray[np.int64]


def encode(values: pa.Array | pa.ChunkedArray) -> tuple[Ints, list[str]]:
    """The number of each value among the distinct ones, -1 for null, and these, sorted."""
    chunked = values if isinstance(values, pa.ChunkedArray) else pa.chunked_array([values])
    names = pc.unique(chunked).drop_null()
    names = names.take(pc.sort_indices(names))
    codes = pc.index_in(chunked, value_set=names).fill_null(-1)
    return codes.to_numpy().astype(np.int64), names.to_pylist()


def first_rows(codes: Ints, n_names: int) -> Ints:
    """The first row of each number 0 … n_names - 1; every one of them must occur."""
    rows = np.empty(n_names, np.int64)
    places = np.arange(len(codes))[::-1]
    rows[codes[::-1]] = places  # of several values assigned, the last stays
    return rows
