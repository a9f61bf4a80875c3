"""Columns of text as numbers, for counting without a Python object per row."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ctc_ray.units import event_starts

Ints = npt.NDArray[np.int64]
Numbers = npt.NDArray[np.int32]


def coded(values: pa.Array | pa.ChunkedArray) -> tuple[Numbers, pa.Array]:
    """A code of each value, -1 of null, and the distinct values by code, in any order.

    Of a column that is dictionary-encoded nothing is copied, and values may be there that do not
    occur.
    """
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    encoded = values.dictionary_encode()
    codes: Numbers = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    return codes.astype(np.int32, copy=False), encoded.dictionary


def encode(values: pa.Array | pa.ChunkedArray) -> tuple[Ints, list[str]]:
    """The number of each value among the distinct ones, -1 for null, and these, sorted."""
    codes, names = number(values)
    return codes, names.to_pylist()


def number(values: pa.Array | pa.ChunkedArray) -> tuple[Ints, pa.Array]:
    """The same with the distinct values as a column.

    Equal neighbours, as the events of an inventory are, are looked at once; of a column that is
    dictionary-encoded only the numbers are.
    """
    codes, names = _numbers(values)
    return codes.astype(np.int64), names


def _numbers(values: pa.Array | pa.ChunkedArray) -> tuple[Numbers, pa.Array]:
    chunked = values if isinstance(values, pa.ChunkedArray) else pa.chunked_array([values])
    if pa.types.is_dictionary(chunked.type):
        return _renumber(chunked.unify_dictionaries())
    starts = event_starts(chunked)
    heads = chunked.take(pa.array(starts))
    if len(heads) > 1 and ascends(heads):
        codes, names = np.arange(len(heads), dtype=np.int32), heads
    else:
        names = pc.unique(heads).drop_null()
        names = names.take(pc.sort_indices(names))
        codes = pc.index_in(heads, value_set=names).fill_null(-1).to_numpy()
    if isinstance(names, pa.ChunkedArray):
        names = names.combine_chunks()
    return np.repeat(codes, np.diff(starts, append=len(chunked))), names


def _renumber(column: pa.ChunkedArray) -> tuple[Numbers, pa.Array]:
    """`number` of a column whose chunks have one dictionary, which may hold more than occurs."""
    codes_N, names = coded(column)
    occurs = np.bincount(codes_N + 1, minlength=len(names) + 1)[1:] > 0
    if occurs.all() and ascends(names):
        return codes_N, names
    there = np.flatnonzero(occurs)
    names = names.take(pa.array(there))
    order = pc.sort_indices(names)
    rank = np.full(len(occurs) + 1, -1, np.int32)  # the last is that of null
    rank[there[order.to_numpy()]] = np.arange(len(there), dtype=np.int32)
    return rank[codes_N], names.take(order)


def ascends(values: pa.Array | pa.ChunkedArray) -> bool:
    """Whether each value is greater than the one before it; a null is not."""
    return bool(pc.all(pc.less(values[:-1], values[1:]), skip_nulls=False, min_count=0).as_py())


def as_dictionary(values: pa.Array | pa.ChunkedArray) -> pa.DictionaryArray:
    """The column dictionary-encoded, its distinct values sorted: 4 bytes a row and no text."""
    return named(*_numbers(values))


def joined(parts: Sequence[pa.DictionaryArray]) -> pa.DictionaryArray:
    """One such column of several that `as_dictionary` has made.

    Of parts that go on where the one before ended, as those of an inventory do, no value is looked
    up again.
    """
    parts = [part for part in parts if len(part)]
    last = [part.dictionary[-1].as_py() for part in parts if len(part.dictionary)]
    first = [part.dictionary[0].as_py() for part in parts if len(part.dictionary)]
    if len(last) < max(len(parts), 1) or any(a > b for a, b in zip(last, first[1:], strict=False)):
        return as_dictionary(pa.chunked_array(parts, pa.dictionary(pa.int32(), pa.string())))
    indices, names, n_names = [], [], 0
    for place, part in enumerate(parts):
        goes_on = place > 0 and first[place] == last[place - 1]
        indices.append(pc.add(part.indices, pa.scalar(n_names - goes_on, pa.int32())))
        names.append(part.dictionary[int(goes_on) :])
        n_names += len(names[-1])
    return pa.DictionaryArray.from_arrays(pa.concat_arrays(indices), pa.concat_arrays(names))


def named(codes: Ints | Numbers, names: Sequence[str] | pa.Array) -> pa.DictionaryArray:
    """The name of each number, null for -1, dictionary-encoded."""
    absent = codes < 0
    indices = pa.array(codes.astype(np.int32, copy=False), mask=absent if absent.any() else None)
    return pa.DictionaryArray.from_arrays(indices, pa.array(names, pa.string()))


def run_starts(columns: Sequence[Numbers]) -> Ints:
    """The rows that differ from the row before them in any column."""
    differs = np.ones(len(columns[0]), bool)
    differs[1:] = False
    for values in columns:
        differs[1:] |= values[1:] != values[:-1]
    return np.flatnonzero(differs)


def first_rows(codes: Ints, n_names: int) -> Ints:
    """The first row of each number 0 … n_names - 1; every one of them must occur."""
    rows = np.empty(n_names, np.int64)
    places = np.arange(len(codes))[::-1]
    rows[codes[::-1]] = places  # of several values assigned, the last stays
    return rows
