"""From observations to one label per head and image."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ctc_ray.columns.factorize import Ints, as_dictionary, factorize
from ctc_ray.errors import LabelError
from ctc_ray.observations import head_names, labels_of
from ctc_ray.schemas import label_column

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

    These columns are dictionary-encoded.

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
    labels, several_N = _labels(table, heads, by_count=observations == "most-frequent")
    rows = table.drop_columns([name for name in _REPLACED if name in table.column_names])
    for head, values in labels.items():
        rows = rows.append_column(label_column(head), values)
    apart = table.filter(pa.array(several_N)) if several_N.any() else table.slice(0, 0)
    n_events = len(factorize(apart["capture_event_id"], sort=True)[1])
    if observations == "error" and n_events:
        raise LabelError(_several_message(apart, n_events, heads))
    if observations != "drop" or not n_events:
        return Labelled(rows, 0, 0, np.ones(table.num_rows, bool))
    return Labelled(rows.filter(pa.array(~several_N)), n_events, apart.num_rows, ~several_N)


def _labels(
    table: pa.Table, heads: Sequence[str], *, by_count: bool
) -> tuple[dict[str, pa.DictionaryArray], npt.NDArray[np.bool_]]:
    """The labels of each row by head, and whether its event has several observations."""
    names = ["observations"]
    if by_count and "observation_counts" in table.column_names:
        names.append("observation_counts")

    def choose(batch: pa.RecordBatch) -> _Chosen:  # a row has all it needs: no batch another
        columns = map(batch.column, names)
        return _choose(next(columns), heads, *columns, by_count=by_count)

    with ThreadPoolExecutor(pa.cpu_count()) as pool:
        chosen = list(pool.map(choose, table.select(names).to_batches()))
    coded_text = pa.dictionary(pa.int32(), pa.string())
    labels = {
        head: as_dictionary(pa.chunked_array([part.labels[head] for part in chosen], coded_text))
        for head in heads
    }
    return labels, np.concatenate([np.zeros(0, bool), *(part.several for part in chosen)])


@dataclass(frozen=True)
class _Chosen:
    labels: dict[str, pa.DictionaryArray]  # of the first observation, one per row
    several: npt.NDArray[np.bool_]  # whether there is another one that differs


def _choose(
    lists: pa.Array, heads: Sequence[str], times: pa.Array | None = None, *, by_count: bool
) -> _Chosen:
    """The observation of each list that counts: the first with a label, or else the first.

    By count it is the most frequent one with a label; `times` says how often each was given.
    """
    n_rows = len(lists)
    if not heads:
        return _Chosen({}, np.zeros(n_rows, bool))
    flat = lists.flatten()
    columns = {head: labels_of(flat, head).dictionary_encode() for head in heads}
    lengths = pc.list_value_length(lists).fill_null(0).to_numpy().astype(np.int64)
    first = np.cumsum(lengths) - lengths
    several = np.zeros(n_rows, bool)
    if n_rows and lengths.max() > 1:
        parents = np.repeat(np.arange(n_rows), lengths)
        labelled = np.flatnonzero(_any_valid(list(columns.values())))
        first[parents[labelled[::-1]]] = labelled[::-1]  # the last assigned, so the foremost, stays
        for values in columns.values():
            codes = factorize(values)[0]
            differs = codes[labelled] != codes[first[parents[labelled]]]
            several[parents[labelled[differs]]] = True
        if by_count and several.any():
            inside = labelled[several[parents[labelled]]]
            weights = np.ones(len(parents), np.int64)
            if times is not None and not times.null_count:
                weights = times.flatten().to_numpy()
            chosen = _most_frequent(list(columns.values()), parents, inside, weights)
            first[parents[chosen]] = chosen
    if n_rows == len(flat) and (lengths == 1).all():
        return _Chosen(columns, several)
    places = pa.array(first, mask=lengths == 0)
    return _Chosen({head: values.take(places) for head, values in columns.items()}, several)


def _most_frequent(columns: Sequence[pa.Array], parents: Ints, inside: Ints, weights: Ints) -> Ints:
    """Per parent the first place, of those inside, of the labels with the greatest weight."""
    keys = parents[inside]
    for values in columns:
        codes = factorize(values)[0][inside]
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
