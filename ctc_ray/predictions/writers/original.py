"""Event predictions in the csv and json formats of camera-trap-classifier 2019.

Byte for byte the original's, except that

- ids are escaped in json, so an id with a quote or a backslash no longer breaks the file;
- an event whose images all failed, or that has none, has a row: in csv one per head with empty
  prediction_top and confidence_top and `{}`, in json with empty predictions and no top entries;
- metadata columns come in the order of the source, where the original's order was random;
- without events the file is valid: a header line, `{}`;
- images are named as the source names them (image_uri), not with a root before them.

The files are made piece by piece, so they may be larger than the memory.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from ctc_ray.errors import SchemaError
from ctc_ray.files import csv_text
from ctc_ray.labels import LabelSpace
from ctc_ray.schemas import meta_column, pred_column, probs_column, score_column

_CSV_COLUMNS = ("id", "label", "prediction_top", "confidence_top", "predictions_all")

Parts = Iterable[tuple[pa.Table, pa.Table]]
"""Prediction rows of whole events, and the rows of these events in the same order."""


def csv_chunks(parts: Parts, label_space: LabelSpace, meta: Sequence[str]) -> Iterator[bytes]:
    """The csv file: one line per event and head, every field quoted; the first chunk is its header.

    Args:
        meta: metadata fields, without prefix.
    """
    rows = (_csv_rows(events, label_space, meta) for _, events in parts)
    return csv_text.csv_chunks([*_CSV_COLUMNS, *meta], rows, quote_all=True)


def _csv_rows(
    events: pa.Table, label_space: LabelSpace, meta: Sequence[str]
) -> Iterator[Sequence[str]]:
    """The cells of each event and head, in this order."""
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


def json_chunks(parts: Parts, label_space: LabelSpace, meta: Sequence[str]) -> Iterator[bytes]:
    """The json file: one object, one line per event; all numbers are strings.

    Args:
        meta: metadata fields, without prefix.

    Raises:
        SchemaError: a part's images are not those of its events.
    """
    opening = "{"
    for images, events in parts:
        lines = [
            f"{json.dumps(event_id, ensure_ascii=False)}:{json.dumps(entry)}"
            for event_id, entry in _json_events(images, events, label_space, meta)
        ]
        if lines:
            yield (opening + ",\n".join(lines)).encode()
            opening = ",\n"
    yield b"{}" if opening == "{" else b"}"


def _json_events(
    images: pa.Table, events: pa.Table, label_space: LabelSpace, meta: Sequence[str]
) -> Iterator[tuple[str, dict[str, Any]]]:
    n_images_E = events["n_images"].to_numpy()
    event_N = events["capture_event_id"].take(
        pa.array(np.repeat(np.arange(len(events)), n_images_E))
    )
    if images["capture_event_id"].to_pylist() != event_N.to_pylist():
        raise SchemaError("export: the image rows are not those of the event rows")
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
    """Per row head -> class -> number; no head where the row has no prediction."""
    heads = {head: _formatted(rows, head, label_space) for head in label_space.heads}
    return [
        {head: numbers[row] for head, numbers in heads.items() if numbers[row]}
        for row in range(rows.num_rows)
    ]


def _formatted(rows: pa.Table, head: str, label_space: LabelSpace) -> list[dict[str, str]]:
    """Per row class -> number in the order of the classes; empty without a prediction."""
    classes = label_space.classes[head]
    return [
        dict(zip(classes, map(_number, probs), strict=True)) if probs is not None else {}
        for probs in rows[probs_column(head)].to_pylist()
    ]


def _tops(events: pa.Table, label_space: LabelSpace) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Per event its id, and the columns with the top classes and their probabilities."""
    columns = [of(head) for head in label_space.heads for of in (pred_column, score_column)]
    tops = events.select(columns).to_pylist()
    return zip(events["capture_event_id"].to_pylist(), tops, strict=True)


def _meta_rows(events: pa.Table, meta: Sequence[str]) -> list[dict[str, str]]:
    """Per event metadata field -> value, empty where there is none."""
    columns = [[value or "" for value in events[meta_column(field)].to_pylist()] for field in meta]
    return [
        {name: column[row] for name, column in zip(meta, columns, strict=True)}
        for row in range(events.num_rows)
    ]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
