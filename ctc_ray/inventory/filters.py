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
from ctc_ray.schemas import (
    META_PREFIX,
    conform,
    label_column,
    meta_columns,
    planned_schema,
)

Policy = Literal["error", "drop", "first"]


@dataclass(frozen=True)
class Labelled:
    """Inventory rows with one label per head, and what was left out."""

    rows: pa.Table
    n_events_dropped: int
    n_images_dropped: int


def label_rows(table: pa.Table, heads: Sequence[str], *, observations: Policy) -> Labelled:
    """The images with a column `label_<head>` for each of these heads, null where not labelled.

    An event has several observations only if they differ in these heads; one that has no label of
    any of them counts only where there is no other.

    Args:
        observations: what becomes of such events: `error` stops, `drop` leaves them out, `first`
            takes the first observation.

    Raises:
        LabelError: there is no such head, or an event has several observations (`error`).
    """
    known = head_names(table.schema.field("observations").type)
    for head in heads:
        if head not in known:
            raise LabelError(f"head {head!r} not found; heads are {', '.join(known) or 'none'}")
    meta = [name.removeprefix(META_PREFIX) for name in meta_columns(table.schema)]
    schema = planned_schema(heads, meta)
    chunks, several = [schema.empty_table()], []
    for batch in table.to_batches():  # a row has all that it needs, so no chunk needs another
        chosen = _choose(batch["observations"], heads)
        rows = pa.Table.from_batches([batch])
        for head, labels in chosen.labels.items():
            rows = rows.append_column(label_column(head), labels)
        several.append(rows.filter(chosen.several))
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
    )


@dataclass(frozen=True)
class _Chosen:
    labels: dict[str, pa.Array]  # of the first observation, one per row
    several: pa.Array  # whether there is another one that differs


def _choose(lists: pa.Array, heads: Sequence[str]) -> _Chosen:
    """The observation of each list that counts: the first with a label, or else the first."""
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
    places = pa.array(first, mask=lengths == 0)
    labels = {head: values.take(places) for head, values in columns.items()}
    return _Chosen(labels, pa.array(several))


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
