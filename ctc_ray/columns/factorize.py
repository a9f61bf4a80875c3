"""Columns of text as numbers, for counting without a Python object per row."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ctc_ray.columns.event_runs import event_starts
from ctc_ray.columns.hashing import hash_text, repeated_hashes

_ROWS_AT_ONCE = 1 << 18
_LONG_RUN = 64  # texts; where they rise for longer, a sort is short

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
    """What `number` gives, as numbers that can be multiplied, and as a list."""
    codes, names = number(values)
    return codes.astype(np.int64), names.to_pylist()


def number(values: pa.Array | pa.ChunkedArray) -> tuple[Numbers, pa.Array]:
    """The number of each value among the distinct ones, -1 for null, and these, sorted as strings.

    Equal neighbours, as the events of an inventory are, are looked at once; of a column that is
    dictionary-encoded only the numbers are.
    """
    if pa.types.is_dictionary(values.type):
        return _renumber(values)
    starts, heads = _runs(values)
    codes, names = _ranked(heads)
    return np.repeat(codes, np.diff(starts, append=len(values))), names


def _runs(values: pa.Array | pa.ChunkedArray) -> tuple[Ints, pa.Array]:
    """The row at which each run of equal values begins, and its value."""
    chunks = values.chunks if isinstance(values, pa.ChunkedArray) else [values]
    pieces = [c.slice(i, _ROWS_AT_ONCE) for c in chunks for i in range(0, len(c), _ROWS_AT_ONCE)]

    def work(piece: pa.Array) -> tuple[Ints, pa.Array]:
        starts = event_starts(piece)
        return starts, piece.take(pa.array(starts))

    with ThreadPoolExecutor(pa.cpu_count()) as pool:
        found = list(pool.map(work, pieces))
    starts, heads, n_rows = [np.zeros(0, np.int64)], [pa.array([], values.type)], 0
    for place, piece in enumerate(pieces):
        goes_on = place > 0 and piece[0].equals(pieces[place - 1][-1])
        own, first = found[place]
        starts.append(own[int(goes_on) :] + n_rows)
        heads.append(first[int(goes_on) :])
        n_rows += len(piece)
    return np.concatenate(starts), pa.concat_arrays(heads)


def _ranked(texts: pa.Array) -> tuple[Numbers, pa.Array]:
    """`number` of texts of which few, or none, are equal to the one before."""
    if texts.null_count == 0:
        n_rising = pc.sum(pc.less(texts[:-1], texts[1:])).as_py() or 0
        n_falling = len(texts) - 1 - n_rising
        if n_falling <= 0:
            return np.arange(len(texts), dtype=np.int32), texts
        if n_falling * _LONG_RUN < len(texts) or not _may_repeat(texts):
            return _sorted(texts)
    codes, distinct = coded(texts)
    rank_K, names = _sorted(distinct)
    return np.append(rank_K, np.int32(-1))[codes], names


def _sorted(texts: pa.Array) -> tuple[Numbers, pa.Array]:
    """`number` of texts none of which is null, by a sort: short where they come in long runs."""
    order = pc.sort_indices(texts)
    in_order = texts.take(order)
    is_new = np.ones(len(texts), bool)
    is_new[1:] = np.asarray(pc.not_equal(in_order[1:], in_order[:-1]))
    rank = np.empty(len(texts), np.int32)
    rank[order.to_numpy()] = np.cumsum(is_new, dtype=np.int32) - 1
    return rank, in_order if is_new.all() else in_order.filter(pa.array(is_new))


def _may_repeat(texts: pa.Array) -> bool:
    """False: no two of them are equal. A third of the time that a dictionary takes."""
    return len(repeated_hashes(hash_text(texts))) > 0


def _renumber(column: pa.DictionaryArray | pa.ChunkedArray) -> tuple[Numbers, pa.Array]:
    """`number` of a coded column; its dictionary may hold more than occurs."""
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
    return named(*number(values))


def joined(parts: Sequence[pa.DictionaryArray]) -> pa.DictionaryArray:
    """One such column of several that `as_dictionary` has made.

    Of parts that go on where the one before ended, as those of an inventory do, no value is looked
    up again.
    """
    indices = [pa.array([], pa.int32())]
    names, n_names, last = [pa.array([], pa.string())], 0, None
    for part in parts:
        goes_on = int(last is not None and part.dictionary[:1].to_pylist() == [last])
        indices.append(pc.add(part.indices, pa.scalar(n_names - goes_on, pa.int32())))
        names.append(part.dictionary[goes_on:])
        n_names += len(names[-1])
        last = part.dictionary[-1].as_py() if len(part.dictionary) else last
    distinct = pa.concat_arrays(names)
    if not ascends(distinct):
        return as_dictionary(pa.chunked_array(parts, pa.dictionary(pa.int32(), pa.string())))
    return pa.DictionaryArray.from_arrays(pa.concat_arrays(indices), distinct)


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


def first_rows(codes: Ints | Numbers, n_names: int) -> Ints:
    """The first row of each number 0 … n_names - 1; every one of them must occur."""
    rows = np.empty(n_names, np.int64)
    places = np.arange(len(codes))[::-1]
    rows[codes[::-1]] = places  # of several values assigned, the last stays
    return rows
