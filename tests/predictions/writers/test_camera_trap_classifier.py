import csv
import io
import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctc_ray.errors import SchemaError
from ctc_ray.labels import LabelSpace
from ctc_ray.predictions.events import aggregate_by_event
from ctc_ray.predictions.scores import score_rows
from ctc_ray.predictions.writers.exports import exports
from ctc_ray.schemas import image_fields

LABELS = LabelSpace({"species": ("cat", "dog"), "count": ("1", "10", "2")})
META = ("site", "n")

# id -> images (uri, species, count), metadata; the events of goldens.json `predictions_output`
EVENTS = {
    "ev1": (
        [
            ("a.jpg", [0.6, 0.4], [0.2, 0.5, 0.3]),
            ("b.jpg", [0.3, 0.7], [0.2, 0.2, 0.6]),
            ("bad.jpg", None, None),
        ],
        ('S "1"', "3"),
    ),
    "tie": ([("c.jpg", [0.5, 0.5], [0.4, 0.4, 0.2])], (None, None)),
}


def part(events: dict = EVENTS, method: str = "mean", meta=META) -> tuple[pa.Table, pa.Table]:
    rows, species, count = [], [], []
    for event_id, (images, values) in events.items():
        for index, (uri, *probs) in enumerate(images):
            rows.append(
                {
                    "image_id": f"{event_id}/{uri}",
                    "image_uri": uri,
                    "capture_event_id": event_id,
                    "image_index": index,
                    "n_images": len(images),
                    "failure": "missing" if probs[0] is None else None,
                    **{f"meta_{name}": v for name, v in zip(meta, values, strict=False)},
                }
            )
            if probs[0] is not None:
                species.append(probs[0])
                count.append(probs[1])
    schema = pa.schema([*image_fields(meta), pa.field("failure", pa.string())])
    probs = {
        "species": np.array(species, np.float32).reshape(-1, 2),
        "count": np.array(count, np.float32).reshape(-1, 3),
    }
    images = score_rows(pa.Table.from_pylist(rows, schema), LABELS, probs)
    return images, aggregate_by_event(images, LABELS, method=method)


def text(kind: str, *parts: tuple[pa.Table, pa.Table], meta=META) -> str:
    (export,) = exports([kind], LABELS, meta, ())
    return b"".join(export.whole(export.part(*one) for one in parts)).decode()


def read_csv(content: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(content, newline="")))


# What the original wrote for these events (its csv_mean; its json, of the first event).
CSV_MEAN = (
    '"id","label","prediction_top","confidence_top","predictions_all","site","n"\r\n'
    '"ev1","species","dog","0.5500","{\'cat\': \'0.4500\', \'dog\': \'0.5500\'}","S ""1""","3"\r\n'
    "\"ev1\",\"count\",\"2\",\"0.4500\",\"{'1': '0.2000', '10': '0.3500', '2': '0.4500'}\","
    '"S ""1""","3"\r\n'
    '"tie","species","cat","0.5000","{\'cat\': \'0.5000\', \'dog\': \'0.5000\'}","",""\r\n'
    "\"tie\",\"count\",\"1\",\"0.4000\",\"{'1': '0.4000', '10': '0.4000', '2': '0.2000'}\","
    '"",""\r\n'
)
JSON_TIE = (
    '{"tie":{"images": [{"path": "c.jpg", "predictions": {"species": {"cat": "0.5000", '
    '"dog": "0.5000"}, "count": {"1": "0.4000", "10": "0.4000", "2": "0.2000"}}}], '
    '"meta_data": {"site": "", "n": ""}, "aggregated_pred": {"species": {"cat": "0.5000", '
    '"dog": "0.5000"}, "count": {"1": "0.4000", "10": "0.4000", "2": "0.2000"}}, '
    '"predictions_top": {"species": "cat", "count": "1"}, '
    '"confidences_top": {"species": "0.5000", "count": "0.4000"}}}'
)


def test_csv_is_byte_for_byte_the_originals():
    assert text("csv", part()) == CSV_MEAN


def test_json_is_byte_for_byte_the_originals():
    assert text("json", part({"tie": EVENTS["tie"]})) == JSON_TIE


@pytest.mark.real_data
@pytest.mark.parametrize("method", ["mean", "max"])
def test_both_files_equal_what_the_original_program_wrote(shared_data, method):
    goldens = json.loads((shared_data.parent / "reference" / "goldens.json").read_text())
    golden = goldens["predictions_output"]
    assert text("csv", part(method=method)) == golden[f"csv_{method}"]
    assert text("json", part(method=method)) == golden[f"json_{method}"]


