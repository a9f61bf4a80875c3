"""Counts of animals, whose numbers sources write as 1, "1" or "1.0"."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ctc_ray.columns.arrays import TEXT

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


def whole_numbers(values: pa.Array) -> pa.Array:
    """The texts, `1` for `1.0`, `01` and ` 1 `; any other text as it is."""
    pattern = r"^\s*[+]?(-?)0*([0-9]+)(?:[.]0*)?\s*$"
    return pc.replace_substring_regex(values, pattern, r"\1\2")


def add_up(
    labels: Mapping[str, pa.Array], units_M: Ints, *, counts: str, by: str
) -> tuple[dict[str, pa.Array], Bools]:
    """One observation for all of a unit, if they are of one species and all have a number.

    One adult and two young foxes are three foxes. The other labels of the unit stay where all its
    observations agree, and are null elsewhere.

    Args:
        labels: head -> label of each of M observations.
        units_M: which observations are counted together; -1: this one alone.
        counts: the head with the numbers.
        by: the head with the species.

    Returns:
        The labels, and which observations remain.
    """
    remain = np.ones(len(units_M), bool)
    if counts not in labels:
        return dict(labels), remain
    together = np.flatnonzero(units_M >= 0)
    if len(together) == 0:
        return dict(labels), remain
    codes = np.unique(units_M[together], return_inverse=True)[1]
    sizes = np.bincount(codes)
    is_number = pc.fill_null(pc.match_substring_regex(labels[counts], "^[0-9]{1,9}$"), False)
    number_M = is_number.to_numpy(zero_copy_only=False)[together]
    alike = np.bincount(codes, number_M) == sizes
    alike &= (sizes > 1) & _all_equal(labels[by], together, codes)
    first = together[np.unique(codes, return_index=True)[1]]
    united = np.flatnonzero(alike)
    remain[together[alike[codes]]] = False
    remain[first[united]] = True
    text = pc.if_else(is_number, labels[counts], pa.scalar("0", TEXT))
    numbers = text.cast(pa.int64()).to_numpy(zero_copy_only=False)[together]
    sums = np.bincount(codes, numbers).astype(np.int64)
    result = {}
    for head, values in labels.items():
        new = np.full(len(units_M), -1, np.int64)
        new[first[united]] = np.arange(len(united))
        if head == counts:
            replaced = pa.array(sums[united]).cast(pa.string()).cast(TEXT)
        else:
            agrees = _all_equal(values, together, codes)[united]
            kept = pa.array(first[united], mask=~agrees)
            replaced = values.take(kept)
        own = pa.array(np.where(new >= 0, len(values) + new, np.arange(len(values))))
        result[head] = pa.concat_arrays([values, replaced.cast(values.type)]).take(own)
    return result, remain


def _all_equal(values: pa.Array, rows: Ints, codes: Ints) -> Bools:
    """Whether all rows of a code have one value; null is a value of its own."""
    encoded = values.dictionary_encode(null_encoding="encode").indices.to_numpy()[rows]
    low = np.full(codes.max() + 1, np.iinfo(np.int64).max)
    high = np.full(codes.max() + 1, -1)
    np.minimum.at(low, codes, encoded)
    np.maximum.at(high, codes, encoded)
    return np.asarray(low == high)
