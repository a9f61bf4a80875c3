"""Convert probabilities of a model to prediction rows, and back.

N rows (images or events), M of them with a prediction, K classes of a head.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ctc_ray.errors import SchemaError
from ctc_ray.labels import LabelSpace
from ctc_ray.schemas import (
    Failure,
    conform,
    labelled_heads,
    meta_fields,
    pred_column,
    prediction_schema,
    probs_column,
    score_column,
)


def score_rows(
    rows: pa.Table,
    label_space: LabelSpace,
    probs: Mapping[str, npt.NDArray[np.float32]],
) -> pa.Table:
    """Predictions per image, in the order of the rows; null where the image failed.

    Labels of the heads are kept, other labels are dropped.

    An image for which a probability of any head is not a finite number gets the failure `model`.

    Args:
        rows: one row per image with the columns of `image_fields`, and `failure`.
        probs: head -> (M, K), for the M rows without failure, in the order of the rows.

    Raises:
        SchemaError: a column is missing, or the probabilities do not fit the rows or the classes.
    """
    if "failure" not in rows.column_names:
        raise SchemaError("images to score: column 'failure' not found")
    failure, probs = fail_non_finite(rows["failure"].combine_chunks(), probs)
    ok_N = pc.is_null(failure).to_numpy(zero_copy_only=False)
    columns = {name: rows[name] for name in rows.column_names} | {"failure": failure}
    for head in label_space.heads:
        columns |= head_columns(label_space, head, probs[head], ok_N)
    heads = label_space.heads
    labelled = labelled_heads(rows.schema, heads)
    schema = prediction_schema(heads, meta_fields(rows.schema), labelled)
    return conform(pa.table(columns), schema, where="predictions")


def fail_non_finite(
    failure: pa.Array, probs: Mapping[str, npt.NDArray[np.float32]]
) -> tuple[pa.Array, Mapping[str, npt.NDArray[np.float32]]]:
    """Take out the images for which the model's answer is not a number.

    Args:
        failure: why each of N images has no probabilities; null for the M images that have some.
        probs: head -> (M, K).

    Returns:
        The failures, `model` where a probability of any head is not finite, and the probabilities
        of the other images.
    """
    failed_N = pc.is_null(failure).to_numpy(zero_copy_only=False).copy()
    finite_M = np.ones(failed_N.sum(), bool)
    for probs_MK in probs.values():
        if len(probs_MK) == len(finite_M):  # another number is an error, which `head_columns` tells
            finite_M &= np.isfinite(probs_MK).all(axis=1)
    if finite_M.all():
        return failure, probs
    failed_N[failed_N] = ~finite_M
    code = pa.scalar(Failure.MODEL.value, pa.string())
    failure = pc.if_else(pa.array(failed_N), code, failure)
    return failure, {head: probs_MK[finite_M] for head, probs_MK in probs.items()}


def head_columns(
    label_space: LabelSpace,
    head: str,
    probs_MK: npt.NDArray[np.float32],
    predicted_N: npt.NDArray[np.bool_],
) -> dict[str, pa.Array]:
    """The columns of a head: predicted class, its probability, and all probabilities.

    If several classes have the highest probability, the first in the label space is predicted.

    Args:
        probs_MK: probabilities of the M rows that have a prediction.
        predicted_N: whether a row has a prediction; the columns are null elsewhere.

    Raises:
        SchemaError: the probabilities do not fit the rows or the classes.
    """
    n_classes = label_space.n_classes(head)
    expected = (int(predicted_N.sum()), n_classes)
    if probs_MK.shape != expected:
        raise SchemaError(
            f"probabilities of head {head!r} have shape {probs_MK.shape}, expected {expected}"
        )
    probs_MK = np.ascontiguousarray(probs_MK, np.float32)
    top_M = probs_MK.argmax(axis=1)
    score_M = probs_MK[np.arange(len(top_M)), top_M]
    index_N = pa.array(np.cumsum(predicted_N) - 1, mask=~predicted_N)
    offsets = np.concatenate([[0], np.cumsum(predicted_N * n_classes)]).astype(np.int32)
    return {
        pred_column(head): label_space.decode(head, top_M).take(index_N),
        score_column(head): pa.array(score_M).take(index_N),
        probs_column(head): pa.ListArray.from_arrays(
            offsets, probs_MK.ravel(), mask=pa.array(~predicted_N)
        ),
    }


def probs_matrix(rows: pa.Table, label_space: LabelSpace, head: str) -> npt.NDArray[np.float32]:
    """Probabilities (M, K) of a head, of the rows that have a prediction, in their order.

    Raises:
        SchemaError: the predictions have another number of classes.
    """
    n_classes, column = label_space.n_classes(head), probs_column(head)
    lists = rows[column].combine_chunks().drop_null()
    if (pc.list_value_length(lists).to_numpy(zero_copy_only=False) != n_classes).any():
        raise SchemaError(f"predictions: {column} must hold {n_classes} values, one per class")
    flat: npt.NDArray[np.float32] = lists.flatten().to_numpy(zero_copy_only=False)
    return flat.reshape(-1, n_classes)
