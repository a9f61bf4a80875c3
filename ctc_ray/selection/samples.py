"""A small sample of many images that shows what there is."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Codes = npt.NDArray[np.int64]


def spread_sample(rows: pa.Table, n_images: int, *, over: Sequence[str]) -> pa.Table:
    """At most so many of the rows, taken in turn from the values of the first column of `over`.

    Within each value they are taken in turn from the values of the next column, and so on; null is
    a value. Which ones is decided by `image_id`, a hash: the order of the rows changes nothing.

    Returns:
        Rows in the order of these columns, nulls last, then of `image_id`.
    """
    rows = rows.sort_by([("image_id", "ascending")])
    groups = [np.zeros(rows.num_rows, np.int64)]
    for column in over:
        codes = rows[column].combine_chunks().dictionary_encode("encode").indices.to_numpy()
        groups.append(groups[-1] * (int(codes.max(initial=0)) + 1) + codes)
    turns = np.arange(rows.num_rows)
    for group in reversed(groups):
        turns = _places_in_group(group, turns)
    chosen = rows.take(pa.array(np.flatnonzero(turns < n_images)))
    return chosen.sort_by([(column, "ascending") for column in (*over, "image_id")])


def _places_in_group(group_N: Codes, order_N: Codes) -> Codes:
    """The place of each row among the rows of its group, from 0; equal orders as they stand."""
    sorted_N = np.lexsort((np.arange(len(group_N)), order_N, group_N))
    starts_N = np.searchsorted(group_N[sorted_N], group_N[sorted_N], side="left")
    places_N = np.empty(len(group_N), np.int64)
    places_N[sorted_N] = np.arange(len(group_N)) - starts_N
    return places_N
