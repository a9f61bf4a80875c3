"""From observations to one label per head and image."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ctc_ray.errors import LabelError
from ctc_ray.inventory.checks import head_names, labels_of
from ctc_ray.inventory.columns import Ints
from ctc_ray.schemas import (
    conform,
    label_column,
)

_REPLACED = ("observations", "observation_counts", "boxes")  # by labels, or not needed any more

Policy = Literal["error", "drop", "first", "most-frequent"]


@dataclass(frozen=True)
class Labelled:
    """Inventory rows with one label per head, and what was left out."""

    rows: pa.Table
    n_events_dropped: int
    n_images_dropped: int
    kept: npt.NDArray[np.bool_]
    """Of each row that was given, whether it is among these."""


def label_rows(table: pa.Table, heads: Sequence[str], *, observations: Policy) -> Labelled:
    """The images with a column `label_<head>` for each of these heads, null where not labelled.

    Of the inventory's other columns the table needs only `capture_event_id` and `observations`;
    those that it has are kept, but for what is said of observations and boxes.

    An event has several observations only if they differ in these heads; one that has no label of
    any of them counts only where there is no other.

    Args:
        observations: what becomes of such events: `error` stops, `drop` leaves them out, `first`
            takes the first observation, `most-frequent` the one the source gives most often
            (of equally frequent ones the first). Those that differ in other heads only are one.

    Raises:
        LabelError: there is no such head, or an event has several observations (`error`).
    """
    known = head_names(table.schema.field("observations").type)
    for head in heads:
        if head not in known:
            raise LabelError(f"head {head!r} not found; heads are {', '.join(known) or 'none'}")
    schema = _labelled_schema(table.schema, heads)
    chunks, several, kept = [schema.empty_table()], [], [np.empty(0, bool)]
    for batch in table.to_batches():  # a row has all that it needs, so no chunk needs another
        times = None
        if observations == "most-frequent" and "observation_counts" in table.column_names:
            times = batch["observation_counts"]
        chosen = _choose(batch["observations"], heads, times, by_count="most" in observations)
        rows = pa.Table.from_batches([batch])
        for head, labels in chosen.labels.items():
            rows = rows.append_column(label_column(head), labels)
        several.append(rows.filter(chosen.several))
        is_apart = chosen.several.to_numpy(zero_copy_only=False)
        kept.append(~is_apart if observations == "drop" else np.ones(len(is_apart), bool))
        if observations == "drop":
            rows = rows.filter(pc.invert(chosen.several))
        chunks.append(conform(rows, schema, where="inventory"))
    apart = pa.concat_tables(several) if several else table
    n_events = pc.count_distinct(apart["capture_event_id"]).as_py()
    if observations == "error" and n_events:
        raise LabelError(_several_message(apart, n_events, heads))
    dropped = observations == "drop"
    return Labelled(
        rows=pa.concat_tables(chunks),
        n_events_dropped=n_events if dropped else 0,
        n_images_dropped=apart.num_rows if dropped else 0,
        kept=np.concatenate(kept),
    )


def _labelled_schema(schema: pa.Schema, heads: Sequence[str]) -> pa.Schema:
    kept = [field for field in schema if field.name not in _REPLACED]
    return pa.schema([*kept, *(pa.field(label_column(head), pa.string()) for head in heads)])


@dataclass(frozen=True)
class _Chosen:
    labels: dict[str, pa.Array]  # of the first observation, one per row
    several: pa.Array  # whether there is another one that differs


def _choose(
    lists: pa.Array, heads: Sequence[str], times: pa.Array | None, *, by_count: bool
) -> _Chosen:
    """The observation of each list that counts: the first with a label, or else the first.

    By count it is the most frequent one with a label; `times` says how often each was given.
    """
    n_rows = len(lists)
    if not heads:
        return _Chosen({}, pa.array(np.zeros(n_rows, bool)))
    flat = lists.flatten()
    columns = {head: labels_of(flat, head) for head in heads}
    lengths = pc.list_value_length(lists).fill_null(0).to_numpy().astype(np.int64)
    first = np.cumsum(lengths) - lengths
    several = np.zeros(n_rows, bool)
    if n_rows and lengths.max() > 1:
        parents = np.repeat(np.arange(n_rows), lengths)
        labelled = np.flatnonzero(_any_valid(list(columns.values())))
        first[parents[labelled[::-1]]] = labelled[::-1]  # the last assigned, so the foremost, stays
        for values in columns.values():
            codes = values.dictionary_encode().indices.fill_null(-1).to_numpy()
            differs = codes[labelled] != codes[first[parents[labelled]]]
            several[parents[labelled[differs]]] = True
        if by_count and several.any():
            inside = labelled[several[parents[labelled]]]
            weights = np.ones(len(parents), np.int64)
            if times is not None and not times.null_count:
                weights = times.flatten().to_numpy()
            chosen = _most_frequent(list(columns.values()), parents, inside, weights)
            first[parents[chosen]] = chosen
    places = pa.array(first, mask=lengths == 0)
    labels = {head: values.take(places) for head, values in columns.items()}
    return _Chosen(labels, pa.array(several))


def _most_frequent(columns: Sequence[pa.Array], parents: Ints, inside: Ints, weights: Ints) -> Ints:
    """Per parent the first place, of those inside, of the labels with the greatest weight."""
    keys = parents[inside]
    for values in columns:
        codes = values.dictionary_encode().indices.fill_null(-1).to_numpy()[inside]
        keys = np.unique(np.stack([keys, codes], axis=1), axis=0, return_inverse=True)[1].ravel()
    _, firsts, groups = np.unique(keys, return_index=True, return_inverse=True)
    total = np.bincount(groups, weights=weights[inside])
    places = inside[firsts]
    order = np.lexsort((places, -total, parents[places]))
    ranked = places[order]
    return ranked[np.unique(parents[ranked], return_index=True)[1]]


def _any_valid(columns: Sequence[pa.Array]) -> npt.NDArray[np.bool_]:
    valid = [values.is_valid().to_numpy(zero_copy_only=False) for values in columns]
    result: npt.NDArray[np.bool_] = np.logical_or.reduce(valid)
    return result


def _several_message(apart: pa.Table, n_events: int, heads: Sequence[str]) -> str:
    event_id = apart["capture_event_id"][0].as_py()
    observations = apart["observations"][0].as_py()
    shown = " and ".join(
        dict.fromkeys(", ".join(f"{h}={o[h] or 'missing'}" for h in heads) for o in observations)
    )
    events = "event has" if n_events == 1 else "events have"
    return (
        f"{n_events} capture {events} several observations, e.g. {event_id!r}: {shown} "
        "(--observations drop|first)"
    )
