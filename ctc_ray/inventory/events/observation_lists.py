"""The observations of each capture event: united, each once, those that say nothing left out.

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
    """The observations of each event, and how often the source gives each of them.

    Both are lists of each event, in the order of first occurrence. An observation without any
    label is kept only if its event has no other.

    Args:
        labels: head -> label of each observation; null is missing.
        events_M: number of each observation's event.
    """
    if not labels:
        return pa.nulls(n_events, pa.list_(pa.string())), pa.nulls(n_events, pa.list_(pa.int32()))
    columns = {head: factorize(values) for head, values in labels.items()}
    # most often equal rows are neighbours; all that follows is then short
    starts = run_starts_of_codes([events_M, *(codes for codes, _ in columns.values())])
    n_equal = np.diff(starts, append=len(events_M))
    columns = {head: (codes[starts], names) for head, (codes, names) in columns.items()}
    events_M = events_M[starts]
    if np.bincount(events_M).max(initial=0) <= 1:  # each is the only one of its event
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
        speaks = labelled | ~has_label_E[events_M[kept]]
        kept, counts = kept[speaks], counts[speaks]
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


def observations_in_words(lists: pa.Array) -> pa.Array:
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
    """The places, ascending, where each distinct key is first met, and how often it is there.

    Args:
        n_equal: how often each of the keys counts.
    """
    if len(keys) == 0:
        return keys, keys
    order = np.argsort(keys, kind="stable")
    in_order = keys[order]
    is_first = np.append(True, in_order[1:] != in_order[:-1])
    counts = np.add.reduceat(n_equal[order], np.flatnonzero(is_first))
    places = order[is_first]
    by_place = np.argsort(places)
    return places[by_place], counts[by_place]


def _observation_codes(
    columns: Mapping[str, tuple[Numbers, pa.Array]],
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
