"""Columns of text as numbers, for counting without a Python object per row."""

from collections.abc import Sequence

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

    Equal neighbours, as the events of an inventory are, are looked at once; of a column that is
    dictionary-encoded only the numbers are.
    """
    chunked = values if isinstance(values, pa.ChunkedArray) else pa.chunked_array([values])
    if pa.types.is_dictionary(chunked.type):
        return _renumber(chunked.unify_dictionaries())
    starts = event_starts(chunked)
    heads = chunked.take(pa.array(starts))
    if len(heads) > 1 and ascends(heads):
        codes, names = np.arange(len(heads)), heads
    else:
        names = pc.unique(heads).drop_null()
        names = names.take(pc.sort_indices(names))
        codes = pc.index_in(heads, value_set=names).fill_null(-1).to_numpy().astype(np.int64)
    if isinstance(names, pa.ChunkedArray):
        names = names.combine_chunks()
    return np.repeat(codes, np.diff(starts, append=len(chunked))), names


def _renumber(coded: pa.ChunkedArray) -> tuple[Ints, pa.Array]:
    """`number` of a column whose chunks have one dictionary, which may hold more than occurs."""
    if coded.num_chunks == 0:
        return np.zeros(0, np.int64), pa.array([], coded.type.value_type)
    codes = [chunk.indices.fill_null(-1).to_numpy().astype(np.int64) for chunk in coded.chunks]
    codes_N, names = np.concatenate(codes), coded.chunk(0).dictionary
    occurs = np.bincount(codes_N + 1, minlength=len(names) + 1)[1:] > 0
    if occurs.all() and ascends(names):
        return codes_N, names
    there = np.flatnonzero(occurs)
    names = names.take(pa.array(there))
    order = pc.sort_indices(names)
    rank = np.full(len(occurs) + 1, -1)  # the last is that of null
    rank[there[order.to_numpy()]] = np.arange(len(there))
    return rank[codes_N], names.take(order)


def ascends(values: pa.Array | pa.ChunkedArray) -> bool:
    """Whether each value is greater than the one before it; a null is not."""
    return bool(pc.all(pc.less(values[:-1], values[1:]), skip_nulls=False, min_count=0).as_py())


def as_dictionary(values: pa.Array | pa.ChunkedArray) -> pa.DictionaryArray:
    """The column dictionary-encoded, its distinct values sorted: 4 bytes a row and no text."""
    codes, names = number(values)
    return named(codes, names)


def named(codes: Ints, names: Sequence[str] | pa.Array) -> pa.DictionaryArray:
    """The name of each number, null for -1, dictionary-encoded."""
    indices = pa.array(codes.astype(np.int32), mask=codes < 0)
    return pa.DictionaryArray.from_arrays(indices, pa.array(names, pa.string()))


def first_rows(codes: Ints, n_names: int) -> Ints:
    """The first row of each number 0 … n_names - 1; every one of them must occur."""
    rows = np.empty(n_names, np.int64)
    places = np.arange(len(codes))[::-1]
    rows[codes[::-1]] = places  # of several values assigned, the last stays
    return rows
