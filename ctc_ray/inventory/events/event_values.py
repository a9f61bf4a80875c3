"""What the rows of an event agree on: one value per event, and where they name several.

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


def event_facts(
    columns: Mapping[str, pa.Array | None], events_R: Numbers, n_events: int
) -> tuple[dict[str, pa.Array], dict[str, pa.Array]]:
    """Per column the first value of each event that is not null, and the values that differ.

    Args:
        columns: of each row a text; None: nobody knows.
        events_R: the event of each row.

    Returns:
        Column -> value of each event; and, of each column that has any, column -> text that lists
        the different values of an event, in the order of the rows; null where they agree.
    """
    facts, conflicts = {}, {}
    for name, values in columns.items():
        if values is None:
            facts[name] = pa.nulls(n_events, pa.string())
            continue
        codes_R, distinct = factorize(values)
        # the rows of an event are mostly neighbours, so a step over runs leaves little to do
        starts = run_starts_of_codes([events_R, codes_R])
        starts = starts[codes_R[starts] >= 0]
        events, codes = events_R[starts], codes_R[starts]
        first_E = np.full(n_events, -1, np.int32)
        first_E[events[::-1]] = codes[::-1]  # of several, the last assigned stays
        facts[name] = distinct.take(pa.array(first_E, mask=first_E < 0)).cast(pa.string())
        differs_E = np.zeros(n_events, bool)
        differs_E[events[codes != first_E[events]]] = True
        if differs_E.any():
            told = differs_E[events]
            conflicts[name] = _joined(distinct, codes[told], events[told], n_events)
    return facts, conflicts


def conflicts_in_words(conflicts: Mapping[str, pa.Array]) -> dict[str, pa.Array]:
    """Kind of finding -> of each event which values its rows name; null where they agree.

    Several locations are a finding of their own too: an event happens at one place.
    """
    if not conflicts:
        return {}
    words = None
    for name, values in conflicts.items():
        blank, semicolon = pa.scalar(" ", TEXT), pa.scalar("; ", TEXT)
        named = pc.binary_join_element_wise(pa.scalar(f"{name}:", TEXT), values, blank)
        both = named if words is None else pc.binary_join_element_wise(words, named, semicolon)
        words = named if words is None else pc.coalesce(both, words, named)
    found = {"conflicting_metadata": words}
    if "location_id" in conflicts:
        found["events_across_locations"] = conflicts["location_id"]
    return found


def _first_occurrences(keys: Ints) -> Ints:
    """The places, ascending, where each distinct key is first met."""
    return np.sort(np.unique(keys, return_index=True)[1]).astype(np.int64)


def _joined(distinct: pa.Array, codes_T: Numbers, events_T: Numbers, n_events: int) -> pa.Array:
    """The different ones of these values, joined per event; null for the other events."""
    kept = _first_occurrences(events_T * np.int64(len(distinct)) + codes_T)
    kept = kept[np.argsort(events_T[kept], kind="stable")]
    events, counts = np.unique(events_T[kept], return_counts=True)
    offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]), pa.int32())
    lists = pa.ListArray.from_arrays(offsets, distinct.take(pa.array(codes_T[kept])).cast(TEXT))
    place_E = np.full(n_events, -1, np.int64)
    place_E[events] = np.arange(len(events))
    return pc.binary_join(lists, pa.scalar(", ", TEXT)).take(pa.array(place_E, mask=place_E < 0))
