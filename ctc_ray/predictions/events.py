"""Aggregate predictions per image to predictions per capture event.

N image rows, M of them with a prediction, E events, F of them with a predicted image, K classes.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ctc_ray.columns.event_runs import run_starts
from ctc_ray.config.choices import Aggregation
from ctc_ray.errors import SchemaError
from ctc_ray.labels import LabelSpace
from ctc_ray.predictions.combine import combine
from ctc_ray.predictions.scores import event_head_columns, probs_matrix
from ctc_ray.schemas import (
    conform,
    event_prediction_schema,
    label_column,
    labelled_heads,
    meta_fields,
    probs_column,
    scored_schema,
    with_label_columns,
)


def aggregate_by_event(
    rows: pa.Table,
    label_space: LabelSpace,
    *,
    method: Aggregation,
    renormalize: bool = False,
    top_k: int | None = None,
) -> pa.Table:
    """Predictions per capture event: one row per event, in the order of the rows.

    Failed images are counted, but their probabilities are missing from the aggregation. An event
    whose images all failed has a row with null predictions. Location and metadata come from the
    event's first row, the time from its first row with a time. The label of an event is the label
    of its images; images without a label do not count. If they have several, it is null. How the
    probabilities are combined: see `combine`.

    Args:
        rows: predictions per image, at least the columns of `scored_schema`; rows of an event are
            neighbours.
        renormalize: the probabilities of an event add up to 1.
        top_k: keep only so many classes of each event; None: keep all probabilities.

    Raises:
        SchemaError: a column is missing, the predictions have another number of classes, or a
            probability is not a finite number.
    """
    heads, meta = label_space.heads, meta_fields(rows.schema)
    labelled = labelled_heads(rows.schema, heads)
    rows = conform(rows, scored_schema(heads, meta, labelled), where="predictions")
    starts_E = run_starts(rows["capture_event_id"])
    ok_N = _flags(pc.is_null(rows["failure"]))
    n_images_E = np.diff(starts_E, append=len(ok_N))
    first_rows = rows.drop_columns([probs_column(head) for head in label_space.heads])
    columns = {name: first_rows[name].take(starts_E) for name in first_rows.column_names}
    columns["n_images"] = pa.array(n_images_E, pa.int32())
    columns["n_failed"] = pa.array(n_images_E - _sums(ok_N, starts_E), pa.int32())
    columns["captured_at"] = _first_valid(rows["captured_at"], n_images_E)
    for name in map(label_column, labelled):
        columns[name] = _agreed(rows[name], n_images_E)
    for head in heads:
        scored = rows.select([probs_column(head)])
        has_probs_N = _flags(pc.is_valid(rows[probs_column(head)]))
        scored_N = ok_N & has_probs_N
        n_scored_E = _sums(scored_N, starts_E)
        if not (scored_N == has_probs_N).all():
            scored = scored.filter(pa.array(scored_N))
        probs_MK = probs_matrix(scored, label_space, head)
        if not np.isfinite(probs_MK.sum()):
            raise SchemaError(f"predictions: {probs_column(head)} holds what is not a number")
        n_F = n_scored_E[n_scored_E > 0]
        probs_FK = combine(probs_MK, n_F, method=method, renormalize=renormalize)
        columns |= event_head_columns(label_space, head, probs_FK, n_scored_E > 0, top_k=top_k)
    schema = event_prediction_schema(heads, meta, labelled, is_top=top_k is not None)
    return conform(pa.table(columns), schema, where="event predictions")


def without_images(
    events: pa.Table,
    label_space: LabelSpace,
    *,
    labelled: Sequence[str] = (),
    is_top: bool = False,
) -> pa.Table:
    """Predictions of events that have no images: counts of 0 and null predictions.

    Args:
        events: one row per event with its id, location, deployment, time, metadata and labels;
            missing columns become null.
        labelled: heads that get a column of labels, also if the events have none.
        is_top: see `event_prediction_schema`.
    """
    events = with_label_columns(events, labelled)
    heads = label_space.heads
    labelled = labelled_heads(events.schema, heads)
    schema = event_prediction_schema(heads, meta_fields(events.schema), labelled, is_top=is_top)
    none = pa.array(np.zeros(events.num_rows), pa.int32())
    given = {name: events[name] for name in events.column_names} | dict.fromkeys(
        ("n_images", "n_failed"), none
    )
    columns = {
        field.name: given.get(field.name, pa.nulls(events.num_rows, field.type)) for field in schema
    }
    return conform(pa.table(columns), schema, where="event predictions")


def _flags(values: pa.ChunkedArray) -> npt.NDArray[np.bool_]:
    flags: npt.NDArray[np.bool_] = values.to_numpy()
    return flags


def _sums(
    values_N: npt.NDArray[np.bool_], starts_E: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    if len(starts_E) == 0:  # reduceat needs at least one index
        return np.zeros(0, np.int64)
    return np.add.reduceat(values_N.astype(np.int64), starts_E)


def _first_valid(column: pa.ChunkedArray, n_images_E: npt.NDArray[np.int64]) -> pa.Array:
    """The first value of each event that is not null; null if there is none."""
    valid = np.flatnonzero(pc.is_valid(column).to_numpy())
    event_N = np.repeat(np.arange(len(n_images_E)), n_images_E)
    events, first_of_each = np.unique(event_N[valid], return_index=True)
    first_E = np.zeros(len(n_images_E), np.int64)
    first_E[events] = valid[first_of_each]
    undated = np.ones(len(n_images_E), bool)
    undated[events] = False
    return column.take(pa.array(first_E, mask=undated))


def _agreed(labels: pa.ChunkedArray, n_images_E: npt.NDArray[np.int64]) -> pa.Array:
    """The label of each event; null if its images have none, or several."""
    first_E = _first_valid(labels, n_images_E)
    of_event_N = first_E.take(pa.array(np.repeat(np.arange(len(n_images_E)), n_images_E)))
    differs_N = pc.fill_null(pc.not_equal(labels, of_event_N), fill_value=False).to_numpy()
    starts_E = np.cumsum(n_images_E) - n_images_E
    is_ambiguous_E = pa.array(_sums(differs_N, starts_E) > 0)
    return pc.if_else(is_ambiguous_E, pa.scalar(None, pa.string()), first_E)
