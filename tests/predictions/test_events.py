import datetime as dt
from typing import get_args

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctc_ray.config.choices import Aggregation
from ctc_ray.errors import SchemaError
from ctc_ray.labels import LabelSpace
from ctc_ray.predictions.events import aggregate_by_event, without_images
from ctc_ray.predictions.scores import score_rows
from ctc_ray.schemas import event_prediction_schema, image_fields

LABELS = LabelSpace({"species": ("cat", "dog", "fox")})
METHODS = get_args(Aggregation)


def predictions(*images: tuple[str, list[float] | None], **columns: list) -> pa.Table:
    """Prediction rows of (event, probabilities or None for a failed image)."""
    rows = [
        {
            "image_id": f"id{i}",
            "image_uri": f"{i}.jpg",
            "capture_event_id": event,
            "image_index": 0,
            "n_images": 1,
            "failure": "missing" if probs is None else None,
            **{name: values[i] for name, values in columns.items()},
        }
        for i, (event, probs) in enumerate(images)
    ]
    meta = [name.removeprefix("meta_") for name in columns if name.startswith("meta_")]
    schema = pa.schema([*image_fields(meta), pa.field("failure", pa.string())])
    ok = [probs for _, probs in images if probs is not None]
    matrix = np.array(ok, np.float32).reshape(-1, 3)
    return score_rows(pa.Table.from_pylist(rows, schema), LABELS, {"species": matrix})


@pytest.mark.parametrize(
    ("method", "expected", "top"),
    [
        ("mean", [0.5, 0.3125, 0.1875], "cat"),
        ("max", [0.75, 0.5, 0.25], "cat"),
        ("min", [0.25, 0.125, 0.125], "cat"),
        # sqrt(3/4 * 1/4) : sqrt(1/8 * 1/2) : sqrt(1/8 * 1/4) = sqrt 6 : sqrt 2 : 1
        ("mean-logit", [0.503626, 0.290769, 0.205605], "cat"),
        # sqrt(3/16), sqrt(1/16), sqrt(1/32)
        ("geometric-mean", [0.433013, 0.25, 0.176777], "cat"),
        ("vote", [0.5, 0.5, 0], "cat"),
    ],
)
def test_hand_computed_values(method, expected, top):
    rows = predictions(("e", [0.75, 0.125, 0.125]), ("e", [0.25, 0.5, 0.25]))
    event = aggregate_by_event(rows, LABELS, method=method).to_pylist()[0]
    assert event["probs_species"] == pytest.approx(expected, abs=1e-6)
    assert event["pred_species"] == top
    assert event["score_species"] == max(event["probs_species"])


def test_failed_images_are_counted_and_left_out():
    rows = predictions(("e", [0.5, 0.25, 0.25]), ("e", None), ("e", [0, 0.75, 0.25]))
    event = aggregate_by_event(rows, LABELS, method="mean").to_pylist()[0]
    assert (event["n_images"], event["n_failed"]) == (3, 1)
    assert event["probs_species"] == [0.25, 0.5, 0.25]
    assert event["pred_species"] == "dog"


@pytest.mark.parametrize("method", METHODS)
def test_event_with_only_failed_images_still_gets_a_row(method):
    rows = predictions(("a", None), ("b", [0, 1, 0]), ("c", None), ("c", None))
    events = aggregate_by_event(rows, LABELS, method=method)
    assert events["capture_event_id"].to_pylist() == ["a", "b", "c"]
    assert events["n_images"].to_pylist() == [1, 1, 2]
    assert events["n_failed"].to_pylist() == [1, 0, 2]
    assert events["pred_species"].to_pylist() == [None, "dog", None]
    assert events["score_species"].null_count == events["probs_species"].null_count == 2


def test_events_without_images_have_their_place_and_no_prediction():
    given = pa.table(
        {"capture_event_id": ["e", "f"], "location_id": ["L", None], "meta_x": ["1", "2"]}
    )
    events = without_images(given, LABELS)
    assert events.schema.equals(event_prediction_schema(LABELS.heads, ["x"]))
    assert events["n_images"].to_pylist() == events["n_failed"].to_pylist() == [0, 0]
    assert events["location_id"].to_pylist() == ["L", None]
    assert events["meta_x"].to_pylist() == ["1", "2"]
    assert events["pred_species"].null_count == events["probs_species"].null_count == 2


