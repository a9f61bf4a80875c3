"""Aggregate predictions per image to predictions per capture event.

N image rows, M of them with a prediction, E events, F of them with a predicted image, K classes.
"""

from collections.abc import Sequence
from typing import assert_never

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ctc_ray.columns.event_runs import run_starts
from ctc_ray.config.choices import Aggregation
from ctc_ray.labels import LabelSpace
from ctc_ray.predictions.scores import head_columns, probs_matrix
from ctc_ray.schemas import (
    conform,
    event_prediction_schema,
    label_column,
    labelled_heads,
    meta_fields,
    prediction_schema,
    with_label_columns,
)

_TINY = float(np.finfo(np.float32).tiny)  # log(0) would let one image exclude a class


def aggregate_by_event(rows: pa.Table, label_space: LabelSpace, *, method: Aggregation) -> pa.Table:
    """Predictions per capture event: one row per event, in the order of the rows.

    Failed images are counted, but their probabilities are missing from the aggregation. An event
    whose images all failed has a row with null predictions. Location and metadata come from the
    event's first row, the time from its first row with a time. The label of an event is the label
    of its images; images without a label do not count. If they have several, it is null.

    mean, max and min aggregate every class by itself and do not normalise, as in the original: the
    maxima add up to more than 1, the minima to less. mean-logit is the softmax of the mean
    logarithms of the probabilities, so it adds up to 1.

    Args:
        rows: predictions per image; rows of an event are neighbours.

    Raises:
        SchemaError: a column is missing, or the predictions have another number of classes.
    """
    heads, meta = label_space.heads, meta_fields(rows.schema)
    labelled = labelled_heads(rows.schema, heads)
    rows = conform(rows, prediction_schema(heads, meta, labelled), where="predictions")
    starts_E = run_starts(rows["capture_event_id"])
    ok_N = pc.is_null(rows["failure"]).to_numpy()
    n_images_E = np.diff(starts_E, append=len(ok_N))
    n_ok_E = _sums(ok_N, starts_E)
    columns = {name: rows[name].take(starts_E) for name in rows.column_names}
    columns["n_images"] = pa.array(n_images_E, pa.int32())
    columns["n_failed"] = pa.array(n_images_E - n_ok_E, pa.int32())
    columns["captured_at"] = _first_valid(rows["captured_at"], n_images_E)
    for name in map(label_column, labelled):
        columns[name] = _agreed(rows[name], n_images_E)
    n_ok_F = n_ok_E[n_ok_E > 0]
    for head in heads:
        probs_FK = _aggregate(probs_matrix(rows, label_space, head), n_ok_F, method)
        columns |= head_columns(label_space, head, probs_FK, n_ok_E > 0)
    schema = event_prediction_schema(heads, meta, labelled)
    return conform(pa.table(columns), schema, where="event predictions")


def without_images(
    events: pa.Table, label_space: LabelSpace, *, labelled: Sequence[str] = ()
) -> pa.Table:
    """Predictions of events that have no images: counts of 0 and null predictions.

    Args:
        events: one row per event with its id, location, deployment, time, metadata and labels;
            missing columns become null.
        labelled: heads that get a column of labels, also if the events have none.
    """
    events = with_label_columns(events, labelled)
    heads = label_space.heads
    labelled = labelled_heads(events.schema, heads)
    schema = event_prediction_schema(heads, meta_fields(events.schema), labelled)
    none = pa.array(np.zeros(events.num_rows), pa.int32())
    given = {name: events[name] for name in events.column_names} | dict.fromkeys(
        ("n_images", "n_failed"), none
    )
    columns = {
        field.name: given.get(field.name, pa.nulls(events.num_rows, field.type)) for field in schema
    }
    return conform(pa.table(columns), schema, where="event predictions")


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


def _aggregate(
    probs_MK: npt.NDArray[np.float32], n_ok_F: npt.NDArray[np.int64], method: Aggregation
) -> npt.NDArray[np.float32]:
    if len(n_ok_F) == 0:
        return probs_MK
    starts_F = np.cumsum(n_ok_F) - n_ok_F
    wide_MK = probs_MK.astype(np.float64)  # float32 sums would depend on the order of the images
    match method:
        case "max":
            probs_FK = np.maximum.reduceat(wide_MK, starts_F)
        case "min":
            probs_FK = np.minimum.reduceat(wide_MK, starts_F)
        case "mean":
            probs_FK = np.add.reduceat(wide_MK, starts_F) / n_ok_F[:, None]
        case "mean-logit":
            probs_FK = _mean_logit(wide_MK, starts_F, n_ok_F)
        case _:
            assert_never(method)
    return probs_FK.astype(np.float32)


def _mean_logit(
    probs_MK: npt.NDArray[np.float64],
    starts_F: npt.NDArray[np.int64],
    n_ok_F: npt.NDArray[np.int64],
) -> npt.NDArray[np.float64]:
    logs_MK = np.log(np.maximum(probs_MK, _TINY))
    logs_FK = np.add.reduceat(logs_MK, starts_F) / n_ok_F[:, None]
    odds_FK = np.exp(logs_FK - logs_FK.max(axis=1, keepdims=True))
    probs_FK: npt.NDArray[np.float64] = odds_FK / odds_FK.sum(axis=1, keepdims=True)
    return probs_FK
