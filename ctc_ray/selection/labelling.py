"""From the observations of an event to one label per head and image."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import assert_never

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ctc_ray.columns.factorize import Ints, as_dictionary, factorize
from ctc_ray.config.choices import ObservationRule
from ctc_ray.errors import LabelError
from ctc_ray.observations import head_names, labels_of
from ctc_ray.schemas import label_column

_REPLACED = (
    "observations",
    "observation_counts",
    "boxes",
)  # replaced by the label columns, or not needed any more


@dataclass(frozen=True)
class LabelledRows:
    """Inventory rows with one label per head, and the number of rows left out."""

    rows: pa.Table
    n_events_dropped: int
    n_images_dropped: int
    kept: npt.NDArray[np.bool_]
    """Whether each input row is in `rows`."""


def label_rows(
    table: pa.Table, heads: Sequence[str], *, observations: ObservationRule
) -> LabelledRows:
    """The images with a column `label_<head>` per head, in the same order; null is not labelled.

    The label columns are dictionary-encoded. The other columns are kept, except `observations`,
    `observation_counts` and `boxes`.

    Observations of an event that are equal in the given heads count as one. An observation without
    a label of any of the heads counts only where the event has no other observation.

    Args:
        table: rows with at least `capture_event_id` and `observations`.
        observations: what to do with an event that has several observations: `error` stops, `drop`
            leaves the event out, `first` takes the first observation, `most-frequent` the one that
            the source gives most often, on a tie the first.

    Raises:
        LabelError: a head does not exist, or an event has several observations (`error`).
    """
    known = head_names(table.schema.field("observations").type)
    for head in heads:
        if head not in known:
            raise LabelError(f"head {head!r} not found; heads are {', '.join(known) or 'none'}")
    labels, several_N = _labels(table, heads, by_count=observations == "most-frequent")
    rows = table.drop_columns([name for name in _REPLACED if name in table.column_names])
    for head, values in labels.items():
        rows = rows.append_column(label_column(head), values)
    ambiguous = table.filter(pa.array(several_N)) if several_N.any() else table.slice(0, 0)
    n_events = len(factorize(ambiguous["capture_event_id"], sort=True)[1])
    if not n_events:
        return LabelledRows(rows, 0, 0, np.ones(table.num_rows, bool))
    match observations:
        case "error":
            raise LabelError(_several_message(ambiguous, n_events, heads))
        case "first" | "most-frequent":
            return LabelledRows(rows, 0, 0, np.ones(table.num_rows, bool))
        case "drop":
            return LabelledRows(
                rows.filter(pa.array(~several_N)), n_events, ambiguous.num_rows, ~several_N
            )
        case _:
            assert_never(observations)


def agreed_labels(
    observations: pa.Array | pa.ChunkedArray, head: str
) -> tuple[pa.Array, npt.NDArray[np.bool_]]:
    """The label of a head that all observations of a row agree on.

    Observations without a label of this head do not count.

    Args:
        observations: a list of observations per row, as in an inventory with this head.

    Returns:
        A label per row, null where there is none or where there are several, and whether there are
        several.
    """
    lists = observations.combine_chunks() if hasattr(observations, "chunks") else observations
    n_rows = len(lists)
    codes, names = factorize(labels_of(lists.flatten(), head))
    lengths = pc.list_value_length(lists).fill_null(0).to_numpy().astype(np.int64)
    parents = np.repeat(np.arange(n_rows), lengths)[codes >= 0]
    codes = codes[codes >= 0]
    label_N = np.full(n_rows, -1)
    label_N[parents] = codes
    several = np.zeros(n_rows, bool)
    several[parents[codes != label_N[parents]]] = True
    index = pa.array(label_N, mask=several | (label_N < 0))
    return names.cast(pa.string()).take(index), several


def _labels(
    table: pa.Table, heads: Sequence[str], *, by_count: bool
) -> tuple[dict[str, pa.DictionaryArray], npt.NDArray[np.bool_]]:
    """The labels of each row by head, and whether its event has several observations."""
    names = ["observations"]
    if by_count and "observation_counts" in table.column_names:
        names.append("observation_counts")

    def choose(batch: pa.RecordBatch) -> _Chosen:  # rows are independent, and so are batches
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
    labels: dict[str, pa.DictionaryArray]  # head -> label of the chosen observation of each row
    several: npt.NDArray[np.bool_]  # whether the row has a further observation that differs


def _choose(
    lists: pa.Array, heads: Sequence[str], counts: pa.Array | None = None, *, by_count: bool
) -> _Chosen:
    """The labels of one observation per list: the first with a label, else the first.

    Args:
        counts: how often the source gives each observation, as lists; None: once each.
        by_count: choose the most frequent observation with a label instead.
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
        first[parents[labelled[::-1]]] = labelled[::-1]  # the last one assigned, the first, is kept
        for values in columns.values():
            codes = factorize(values)[0]
            differs = codes[labelled] != codes[first[parents[labelled]]]
            several[parents[labelled[differs]]] = True
        if by_count and several.any():
            candidates = labelled[several[parents[labelled]]]
            weights = np.ones(len(parents), np.int64)
            if counts is not None and not counts.null_count:
                weights = counts.flatten().to_numpy()
            chosen = _most_frequent(list(columns.values()), parents, candidates, weights)
            first[parents[chosen]] = chosen
    if n_rows == len(flat) and (lengths == 1).all():
        return _Chosen(columns, several)
    indices = pa.array(first, mask=lengths == 0)
    return _Chosen({head: values.take(indices) for head, values in columns.items()}, several)


def _most_frequent(
    columns: Sequence[pa.Array], parents: Ints, candidates: Ints, weights: Ints
) -> Ints:
    """Per parent the index of the candidate whose labels have the greatest total weight.

    Several candidates may have these labels, or labels of equal weight: the first one is taken.

    Args:
        columns: the label of each observation, per head.
        parents: row of each observation.
        candidates: indices of observations.
        weights: weight of each observation.
    """
    keys = parents[candidates]
    for values in columns:
        codes = factorize(values)[0][candidates]
        keys = np.unique(np.stack([keys, codes], axis=1), axis=0, return_inverse=True)[1].ravel()
    _, firsts, groups = np.unique(keys, return_index=True, return_inverse=True)
    total = np.bincount(groups, weights=weights[candidates])
    indices = candidates[firsts]
    order = np.lexsort((indices, -total, parents[indices]))
    ranked = indices[order]
    return ranked[np.unique(parents[ranked], return_index=True)[1]]


def _any_valid(columns: Sequence[pa.Array]) -> npt.NDArray[np.bool_]:
    valid = [values.is_valid().to_numpy(zero_copy_only=False) for values in columns]
    result: npt.NDArray[np.bool_] = np.logical_or.reduce(valid)
    return result


def _several_message(ambiguous: pa.Table, n_events: int, heads: Sequence[str]) -> str:
    event_id = ambiguous["capture_event_id"][0].as_py()
    observations = ambiguous["observations"][0].as_py()
    shown = " and ".join(
        dict.fromkeys(", ".join(f"{h}={o[h] or 'missing'}" for h in heads) for o in observations)
    )
    events = "event has" if n_events == 1 else "events have"
    return (
        f"{n_events} capture {events} several observations, e.g. {event_id!r}: {shown} "
        "(--observations drop|first|most-frequent)"
    )
