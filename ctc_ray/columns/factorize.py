"""Text columns as integer codes, to count and group rows without a Python object per row."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ctc_ray.columns.event_runs import run_starts
from ctc_ray.columns.hashing import hash_text, repeated_hashes

_ROWS_AT_ONCE = 1 << 18
_LONG_RUN = 64  # texts; sorting is fast where ascending runs are longer

Ints = npt.NDArray[np.int64]
Numbers = npt.NDArray[np.int32]


def factorize(
    values: pa.Array | pa.ChunkedArray, *, sort: bool = False
) -> tuple[Numbers, pa.Array]:
    """Integer codes of the values, -1 for null, and the distinct values by code.

    Args:
        values: text, or dictionary-encoded text. Sorting hashes a run of equal neighbours once, and
            reads of a dictionary-encoded column only the dictionary.
        sort: True: the distinct values ascend as strings, and each one occurs. False: they come in
            any order; the dictionary of a dictionary-encoded column is not copied and may hold
            values that do not occur.
    """
    if not sort:
        return _factorize_in_any_order(values)
    if pa.types.is_dictionary(values.type):
        return _factorize_dictionary(values)
    starts, heads = _runs(values)
    codes, names = _factorize_heads(heads)
    return np.repeat(codes, np.diff(starts, append=len(values))), names


def factorize_to_list(values: pa.Array | pa.ChunkedArray) -> tuple[Ints, list[str]]:
    """`factorize(values, sort=True)` with 64-bit codes and a list of the distinct values.

    The codes are wide enough to multiply two of them.
    """
    codes, names = factorize(values, sort=True)
    return codes.astype(np.int64), names.to_pylist()


def _factorize_in_any_order(values: pa.Array | pa.ChunkedArray) -> tuple[Numbers, pa.Array]:
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    encoded = values.dictionary_encode()
    codes: Numbers = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    return codes.astype(np.int32, copy=False), encoded.dictionary


def _runs(values: pa.Array | pa.ChunkedArray) -> tuple[Ints, pa.Array]:
    """The row at which each run of equal values begins, and its value."""
    chunks = values.chunks if isinstance(values, pa.ChunkedArray) else [values]
    pieces = [c.slice(i, _ROWS_AT_ONCE) for c in chunks for i in range(0, len(c), _ROWS_AT_ONCE)]

    def work(piece: pa.Array) -> tuple[Ints, pa.Array]:
        starts = run_starts(piece)
        return starts, piece.take(pa.array(starts))

    with ThreadPoolExecutor(pa.cpu_count()) as pool:
        found = list(pool.map(work, pieces))
    starts, heads, n_rows = [np.zeros(0, np.int64)], [pa.array([], values.type)], 0
    for number, piece in enumerate(pieces):
        continues = number > 0 and piece[0].equals(pieces[number - 1][-1])
        own, first = found[number]
        starts.append(own[int(continues) :] + n_rows)
        heads.append(first[int(continues) :])
        n_rows += len(piece)
    return np.concatenate(starts), pa.concat_arrays(heads)


def _factorize_heads(texts: pa.Array) -> tuple[Numbers, pa.Array]:
    """`factorize(texts, sort=True)` where few neighbours are equal, as the heads of runs."""
    if texts.null_count == 0:
        n_rising = pc.sum(pc.less(texts[:-1], texts[1:])).as_py() or 0
        n_falling = len(texts) - 1 - n_rising
        if n_falling <= 0:
            return np.arange(len(texts), dtype=np.int32), texts
        if n_falling * _LONG_RUN < len(texts) or not _may_repeat(texts):
            return _factorize_by_sorting(texts)
    codes, distinct = _factorize_in_any_order(texts)
    rank_K, names = _factorize_by_sorting(distinct)
    return np.append(rank_K, np.int32(-1))[codes], names


def _factorize_by_sorting(texts: pa.Array) -> tuple[Numbers, pa.Array]:
    """`factorize(texts, sort=True)` without nulls; fast where the texts ascend in long runs."""
    order = pc.sort_indices(texts)
    in_order = texts.take(order)
    is_new = np.ones(len(texts), bool)
    is_new[1:] = np.asarray(pc.not_equal(in_order[1:], in_order[:-1]))
    rank = np.empty(len(texts), np.int32)
    rank[order.to_numpy()] = np.cumsum(is_new, dtype=np.int32) - 1
    return rank, in_order if is_new.all() else in_order.filter(pa.array(is_new))


def _may_repeat(texts: pa.Array) -> bool:
    """False: no two texts are equal. Takes a third of the time of a dictionary."""
    return len(repeated_hashes(hash_text(texts))) > 0


def _factorize_dictionary(
    column: pa.DictionaryArray | pa.ChunkedArray,
) -> tuple[Numbers, pa.Array]:
    """`factorize(column, sort=True)`; the dictionary may hold values that do not occur."""
    codes_N, names = _factorize_in_any_order(column)
    occurs = np.bincount(codes_N + 1, minlength=len(names) + 1)[1:] > 0
    if occurs.all() and ascends(names):
        return codes_N, names
    used = np.flatnonzero(occurs)
    names = names.take(pa.array(used))
    order = pc.sort_indices(names)
    rank = np.full(len(occurs) + 1, -1, np.int32)  # code -1, null, reads the last element
    rank[used[order.to_numpy()]] = np.arange(len(used), dtype=np.int32)
    return rank[codes_N], names.take(order)


def ascends(values: pa.Array | pa.ChunkedArray) -> bool:
    """Whether each value is greater than the one before it; False if there is a null."""
    return bool(pc.all(pc.less(values[:-1], values[1:]), skip_nulls=False, min_count=0).as_py())


def as_dictionary(values: pa.Array | pa.ChunkedArray) -> pa.DictionaryArray:
    """The column dictionary-encoded, its dictionary sorted: 4 bytes per row instead of text."""
    return from_codes(*factorize(values, sort=True))


def concat_dictionaries(parts: Sequence[pa.DictionaryArray]) -> pa.DictionaryArray:
    """The parts as one column that is dictionary-encoded with a sorted dictionary.

    Parts that continue the sorted order of the part before, as the parts of an inventory do, are
    joined without looking up a value.

    Args:
        parts: made by `as_dictionary`.
    """
    indices = [pa.array([], pa.int32())]
    names, n_names, last = [pa.array([], pa.string())], 0, None
    for part in parts:
        shares_value = int(last is not None and part.dictionary[:1].to_pylist() == [last])
        indices.append(pc.add(part.indices, pa.scalar(n_names - shares_value, pa.int32())))
        names.append(part.dictionary[shares_value:])
        n_names += len(names[-1])
        last = part.dictionary[-1].as_py() if len(part.dictionary) else last
    distinct = pa.concat_arrays(names)
    if not ascends(distinct):
        return as_dictionary(pa.chunked_array(parts, pa.dictionary(pa.int32(), pa.string())))
    return pa.DictionaryArray.from_arrays(pa.concat_arrays(indices), distinct)


def from_codes(codes: Ints | Numbers, names: Sequence[str] | pa.Array) -> pa.DictionaryArray:
    """The name of each code, null for -1, dictionary-encoded; the inverse of `factorize`."""
    is_null = codes < 0
    indices = pa.array(codes.astype(np.int32, copy=False), mask=is_null if is_null.any() else None)
    return pa.DictionaryArray.from_arrays(indices, pa.array(names, pa.string()))


def first_rows(codes: Ints | Numbers, n_names: int) -> Ints:
    """The first row of each code 0 … n_names - 1; every code must occur."""
    first = np.empty(n_names, np.int64)
    rows = np.arange(len(codes))[::-1]
    first[codes[::-1]] = rows  # numpy keeps the last value assigned to a code: its first row
    return first