@pytest.mark.parametrize("method", METHODS)
def test_nothing_but_failures_and_no_rows_at_all(method):
    rows = predictions(("a", None), ("a", None))
    assert aggregate_by_event(rows, LABELS, method=method)["n_failed"].to_pylist() == [2]
    none = aggregate_by_event(rows.slice(0, 0), LABELS, method=method)
    assert none.num_rows == 0
    assert none.schema.equals(event_prediction_schema(LABELS.heads))


@pytest.mark.parametrize("method", METHODS)
def test_of_equal_values_the_lowest_class_index_wins(method):
    rows = predictions(("e", [0.125, 0.5, 0.375]), ("e", [0.125, 0.375, 0.5]))
    assert aggregate_by_event(rows, LABELS, method=method)["pred_species"].to_pylist() == ["dog"]


def test_mean_logit_survives_a_probability_of_zero():
    rows = predictions(("e", [1, 0, 0]), ("e", [0, 1, 0]))
    event = aggregate_by_event(rows, LABELS, method="mean-logit").to_pylist()[0]
    assert event["probs_species"] == pytest.approx([0.5, 0.5, 0], abs=1e-6)


def test_place_and_metadata_are_the_first_rows_and_time_that_of_the_first_dated_image():
    noon, one = dt.datetime(2021, 4, 11, 12), dt.datetime(2021, 4, 11, 13)
    rows = predictions(
        *[(event, [1, 0, 0]) for event in "aaab"],
        captured_at=[None, noon, one, None],
        location_id=["l1", None, "l9", None],
        deployment_id=["d1", "d2", "d3", None],
        meta_site=["S1", "S2", "S3", None],
    )
    a, b = aggregate_by_event(rows, LABELS, method="mean").to_pylist()
    assert (a["captured_at"], a["location_id"]) == (noon, "l1")
    assert (a["deployment_id"], a["meta_site"]) == ("d1", "S1")
    assert b["captured_at"] is b["location_id"] is b["meta_site"] is None


def test_a_missing_column_is_an_error():
    rows = predictions(("e", [1, 0, 0]))
    with pytest.raises(SchemaError, match="column 'probs_count' not found"):
        aggregate_by_event(rows, LabelSpace({"count": ("1", "2")}), method="mean")


eighths = st.lists(st.integers(0, 8), min_size=3, max_size=3).map(lambda x: [v / 8 for v in x])
events_of_images = st.lists(
    st.lists(st.one_of(st.none(), eighths), min_size=1, max_size=4), min_size=1, max_size=6
)


def rows_of(events: list[list[list[float] | None]]) -> pa.Table:
    return predictions(*[(f"e{e}", p) for e, probs in enumerate(events) for p in probs])


@settings(max_examples=60)
@given(events_of_images, st.sampled_from(METHODS), st.randoms(use_true_random=False))
def test_the_order_of_an_events_images_does_not_matter(events, method, random):
    shuffled = [random.sample(probs, len(probs)) for probs in events]
    left = aggregate_by_event(rows_of(events), LABELS, method=method)
    right = aggregate_by_event(rows_of(shuffled), LABELS, method=method)
    assert left.equals(right)


@settings(max_examples=60)
@given(events_of_images, st.sampled_from(METHODS))
def test_events_together_equal_events_one_by_one(events, method):
    rows = rows_of(events)
    together = aggregate_by_event(rows, LABELS, method=method)
    one_by_one, start = [], 0
    for probs in events:
        part = rows.slice(start, len(probs))
        one_by_one.append(aggregate_by_event(part, LABELS, method=method))
        start += len(probs)
    assert together.equals(pa.concat_tables(one_by_one))
    assert sum(together["n_images"].to_pylist()) == rows.num_rows


@given(st.lists(eighths, min_size=1, max_size=5), st.sampled_from(["mean", "max", "min"]))
def test_an_event_of_one_image_equals_that_image(probs, method):
    rows = predictions(*[(f"e{i}", p) for i, p in enumerate(probs)])
    events = aggregate_by_event(rows, LABELS, method=method)
    heads = ["pred_species", "score_species", "probs_species"]
    assert events.select(heads).equals(rows.select(heads))


def test_mean_logit_of_one_image_equals_that_image_up_to_rounding():
    rows = predictions(("e", [0.7, 0.2, 0.1]))
    event = aggregate_by_event(rows, LABELS, method="mean-logit").to_pylist()[0]
    assert event["probs_species"] == pytest.approx([0.7, 0.2, 0.1], abs=1e-6)


