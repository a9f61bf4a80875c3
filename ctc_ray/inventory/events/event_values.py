"""One value per event and column, and the events whose rows give several values.

R source rows, E capture events. Everything is done on whole columns.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ctc_ray.columns.arrays import TEXT
from ctc_ray.columns.event_runs import run_starts_of_codes
from ctc_ray.columns.factorize import factorize

Ints = npt.NDArray[np.int64]
Numbers = npt.NDArray[np.int32]


def event_attributes(
    columns: Mapping[str, pa.Array | None], events_R: Numbers, n_events: int
) -> tuple[dict[str, pa.Array], dict[str, pa.Array]]:
    """The first non-null value of each event per column, and the events with several values.

    Args:
        columns: column -> text of each row; None: the source does not have the column.
        events_R: event index of each row.

    Returns:
        Column -> value per event, null is unknown. And, for columns with any conflict, column ->
        text per event that lists its distinct values in the order of the rows; null where the rows
        of the event agree.
    """
    attributes, conflicts = {}, {}
    for name, values in columns.items():
        if values is None:
            attributes[name] = pa.nulls(n_events, pa.string())
            continue
        codes_R, distinct = factorize(values)
        # the rows of an event are mostly neighbours, so few runs remain to be compared
        starts = run_starts_of_codes([events_R, codes_R])
        starts = starts[codes_R[starts] >= 0]
        events, codes = events_R[starts], codes_R[starts]
        first_E = np.full(n_events, -1, np.int32)
        first_E[events[::-1]] = codes[::-1]  # the last one assigned, the event's first, is kept
        attributes[name] = distinct.take(pa.array(first_E, mask=first_E < 0)).cast(pa.string())
        differs_E = np.zeros(n_events, bool)
        differs_E[events[codes != first_E[events]]] = True
        if differs_E.any():
            is_conflict = differs_E[events]
            conflicts[name] = _joined(distinct, codes[is_conflict], events[is_conflict], n_events)
    return attributes, conflicts


def conflicts_to_text(conflicts: Mapping[str, pa.Array]) -> dict[str, pa.Array]:
    """Kind of finding -> text per event that lists its conflicting values; null: no conflict.

    Several locations are also a finding of their own, because an event happens at one location.

    Args:
        conflicts: as `event_attributes` returns them.
    """
    if not conflicts:
        return {}
    texts = None
    for name, values in conflicts.items():
        blank, semicolon = pa.scalar(" ", TEXT), pa.scalar("; ", TEXT)
        own = pc.binary_join_element_wise(pa.scalar(f"{name}:", TEXT), values, blank)
        both = own if texts is None else pc.binary_join_element_wise(texts, own, semicolon)
        texts = own if texts is None else pc.coalesce(both, texts, own)
    found = {"conflicting_metadata": texts}
    if "location_id" in conflicts:
        found["events_across_locations"] = conflicts["location_id"]
    return found


def _first_occurrences(keys: Ints) -> Ints:
    """The index of the first occurrence of each distinct key, ascending."""
    return np.sort(np.unique(keys, return_index=True)[1]).astype(np.int64)


def _joined(distinct: pa.Array, codes_T: Numbers, events_T: Numbers, n_events: int) -> pa.Array:
    """The distinct values of each event joined by commas, in order of occurrence; null: no value.

    T values: index of the text, and index of the event.
    """
    kept = _first_occurrences(events_T * np.int64(len(distinct)) + codes_T)
    kept = kept[np.argsort(events_T[kept], kind="stable")]
    events, counts = np.unique(events_T[kept], return_counts=True)
    offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]), pa.int32())
    lists = pa.ListArray.from_arrays(offsets, distinct.take(pa.array(codes_T[kept])).cast(TEXT))
    list_E = np.full(n_events, -1, np.int64)
    list_E[events] = np.arange(len(events))
    return pc.binary_join(lists, pa.scalar(", ", TEXT)).take(pa.array(list_E, mask=list_E < 0))
