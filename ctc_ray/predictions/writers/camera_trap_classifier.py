"""Write event predictions in the csv and json formats of camera-trap-classifier 2019.

The files are equal to the original's byte for byte, with these differences:

- json escapes ids, so an id with a quote or a backslash is valid;
- an event without images, or with failed images only, is not left out. csv has a line per head with
  empty prediction_top and confidence_top, and `{}` as predictions_all; json has empty predictions
  and no top entries;
- metadata columns are in the order of the source; the original's order was random;
- a metadata column called like one of the five others, for example `label`, is `meta_label` in csv;
- text in csv that a spreadsheet would run as a formula begins with an apostrophe;
- a file without events is valid: the header in csv, `{}` in json;
- images have the name that the source gives them (image_uri), without a root in front.

The lines of some events are one part; see `exports`.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from ctc_ray.errors import SchemaError
from ctc_ray.files.csv_text import csv_lines
from ctc_ray.labels import LabelSpace
from ctc_ray.schemas import meta_column, pred_column, probs_column, score_column

_CSV_COLUMNS = ("id", "label", "prediction_top", "confidence_top", "predictions_all")

JSON_BETWEEN = b",\n"
"""What stands between the entries of two events."""


def csv_opening(meta: Sequence[str]) -> bytes:
    """The header line of the csv file; every cell is quoted.

    Args:
        meta: metadata fields, without prefix.
    """
    return csv_lines([_header(meta)], quote_all=True)


def csv_part(events: pa.Table, label_space: LabelSpace, meta: Sequence[str]) -> bytes:
    """One line per event and head, without the header.

    Args:
        events: predictions per event.
        meta: metadata fields, without prefix.
    """
    return csv_lines(_csv_rows(events, label_space, meta), quote_all=True)


def _header(meta: Sequence[str]) -> list[str]:
    """The names of the columns; a metadata field with the name of another is called `meta_…`."""
    names = list(_CSV_COLUMNS)
    for field in meta:
        name = field
        while name in names:
            name = meta_column(name)
        names.append(name)
    return names


def _csv_rows(
    events: pa.Table, label_space: LabelSpace, meta: Sequence[str]
) -> Iterator[Sequence[str]]:
    """The cells of each line: events in the order of the rows, heads in that of the label space."""
    heads = {head: _formatted(events, head, label_space) for head in label_space.heads}
    fields = _meta_rows(events, meta)
    for row, (event_id, event) in enumerate(_tops(events, label_space)):
        for head in label_space.heads:
            yield [
                event_id,
                head,
                event[pred_column(head)] or "",
                _number(event[score_column(head)]),
                str(heads[head][row]),  # the original wrote a Python dict
                *fields[row].values(),
            ]


def json_part(
    images: pa.Table, events: pa.Table, label_space: LabelSpace, meta: Sequence[str]
) -> bytes:
    """The entries of some events in the json file's one object; all numbers are strings.

    Args:
        images: predictions of the images of these events, in equal order.
        events: predictions per event.
        meta: metadata fields, without prefix.

    Raises:
        SchemaError: the images do not belong to the events.
    """
    lines = (
        f"{json.dumps(event_id, ensure_ascii=False)}:{json.dumps(entry)}".encode()
        for event_id, entry in _json_events(images, events, label_space, meta)
    )
    return JSON_BETWEEN.join(lines)


def _json_events(
    images: pa.Table, events: pa.Table, label_space: LabelSpace, meta: Sequence[str]
) -> Iterator[tuple[str, dict[str, Any]]]:
    n_images_E = events["n_images"].to_numpy()
    event_N = events["capture_event_id"].take(
        pa.array(np.repeat(np.arange(len(events)), n_images_E))
    )
    if images["capture_event_id"].to_pylist() != event_N.to_pylist():
        raise SchemaError("export: the image rows do not belong to the event rows")
    stops = np.cumsum(n_images_E)
    uris = images["image_uri"].to_pylist()
    by_image = _predictions(images, label_space)
    by_event = _predictions(events, label_space)
    fields = _meta_rows(events, meta)
    for row, (event_id, event) in enumerate(_tops(events, label_space)):
        heads = [head for head in label_space.heads if event[pred_column(head)] is not None]
        own_rows = range(int(stops[row] - n_images_E[row]), int(stops[row]))
        entry: dict[str, Any] = {
            "images": [{"path": uris[index], "predictions": by_image[index]} for index in own_rows]
        }
        if meta:
            entry["meta_data"] = fields[row]
        entry["aggregated_pred"] = by_event[row]
        entry["predictions_top"] = {head: event[pred_column(head)] for head in heads}
        entry["confidences_top"] = {head: _number(event[score_column(head)]) for head in heads}
        yield event_id, entry


def _predictions(rows: pa.Table, label_space: LabelSpace) -> list[dict[str, dict[str, str]]]:
    """Head -> class -> probability as text, per row; empty if the row has no prediction."""
    heads = {head: _formatted(rows, head, label_space) for head in label_space.heads}
    return [
        {head: numbers[row] for head, numbers in heads.items() if numbers[row]}
        for row in range(rows.num_rows)
    ]


def _formatted(rows: pa.Table, head: str, label_space: LabelSpace) -> list[dict[str, str]]:
    """Class -> probability as text, per row; empty if the row has no prediction."""
    classes = label_space.classes[head]
    return [
        dict(zip(classes, map(_number, probs), strict=True)) if probs is not None else {}
        for probs in rows[probs_column(head)].to_pylist()
    ]


def _tops(events: pa.Table, label_space: LabelSpace) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Id of each event, and its columns with predicted classes and scores."""
    columns = [of(head) for head in label_space.heads for of in (pred_column, score_column)]
    tops = events.select(columns).to_pylist()
    return zip(events["capture_event_id"].to_pylist(), tops, strict=True)


def _meta_rows(events: pa.Table, meta: Sequence[str]) -> list[dict[str, str]]:
    """Metadata field -> value, per event; a null becomes empty text."""
    columns = [[value or "" for value in events[meta_column(field)].to_pylist()] for field in meta]
    return [
        {name: column[row] for name, column in zip(meta, columns, strict=True)}
        for row in range(events.num_rows)
    ]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
