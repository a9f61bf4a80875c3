"""A small sample of images in which rare classes are represented."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Codes = npt.NDArray[np.int64]


def stratified_sample(
    rows: pa.Table, n_images: int, *, over: Sequence[str], by: str = "image_id"
) -> pa.Table:
    """At most `n_images` rows, drawn round-robin over the values of the columns `over`.

    Rows are drawn in turn from each value of the first column, within a value in turn from each
    value of the second column, and so on. Null counts as a value. The column `by` decides which
    rows are drawn, so the order of the rows does not matter.

    Args:
        over: columns of plain text, not dictionary-encoded.
        by: a column of hashes, as `image_id` is.

    Returns:
        Rows sorted by the columns `over`, nulls last, then by the column `by`.
    """
    rows = rows.sort_by([(by, "ascending")])
    groups = [np.zeros(rows.num_rows, np.int64)]
    for column in over:
        codes = rows[column].combine_chunks().dictionary_encode("encode").indices.to_numpy()
        groups.append(groups[-1] * (int(codes.max(initial=0)) + 1) + codes)
    turns = np.arange(rows.num_rows)
    for group in reversed(groups):
        turns = _ranks_in_group(group, turns)
    chosen = rows.take(pa.array(np.flatnonzero(turns < n_images)))
    return chosen.sort_by([(column, "ascending") for column in (*over, by)])


def _ranks_in_group(group_N: Codes, order_N: Codes) -> Codes:
    """The rank of each row by `order_N` among the rows of its group, from 0; ties by row."""
    sorted_N = np.lexsort((np.arange(len(group_N)), order_N, group_N))
    starts_N = np.searchsorted(group_N[sorted_N], group_N[sorted_N], side="left")
    ranks_N = np.empty(len(group_N), np.int64)
    ranks_N[sorted_N] = np.arange(len(group_N)) - starts_N
    return ranks_N
