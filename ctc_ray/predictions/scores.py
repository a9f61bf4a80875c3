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
    TOP_CLASS,
    Failure,
    conform,
    labelled_heads,
    margin_column,
    meta_fields,
    pred_column,
    prediction_schema,
    probs_column,
    score_column,
    top_column,
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
    index_N = _index_of(predicted_N)
    return {
        pred_column(head): label_space.decode(head, top_M).take(index_N),
        score_column(head): pa.array(score_M).take(index_N),
        probs_column(head): pa.ListArray.from_arrays(
            _list_offsets(predicted_N, n_classes), probs_MK.ravel(), mask=pa.array(~predicted_N)
        ),
    }


def event_head_columns(
    label_space: LabelSpace,
    head: str,
    probs_MK: npt.NDArray[np.float32],
    predicted_N: npt.NDArray[np.bool_],
    *,
    top_k: int | None,
) -> dict[str, pa.Array]:
    """The columns of a head in predictions per event: those of `head_columns`, and the margin.

    The margin is the difference of the two highest probabilities, with one class its probability.

    Args:
        top_k: the best classes, so many at most, stand in for all probabilities; None: they do not.
            Of classes with equal probabilities the first in the label space is the better one.
    """
    columns = head_columns(label_space, head, probs_MK, predicted_N)
    margin = pa.array(_margins(probs_MK)).take(_index_of(predicted_N))
    columns[margin_column(head)] = margin
    if top_k is not None:
        del columns[probs_column(head)]
        columns[top_column(head)] = _best_classes(label_space, head, probs_MK, predicted_N, top_k)
    return columns


def _margins(probs_MK: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    if probs_MK.shape[1] == 1:
        return probs_MK[:, 0]
    others_MK, rows = probs_MK.copy(), np.arange(len(probs_MK))
    top_M = probs_MK.argmax(axis=1)
    others_MK[rows, top_M] = -np.inf
    margins: npt.NDArray[np.float32] = probs_MK[rows, top_M] - others_MK.max(axis=1)
    return margins


def _best_classes(
    label_space: LabelSpace,
    head: str,
    probs_MK: npt.NDArray[np.float32],
    predicted_N: npt.NDArray[np.bool_],
    top_k: int,
) -> pa.Array:
    best_Mk = np.argsort(-probs_MK, axis=1, kind="stable")[:, :top_k]
    scores_Mk = np.take_along_axis(probs_MK, best_Mk, axis=1)
    flat = pa.StructArray.from_arrays(
        [label_space.decode(head, best_Mk.ravel()), pa.array(scores_Mk.ravel(), pa.float32())],
        fields=list(TOP_CLASS),
    )
    return pa.ListArray.from_arrays(
        _list_offsets(predicted_N, best_Mk.shape[1]), flat, mask=pa.array(~predicted_N)
    )


def _index_of(predicted_N: npt.NDArray[np.bool_]) -> pa.Array:
    """Index among the rows with a prediction of each row; null where there is none."""
    return pa.array(np.cumsum(predicted_N) - 1, mask=~predicted_N)


def _list_offsets(predicted_N: npt.NDArray[np.bool_], n_values: int) -> npt.NDArray[np.int32]:
    """Where the list of each row begins, if a row has so many values or none, and the end."""
    return np.concatenate([[0], np.cumsum(predicted_N * n_values)]).astype(np.int32)


def probs_matrix(rows: pa.Table, label_space: LabelSpace, head: str) -> npt.NDArray[np.float32]:
    """Probabilities (M, K) of a head, of the rows that have a prediction, in their order.

    Raises:
        SchemaError: the predictions have another number of classes.
    """
    n_classes, column = label_space.n_classes(head), probs_column(head)
    chunks = rows[column]
    # combine_chunks would copy a single chunk
    lists = chunks.chunk(0) if chunks.num_chunks == 1 else chunks.combine_chunks()
    if not pc.all(pc.equal(pc.list_value_length(lists), n_classes), min_count=0).as_py():
        raise SchemaError(f"predictions: {column} must hold {n_classes} values, one per class")
    flat: npt.NDArray[np.float32] = lists.flatten().to_numpy(zero_copy_only=False)
    return flat.reshape(-1, n_classes)


def take_fixed(rows: pa.Table, label_space: LabelSpace, index: pa.Array) -> pa.Table:
    """The rows at these indices, probabilities as lists of fixed size; a null index is a null row.

    Arrow takes rows of such lists 4 times faster than of others.

    Raises:
        SchemaError: the predictions have another number of classes.
    """
    heads = {probs_column(head): head for head in label_space.heads}
    columns = {}
    for name in rows.column_names:
        if name not in heads:
            columns[name] = rows[name].take(index)
            continue
        probs_MK = probs_matrix(rows, label_space, heads[name])
        has_probs_N = rows[name].is_valid().to_numpy()
        lists_M = pa.FixedSizeListArray.from_arrays(pa.array(probs_MK.ravel()), probs_MK.shape[1])
        columns[name] = lists_M.take(_index_of(has_probs_N).take(index))
    return pa.table(columns)