ALL_FAILED = {"gone": ([("x.jpg", None, None), ("y.jpg", None, None)], ("S1", "2"))}


def test_an_event_whose_images_all_failed_has_a_csv_line_per_head():
    lines = read_csv(text("csv", part(ALL_FAILED)))
    assert [line["label"] for line in lines] == ["species", "count"]
    for line in lines:
        assert line["prediction_top"] == line["confidence_top"] == ""
        assert line["predictions_all"] == "{}"
        assert (line["id"], line["site"]) == ("gone", "S1")


def test_an_event_whose_images_all_failed_has_a_json_entry_without_top():
    entry = json.loads(text("json", part(ALL_FAILED)))["gone"]
    assert entry["images"] == [
        {"path": "x.jpg", "predictions": {}},
        {"path": "y.jpg", "predictions": {}},
    ]
    assert entry["aggregated_pred"] == entry["predictions_top"] == entry["confidences_top"] == {}


def test_an_event_without_images_has_its_lines():
    images, events = part(ALL_FAILED)
    none = pa.array([0], pa.int32())
    empty = events.set_column(1, events.schema.field(1), none)
    assert empty.column_names[1] == "n_images"
    parts = [part(), (images.slice(0, 0), empty)]
    assert json.loads(text("json", *parts))["gone"]["images"] == []
    assert [line["id"] for line in read_csv(text("csv", *parts))][-2:] == ["gone", "gone"]


def test_without_events_the_files_are_valid():
    header = '"id","label","prediction_top","confidence_top","predictions_all","site","n"\r\n'
    none = part({})
    assert text("csv") == text("csv", none) == header
    assert text("json") == text("json", none) == "{}"


def test_without_metadata_there_are_no_columns_and_no_meta_data_entry():
    bare = part(EVENTS, meta=())
    assert text("csv", bare, meta=()).splitlines()[0].endswith('"predictions_all"')
    assert "meta_data" not in json.loads(text("json", bare, meta=()))["ev1"]


def test_metadata_columns_come_in_the_order_asked_for():
    assert text("csv", part(), meta=("n", "site")).splitlines()[0].endswith('"n","site"')


@pytest.mark.parametrize("kind", ["csv", "json"])
def test_cutting_into_parts_does_not_change_the_file(kind):
    names = list(EVENTS)
    parts = [part({name: EVENTS[name]}) for name in names]
    assert text(kind, *parts) == text(kind, parts[0], part({}), parts[1]) == text(kind, part())


@pytest.mark.parametrize("kind", ["csv", "json"])
def test_parts_are_read_one_at_a_time(kind):
    read = []

    def parts():
        for name in EVENTS:
            read.append(name)
            yield part({name: EVENTS[name]})

    (export,) = exports([kind], LABELS, META, ())
    stream = export.whole(export.part(*one) for one in parts())
    while len(read) < 1:
        next(stream)
    assert read == ["ev1"]
    list(stream)
    assert read == ["ev1", "tie"]


def test_images_of_other_events_are_refused():
    images, events = part()
    with pytest.raises(SchemaError, match="do not belong to the event rows"):
        text("json", (images.slice(0, 3), events))


names = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


@settings(max_examples=60)
@given(st.lists(names, unique=True, max_size=4), names)
def test_any_id_and_metadata_are_read_back(ids, site):
    one = [("é\\\"'.jpg", [0.25, 0.75], [1, 0, 0])]
    rows = part(dict.fromkeys(ids, (one, (site, "1"))))
    entries = json.loads(text("json", rows))
    assert list(entries) == ids
    assert all(entry["meta_data"]["site"] == site for entry in entries.values())
    assert all(entry["images"][0]["path"] == one[0][0] for entry in entries.values())
    lines = read_csv(text("csv", rows))
    assert [unescaped(line["id"]) for line in lines[::2]] == list(map(unescaped, ids))
    assert all(unescaped(line["site"]) == unescaped(site) for line in lines)


def unescaped(cell: str) -> str:
    return cell[1:] if cell[:1] == "'" and cell[1:2] in tuple("=+-@\t\r") else cell


def test_a_metadata_field_called_like_another_column_is_kept():
    meta = ("label", "id", "meta_label", "site")
    one = [("a.jpg", [0.25, 0.75], [1, 0, 0])]
    rows = part({"e1": (one, ("=1", "x", "y", "s"))}, meta=meta)
    (header, first, _) = csv.reader(io.StringIO(text("csv", rows, meta=meta), newline=""))
    assert len(set(header)) == len(header)
    assert header[5:] == ["meta_label", "meta_id", "meta_meta_label", "site"]
    assert first[5:] == ["'=1", "x", "y", "s"]
