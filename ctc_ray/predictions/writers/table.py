"""Predictions as a plain csv with one row per event or per image: for people and spreadsheets.

Per head there are the predicted class, its score, the second class and its score, and the label
where the source has labels. Scores have 4 digits. Text that a spreadsheet would run as a formula
begins with an apostrophe. A file name that is not valid UTF-8 is a percent-encoded `file://` URI.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ctc_ray.columns.event_runs import run_starts
from ctc_ray.errors import SchemaError
from ctc_ray.files.csv_text import Cell, csv_lines
from ctc_ray.labels import LabelSpace
from ctc_ray.predictions.scores import probs_matrix
from ctc_ray.schemas import (
    META_PREFIX,
    label_column,
    meta_column,
    pred_column,
    probs_column,
    score_column,
    with_label_columns,
)

_PLACE = ("time", "location", "deployment")
_OF_EVENTS = ("event", "first_file", "n_images", "n_failed", *_PLACE)
_OF_IMAGES = ("file", "event", "image_index", *_PLACE)

_NO_IMAGE = "no image"  # failure of an event that names no image

Columns = list[Iterable[Cell]]


def events_header(
    label_space: LabelSpace, meta: Sequence[str], labelled: Sequence[str]
) -> list[str]:
    """The names of the columns of the table of events.

    Args:
        meta: metadata fields, without prefix.
        labelled: heads for which the source has labels.
    """
    return _header(_OF_EVENTS, label_space, meta, labelled)


def images_header(
    label_space: LabelSpace, meta: Sequence[str], labelled: Sequence[str]
) -> list[str]:
    """The names of the columns of the table of images; see `events_header`."""
    return _header(_OF_IMAGES, label_space, meta, labelled)


def events_part(
    images: pa.Table,
    events: pa.Table,
    label_space: LabelSpace,
    meta: Sequence[str],
    labelled: Sequence[str],
) -> bytes:
    """The lines of some events.

    An event without a prediction has the failure of its images, each kind once.

    Args:
        images: predictions of the images of these events, in equal order.
        meta: metadata fields, without prefix.
        labelled: heads for which the source has labels.

    Raises:
        SchemaError: the images do not belong to the events.
    """
    n_images_E = events["n_images"].to_numpy()
    starts_E = np.cumsum(n_images_E) - n_images_E
    if run_starts(images["capture_event_id"]).tolist() != starts_E[n_images_E > 0].tolist():
        raise SchemaError("export: the image rows do not belong to the event rows")
    first_E = pa.array(starts_E, mask=n_images_E == 0)
    columns: Columns = [
        events["capture_event_id"].to_pylist(),
        images["image_uri"].take(first_E).to_pylist(),
        events["n_images"].to_pylist(),
        events["n_failed"].to_pylist(),
        *_places(events),
        *_of_heads(events, label_space, labelled),
        _failures(images, events, starts_E),
        *(events[meta_column(field)].to_pylist() for field in meta),
    ]
    return csv_lines(zip(*columns, strict=True))


def images_part(
    images: pa.Table, label_space: LabelSpace, meta: Sequence[str], labelled: Sequence[str]
) -> bytes:
    """The lines of some images; see `events_part`."""
    columns: Columns = [
        images["image_uri"].to_pylist(),
        images["capture_event_id"].to_pylist(),
        images["image_index"].to_pylist(),
        *_places(images),
        *_of_heads(images, label_space, labelled),
        images["failure"].to_pylist(),
        *(images[meta_column(field)].to_pylist() for field in meta),
    ]
    return csv_lines(zip(*columns, strict=True))


def _header(
    first: Sequence[str], label_space: LabelSpace, meta: Sequence[str], labelled: Sequence[str]
) -> list[str]:
    """Names that all differ: a head or a metadata field with the name of another gets a prefix."""
    names = [*first, "failure"]
    heads: list[str] = []
    for head in label_space.heads:
        wanted = [head, f"{head}_score", f"{head}_second", f"{head}_second_score"]
        wanted += [f"{head}_label"] if head in labelled else []
        heads += [_unused(name, "head_", [*names, *heads]) for name in wanted]
    fields: list[str] = []
    for field in meta:
        fields.append(_unused(field, META_PREFIX, [*names, *heads, *fields]))
    return [*first, *heads, "failure", *fields]


def _unused(name: str, prefix: str, used: Sequence[str]) -> str:
    while name in used:
        name = prefix + name
    return name


def _places(rows: pa.Table) -> Columns:
    """Time, to the second, location and deployment."""
    seconds = rows["captured_at"].cast(pa.timestamp("s"), safe=False)
    return [
        pc.strftime(seconds, format="%Y-%m-%d %H:%M:%S").to_pylist(),
        rows["location_id"].to_pylist(),
        rows["deployment_id"].to_pylist(),
    ]


def _of_heads(rows: pa.Table, label_space: LabelSpace, labelled: Sequence[str]) -> Columns:
    columns: Columns = []
    rows = with_label_columns(rows, labelled)
    for head in label_space.heads:
        names, scores = _second(rows, label_space, head)
        columns += [
            rows[pred_column(head)].to_pylist(),
            _numbers(rows[score_column(head)].to_pylist()),
            names,
            scores,
        ]
        if head in labelled:
            columns.append(rows[label_column(head)].to_pylist())
    return columns


def _second(
    rows: pa.Table, label_space: LabelSpace, head: str
) -> tuple[list[str | None], list[str | None]]:
    """The class with the second highest probability, and that; None without a prediction."""
    probs_MK = probs_matrix(rows, label_space, head)
    is_ok_N = rows[probs_column(head)].is_valid().to_numpy()
    n_rows = rows.num_rows
    if probs_MK.shape[1] < 2:
        return [None] * n_rows, [None] * n_rows
    row_M = np.arange(len(probs_MK))
    others_MK: npt.NDArray[np.float32] = probs_MK.copy()
    others_MK[row_M, probs_MK.argmax(axis=1)] = -np.inf
    second_M = others_MK.argmax(axis=1)
    index_N = pa.array(np.cumsum(is_ok_N) - 1, mask=~is_ok_N)
    scores = pa.array(probs_MK[row_M, second_M]).take(index_N).to_pylist()
    return label_space.decode(head, second_M).take(index_N).to_pylist(), _numbers(scores)


def _numbers(values: Iterable[float | None]) -> list[str | None]:
    return [None if value is None else f"{value:.4f}" for value in values]


def _failures(
    images: pa.Table, events: pa.Table, starts_E: npt.NDArray[np.int64]
) -> list[str | None]:
    """The failures of the images of each event without a prediction."""
    n_images, n_failed = events["n_images"].to_pylist(), events["n_failed"].to_pylist()
    failures: list[str | None] = [None] * events.num_rows
    for event in np.flatnonzero(np.equal(n_images, n_failed)).tolist():
        own = images["failure"].slice(int(starts_E[event]), n_images[event])
        kinds = sorted(set(own.drop_null().to_pylist()))
        failures[event] = ", ".join(kinds) or _NO_IMAGE
    return failures