@settings(max_examples=60)
@given(events_of_images)
def test_mean_lies_between_min_and_max(events):
    rows = rows_of(events)
    low, middle, high = (
        aggregate_by_event(rows, LABELS, method=method)["probs_species"].to_pylist()
        for method in ("min", "mean", "max")
    )
    for a, b, c in zip(low, middle, high, strict=True):
        assert (a is None) == (b is None) == (c is None)
        if a is not None:
            assert np.all(np.less_equal(a, b))
            assert np.all(np.less_equal(b, c))


@settings(max_examples=60)
@given(st.lists(st.lists(st.sampled_from([None, "cat", "wolf"]), min_size=1, max_size=4)))
def test_the_label_of_an_event_is_that_of_its_images_if_they_agree(events):
    images = [(f"e{e}", [1, 0, 0]) for e, labels in enumerate(events) for _ in labels]
    flat = pa.array([label for labels in events for label in labels], pa.string())
    rows = predictions(*images).append_column("label_species", flat)
    found = aggregate_by_event(rows, LABELS, method="mean")
    given_labels = [{label for label in labels if label} for labels in events]
    expected = [labels.pop() if len(labels) == 1 else None for labels in given_labels]
    assert found["label_species"].to_pylist() == expected
    assert found.schema.equals(event_prediction_schema(LABELS.heads, labelled=["species"]))


def test_the_margin_is_the_best_minus_the_second_best_and_with_one_class_the_score():
    rows = predictions(("e", [0.5, 0.125, 0.375]), ("f", [0.25, 0.5, 0.25]), ("g", None))
    events = aggregate_by_event(rows, LABELS, method="mean")
    assert events["margin_species"].to_pylist() == [0.125, 0.25, None]
    one = LabelSpace({"animal": ("yes",)})
    rows = score_rows(
        rows.select([field.name for field in image_fields()] + ["failure"]),
        one,
        {"animal": np.array([[0.75], [0.25]], np.float32)},
    )
    assert aggregate_by_event(rows, one, method="mean")["margin_animal"].to_pylist() == [
        *(0.75, 0.25, None)
    ]


def test_classes_that_are_equal_have_no_margin():
    event = aggregate_by_event(predictions(("e", [0.25, 0.375, 0.375])), LABELS, method="mean")
    assert (event["pred_species"].to_pylist(), event["margin_species"].to_pylist()) == (
        ["dog"],
        [0],
    )


@pytest.mark.parametrize("top_k", [1, 2, 3, 9])
def test_the_best_classes_stand_in_for_all_probabilities(top_k):
    rows = predictions(("e", [0.25, 0.25, 0.5]), ("f", None), ("g", [0.125, 0.75, 0.125]))
    events = aggregate_by_event(rows, LABELS, method="mean", top_k=top_k)
    assert events.schema.equals(event_prediction_schema(LABELS.heads, is_top=True))
    best = [[("fox", 0.5), ("cat", 0.25), ("dog", 0.25)], None]
    best += [[("dog", 0.75), ("cat", 0.125), ("fox", 0.125)]]  # of equal ones the first class
    assert [
        one and [(top["class"], top["score"]) for top in one]
        for one in events["top_species"].to_pylist()
    ] == [one and one[:top_k] for one in best]
    whole = aggregate_by_event(rows, LABELS, method="mean")
    same = ["capture_event_id", "pred_species", "score_species", "margin_species"]
    assert events.select(same).equals(whole.select(same))


def test_an_image_without_probabilities_is_left_out_of_that_head_alone():
    labels = LabelSpace({"species": LABELS.classes["species"], "count": ("1", "2")})
    rows = predictions(("e", [0.5, 0.25, 0.25]), ("e", [0.25, 0.5, 0.25]))
    probs = pa.array([[0.25, 0.75], None], pa.list_(pa.float32()))
    event = aggregate_by_event(rows.append_column("probs_count", probs), labels, method="mean")
    assert event["probs_species"].to_pylist() == [[0.375, 0.375, 0.25]]
    assert event["probs_count"].to_pylist() == [[0.25, 0.75]]
    assert event["n_failed"].to_pylist() == [0]


@pytest.mark.parametrize("method", METHODS)
def test_a_probability_that_is_no_number_is_an_error(method):
    rows = predictions(("e", [0.5, 0.25, 0.25]), ("e", [1, 0, 0]), ("e", [1, 0, 0]))
    column = rows.column_names.index("probs_species")
    for wrong in (None, float("nan")):
        probs = pa.array([[1, 0, 0], [0.5, wrong, 0], [0, 1, 0]], pa.list_(pa.float32()))
        damaged = rows.set_column(column, "probs_species", probs)
        with pytest.raises(SchemaError, match="probs_species holds what is not a number"):
            aggregate_by_event(damaged, LABELS, method=method)
