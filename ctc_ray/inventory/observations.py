"""The observations of each capture event: united, each once, those that say nothing left out.

E capture events, M observations of the source.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Ints = npt.NDArray[np.int64]

_MAX_CODES = 1 << 31  # codes of events and of observations multiply to less than 2**63


def coded(values: pa.Array) -> tuple[npt.NDArray[np.int32], pa.Array]:
    """A code of each value, -1 of null, and the distinct values by code."""
    encoded = values.dictionary_encode()
    codes: npt.NDArray[np.int32] = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    return codes.astype(np.int32, copy=False), encoded.dictionary


def observation_lists(
    labels: Mapping[str, pa.Array], events_M: npt.NDArray[np.int32], n_events: int
) -> pa.Array:
    """The list of observations of each event, in the order of their first occurrence.

    An observation without any label is kept only if its event has no other.

    Args:
        labels: head -> label of each observation; null is missing.
        events_M: number of each observation's event.
    """
    if not labels:
        return pa.nulls(n_events, pa.list_(pa.string()))
    columns = {head: coded(values) for head, values in labels.items()}
    codes, n_codes = _observation_codes(columns)
    keys = events_M * np.int64(n_codes) + codes
    kept = np.flatnonzero(np.append(True, keys[1:] != keys[:-1]))[: len(keys)]
    if len(kept) and np.bincount(events_M[kept]).max() > 1:
        first = np.unique(keys[kept], return_index=True)[1]
        kept = kept[np.sort(first)]
        labelled = np.zeros(len(kept), bool)
        for values, _ in columns.values():
            labelled |= values[kept] >= 0
        has_label_E = np.zeros(n_events, bool)
        has_label_E[events_M[kept[labelled]]] = True
        kept = kept[labelled | ~has_label_E[events_M[kept]]]
    order = kept[np.argsort(events_M[kept], kind="stable")]
    counts_E = np.bincount(events_M[order], minlength=n_events)
    offsets = np.concatenate([[0], np.cumsum(counts_E)]).astype(np.int32)
    observations = pa.StructArray.from_arrays(
        [
            dictionary.take(pa.array(values[order], mask=values[order] < 0)).cast(pa.string())
            for values, dictionary in columns.values()
        ],
        names=list(columns),
    )
    return pa.ListArray.from_arrays(pa.array(offsets), observations)


def _observation_codes(
    columns: Mapping[str, tuple[npt.NDArray[np.int32], pa.Array]],
) -> tuple[Ints, int]:
    """A number per observation, the same exactly for equal ones, and a bound above all numbers."""
    total, n_total = np.zeros(1, np.int64), 1
    for codes, dictionary in columns.values():
        n_labels = len(dictionary) + 1  # the last is null
        total = total * n_labels + np.where(codes < 0, n_labels - 1, codes)
        n_total *= n_labels
        if n_total > _MAX_CODES:
            distinct, total = np.unique(total, return_inverse=True)
            n_total = len(distinct)
    return total, n_total
