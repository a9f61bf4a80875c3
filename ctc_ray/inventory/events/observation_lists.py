"""The list of distinct observations of each capture event.

E capture events, M observations of the source.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ctc_ray.columns.event_runs import run_starts_of_codes
from ctc_ray.columns.factorize import factorize

Ints = npt.NDArray[np.int64]
Numbers = npt.NDArray[np.int32]

_MAX_CODES = 1 << 31  # codes of events and of observations multiply to less than 2**63


def observation_lists(
    labels: Mapping[str, pa.Array], events_M: Numbers, n_events: int
) -> tuple[pa.Array, pa.Array]:
    """The distinct observations of each event, and how often the source gives each of them.

    An observation without any label is kept only if its event has no other.

    Args:
        labels: head -> label of each observation; null is missing.
        events_M: event index of each observation.

    Returns:
        Per event a list of structs (head -> label) in the order of first occurrence, and a list of
        counts. Without heads both are null for every event.
    """
    if not labels:
        return pa.nulls(n_events, pa.list_(pa.string())), pa.nulls(n_events, pa.list_(pa.int32()))
    columns = {head: factorize(values) for head, values in labels.items()}
    # equal observations are mostly neighbours, so few runs remain to be compared
    starts = run_starts_of_codes([events_M, *(codes for codes, _ in columns.values())])
    n_equal = np.diff(starts, append=len(events_M))
    columns = {head: (codes[starts], names) for head, (codes, names) in columns.items()}
    events_M = events_M[starts]
    if np.bincount(events_M).max(initial=0) <= 1:  # every event has one observation
        kept, counts = np.arange(len(events_M)), n_equal
    else:
        codes, n_codes = _observation_codes(columns)
        kept, counts = _distinct(events_M * np.int64(n_codes) + codes, n_equal)
    if np.bincount(events_M[kept]).max(initial=0) > 1:
        labelled = np.zeros(len(kept), bool)
        for values, _ in columns.values():
            labelled |= values[kept] >= 0
        has_label_E = np.zeros(n_events, bool)
        has_label_E[events_M[kept[labelled]]] = True
        counts_too = labelled | ~has_label_E[events_M[kept]]
        kept, counts = kept[counts_too], counts[counts_too]
    by_event = np.argsort(events_M[kept], kind="stable")
    order, n_E = kept[by_event], np.bincount(events_M[kept], minlength=n_events)
    offsets = pa.array(np.concatenate([[0], np.cumsum(n_E)]).astype(np.int32))
    observations = pa.StructArray.from_arrays(
        [
            dictionary.take(pa.array(values[order], mask=values[order] < 0)).cast(pa.string())
            for values, dictionary in columns.values()
        ],
        names=list(columns),
    )
    times = pa.array(counts[by_event], pa.int32())
    return pa.ListArray.from_arrays(offsets, observations), pa.ListArray.from_arrays(offsets, times)


def observations_to_text(lists: pa.Array) -> pa.Array:
    """Each list of observations as text: "species=zebra, count=2; species=blank, count=missing"."""
    flat = lists.flatten()
    if len(flat) == 0:
        return pa.array([""] * len(lists), pa.large_string())
    text = pa.large_string()
    comma, semicolon, equals = (pa.scalar(mark, text) for mark in (", ", "; ", "="))
    named = [
        pc.binary_join_element_wise(
            pa.scalar(field.name, text),
            pc.fill_null(pc.struct_field(flat, field.name).cast(text), "missing"),
            equals,
        )
        for field in flat.type
    ]
    words = named[0] if len(named) == 1 else pc.binary_join_element_wise(*named, comma)
    lengths = pc.list_value_length(lists).fill_null(0).to_numpy()
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
    return pc.binary_join(pa.ListArray.from_arrays(offsets, words), semicolon)


def _distinct(keys: Ints, n_equal: Ints) -> tuple[Ints, Ints]:
    """The index of the first occurrence of each distinct key, ascending, and its total count.

    Args:
        n_equal: how often each element of `keys` counts.
    """
    if len(keys) == 0:
        return keys, keys
    order = np.argsort(keys, kind="stable")
    in_order = keys[order]
    is_first = np.append(True, in_order[1:] != in_order[:-1])
    counts = np.add.reduceat(n_equal[order], np.flatnonzero(is_first))
    indices = order[is_first]
    ascending = np.argsort(indices)
    return indices[ascending], counts[ascending]


def _observation_codes(
    columns: Mapping[str, tuple[Numbers, pa.Array]],
) -> tuple[Ints, int]:
    """A code per observation, equal only for equal observations; and a bound above all codes."""
    total, n_total = np.zeros(1, np.int64), 1
    for codes, dictionary in columns.values():
        n_labels = len(dictionary) + 1  # the last code is null
        total = total * n_labels + np.where(codes < 0, n_labels - 1, codes)
        n_total *= n_labels
        if n_total > _MAX_CODES:
            distinct, total = np.unique(total, return_inverse=True)
            n_total = len(distinct)
    return total, n_total
