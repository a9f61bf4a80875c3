"""predictions_events.csv and predictions_images.csv, read back by a reader of csv files."""

import csv
import datetime as dt
import io
import os
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctc_ray.errors import SchemaError
from ctc_ray.files import storage
from ctc_ray.labels import LabelSpace
from ctc_ray.predictions.events import aggregate_by_event, without_images
from ctc_ray.predictions.scores import score_rows
from ctc_ray.predictions.writers.exports import exports
from ctc_ray.schemas import image_fields

LABELS = LabelSpace({"species": ("cat", "dog", "fox"), "sex": ("f",)})
META = ("site",)
CAT, DOG = [0.7, 0.1, 0.2], [0.125, 0.5, 0.375]

Images = list[tuple[str, str, list[float] | None]]  # event, uri, probabilities of species
Part = tuple[pa.Table, pa.Table]


def part(images: Images, failure: str = "missing", **columns: list[Any]) -> Part:
    rows = [
        {
            "image_id": f"id{n}",
            "image_uri": uri,
            "capture_event_id": event,
            "image_index": 0,
            "n_images": 1,
            "failure": failure if probs is None else None,
            **{name: values[n] for name, values in columns.items()},
        }
        for n, (event, uri, probs) in enumerate(images)
    ]
    labels = [pa.field(name, pa.string()) for name in columns if name.startswith("label_")]
    schema = pa.schema([*image_fields(META), *labels, pa.field("failure", pa.string())])
    species = [probs for *_, probs in images if probs is not None]
    probs = {
        "species": np.array(species, np.float32).reshape(-1, 3),
        "sex": np.ones((len(species), 1), np.float32),
    }
    scored = score_rows(pa.Table.from_pylist(rows, schema), LABELS, probs)
    return scored, aggregate_by_event(scored, LABELS, method="mean")


def tables(*parts: Part, meta=META, labelled=()) -> tuple[list[dict], list[dict]]:
    """The rows of both files."""
    found = []
    for export in exports(["table"], LABELS, meta, labelled):
        text = b"".join(export.whole(export.part(*one) for one in parts)).decode()
        rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
        assert len(set(rows[0])) == len(rows[0])
        assert {len(row) for row in rows} == {len(rows[0])}
        found.append([dict(zip(rows[0], row, strict=True)) for row in rows[1:]])
    events, images = found
    return events, images


def test_a_row_has_all_that_a_person_looks_for():
    noon = dt.datetime(2024, 5, 1, 12, 30, 5, 999_000)
    rows = part(
        [("e", "a.jpg", CAT), ("e", "b.jpg", None)],
        captured_at=[noon, None],
        location_id=["L1", "L1"],
        deployment_id=["D", "D"],
        meta_site=["north", "north"],
        label_species=["fox", "fox"],
    )
    (event,), (first, second) = tables(rows, labelled=["species"])
    shared = {
        "time": "2024-05-01 12:30:05",
        "location": "L1",
        "deployment": "D",
        "species": "cat",
        "species_score": "0.7000",
        "species_second": "fox",
        "species_second_score": "0.2000",
        "species_label": "fox",
        "sex": "f",
        "sex_score": "1.0000",
        "sex_second": "",
        "sex_second_score": "",
        "failure": "",
        "site": "north",
    }
    assert event == {
        "event": "e", "first_file": "a.jpg", "n_images": "2", "n_failed": "1", **shared
    }  # fmt: skip
    assert first == {"file": "a.jpg", "event": "e", "image_index": "0", **shared}
    assert second["species"] == second["species_score"] == second["species_second"] == ""
    assert (second["failure"], second["species_label"]) == ("missing", "fox")


def test_every_event_has_a_row_and_says_why_it_has_no_answer():
    images, events = part([("a", "1.jpg", None), ("a", "2.jpg", None), ("b", "3.jpg", DOG)])
    nothing = without_images(
        pa.table({"capture_event_id": ["none"], "meta_site": pa.nulls(1, pa.string())}), LABELS
    )
    rows, files = tables((images, events), (images.slice(0, 0), nothing))
    assert [row["event"] for row in rows] == ["a", "b", "none"]
    assert [row["failure"] for row in rows] == ["missing", "", "no image"]
    assert [row["species"] for row in rows] == ["", "dog", ""]
    assert [row["file"] for row in files] == ["1.jpg", "2.jpg", "3.jpg"]


def test_text_that_a_spreadsheet_would_run_is_escaped_and_names_that_are_no_text_too():
    odd = os.fsdecode(b"/photos/\xff.jpg")
    rows = part(
        [("=1+1", "-cmd|x.jpg", CAT), ("@e", storage.as_text(odd), CAT)],
        meta_site=["+a", "line\nbreak"],
    )
    events, images = tables(rows)
    assert [row["event"] for row in events] == ["'=1+1", "'@e"]
    assert [row["file"] for row in images] == ["'-cmd|x.jpg", "file:///photos/%FF.jpg"]
    assert storage.local_path(images[1]["file"]) == odd
    assert [row["site"] for row in images] == ["'+a", "line\nbreak"]


def test_names_that_are_taken_get_a_prefix():
    labels = LabelSpace({"event": ("a", "b"), "x": ("a",), "x_score": ("a",)})
    for export in exports(["table"], labels, ("event", "failure", "x_label"), ["x"]):
        (header,) = csv.reader(io.StringIO(export.opening.decode(), newline=""))
        assert len(set(header)) == len(header)
        assert header[-3:] == ["meta_event", "meta_failure", "meta_x_label"]
        assert {"head_event", "x_score", "head_x_score"} < set(header)


def test_images_of_other_events_are_refused():
    images, events = part([("a", "1.jpg", CAT), ("b", "2.jpg", DOG)])
    with pytest.raises(SchemaError, match="do not belong to the event rows"):
        tables((images.slice(1), events))


probs = st.lists(st.integers(0, 4), min_size=3, max_size=3).map(lambda x: [v / 4 for v in x])
some_events = st.lists(st.lists(st.none() | probs, min_size=1, max_size=3), max_size=5)


@settings(max_examples=60)
@given(some_events, st.integers(1, 3))
def test_rows_are_those_of_the_predictions_however_they_are_cut(events, size):
    images: Images = [(f"e{e}", f"{e}.jpg", p) for e, own in enumerate(events) for p in own]
    whole = part(images)
    cut = [
        part([row for row in images if int(row[0][1:]) // size == piece])
        for piece in range(1 + len(events) // size)
    ]
    assert tables(*cut) == tables(whole)
    found_events, found_images = tables(whole)
    assert len(found_images) == len(images)
    assert [row["event"] for row in found_events] == [f"e{e}" for e in range(len(events))]
    for row, (_, _, values) in zip(found_images, images, strict=True):
        if values is not None:
            ranked = sorted(range(3), key=lambda k: (-values[k], k))
            first, second = (LABELS.classes["species"][k] for k in ranked[:2])
            assert (row["species"], row["species_second"]) == (first, second)
            assert row["species_second_score"] == f"{values[ranked[1]]:.4f}"
