import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctc_ray.errors import SchemaError
from ctc_ray.labels import LabelSpace
from ctc_ray.predictions.events import aggregate_by_event
from ctc_ray.predictions.scores import probs_matrix, score_rows, take_fixed
from ctc_ray.schemas import image_fields, prediction_schema

LABELS = LabelSpace({"species": ("cat", "dog"), "count": ("1", "10", "2")})


def images(failures: list[str | None], meta: tuple[str, ...] = ()) -> pa.Table:
    rows = [
        {
            "image_id": f"id{i}",
            "image_uri": f"{i}.jpg",
            "capture_event_id": f"ev{i}",
            "image_index": 0,
            "n_images": 1,
            "failure": failure,
            **{f"meta_{field}": f"{field}{i}" for field in meta},
        }
        for i, failure in enumerate(failures)
    ]
    return pa.Table.from_pylist(
        rows, pa.schema([*image_fields(meta), pa.field("failure", pa.string())])
    )


def matrix(*rows: list[float]) -> np.ndarray:
    return np.array(rows, np.float32)


def test_each_image_gets_its_top_class_its_probability_and_all_probabilities():
    probs = {
        "species": matrix([0.25, 0.75], [0.5, 0.5]),
        "count": matrix([0.125, 0.125, 0.75], [0.25, 0.5, 0.25]),
    }
    rows = score_rows(images([None, None]), LABELS, probs)
    assert rows["pred_species"].to_pylist() == ["dog", "cat"]
    assert rows["score_species"].to_pylist() == [0.75, 0.5]
    assert rows["pred_count"].to_pylist() == ["2", "10"]
    assert rows["probs_count"].to_pylist() == [[0.125, 0.125, 0.75], [0.25, 0.5, 0.25]]


def test_of_equal_probabilities_the_lowest_class_index_wins():
    probs = {"species": matrix([0.5, 0.5]), "count": matrix([0.25, 0.375, 0.375])}
    rows = score_rows(images([None]), LABELS, probs)
    assert rows["pred_species"].to_pylist() == ["cat"]
    assert rows["pred_count"].to_pylist() == ["10"]


def test_a_failed_image_keeps_its_row_and_has_no_prediction():
    one = {"species": matrix([0.25, 0.75]), "count": matrix([1, 0, 0])}
    rows = score_rows(images(["missing", None, "truncated"]), LABELS, one)
    assert rows["image_id"].to_pylist() == ["id0", "id1", "id2"]
    assert rows["failure"].to_pylist() == ["missing", None, "truncated"]
    assert rows["pred_species"].to_pylist() == [None, "dog", None]
    assert rows["score_species"].to_pylist() == [None, 0.75, None]
    assert rows["probs_species"].to_pylist() == [None, [0.25, 0.75], None]


def test_metadata_are_carried_along():
    probs = {"species": matrix([1, 0]), "count": matrix([1, 0, 0])}
    rows = score_rows(images([None], meta=("site", "n")), LABELS, probs)
    assert rows.schema.equals(prediction_schema(LABELS.heads, ("site", "n")))
    assert rows["meta_n"].to_pylist() == ["n0"]


@given(st.lists(st.sampled_from([None, "missing"]), max_size=12), st.integers(0, 2**32 - 1))
def test_rows_are_conserved_in_order_and_heads_are_null_exactly_where_failure_is_set(
    failures, seed
):
    n_ok = failures.count(None)
    draw = np.random.default_rng(seed)
    probs = {
        head: draw.dirichlet(np.ones(len(names)), n_ok).astype(np.float32)
        for head, names in LABELS.classes.items()
    }
    rows = score_rows(images(failures), LABELS, probs)
    assert rows.schema.equals(prediction_schema(LABELS.heads))
    assert rows["image_id"].to_pylist() == [f"id{i}" for i in range(len(failures))]
    for head in LABELS.heads:
        for column in (f"pred_{head}", f"score_{head}", f"probs_{head}"):
            empty = [value is None for value in rows[column].to_pylist()]
            assert empty == [failure is not None for failure in failures]
        assert np.array_equal(probs_matrix(rows, LABELS, head), probs[head])


def test_scoring_in_batches_equals_scoring_at_once():
    probs = {
        "species": matrix([0.25, 0.75], [0.5, 0.5]),
        "count": matrix([0.125, 0.125, 0.75], [0.25, 0.5, 0.25]),
    }
    rows = images([None, "missing", None])
    halves = [
        score_rows(rows.slice(0, 2), LABELS, {head: p[:1] for head, p in probs.items()}),
        score_rows(rows.slice(2), LABELS, {head: p[1:] for head, p in probs.items()}),
    ]
    assert pa.concat_tables(halves).equals(score_rows(rows, LABELS, probs))


@pytest.mark.parametrize("shape", [(1, 2), (3, 2), (2, 3)])
def test_probabilities_that_do_not_fit_are_refused(shape):
    probs = {"species": np.zeros(shape, np.float32), "count": np.zeros((2, 3), np.float32)}
    with pytest.raises(SchemaError, match=r"head 'species' have shape .* expected \(2, 2\)"):
        score_rows(images([None, None, "missing"]), LABELS, probs)


def test_rows_without_failure_column_are_refused():
    with pytest.raises(SchemaError, match="column 'failure' not found"):
        score_rows(images([None]).drop_columns(["failure"]), LABELS, {})


def test_predictions_of_another_label_space_are_refused():
    probs = {"species": matrix([0.25, 0.75]), "count": matrix([1, 0, 0])}
    rows = score_rows(images([None]), LABELS, probs)
    other = LabelSpace({"species": ("cat", "dog", "fox")})
    with pytest.raises(SchemaError, match="probs_species must hold 3 values"):
        probs_matrix(rows, other, "species")


@given(
    st.lists(st.sampled_from([None, "missing", np.nan, np.inf, -np.inf]), min_size=1, max_size=6),
    st.sampled_from(["species", "count"]),
    st.sampled_from(["mean", "max", "min", "mean-logit"]),
)
def test_an_answer_that_is_no_number_is_a_failure_and_decides_no_event(answers, head, method):
    """The event's answer is that of the same event without such images."""
    failures = ["missing" if answer == "missing" else None for answer in answers]
    rows = images(failures).set_column(2, "capture_event_id", pa.array(["e"] * len(answers)))
    decoded = [answer for answer in answers if answer != "missing"]
    probs = {
        "species": np.tile(matrix([0.25, 0.75]), (len(decoded), 1)),
        "count": np.tile(matrix([0.5, 0.25, 0.25]), (len(decoded), 1)),
    }
    for index, answer in enumerate(decoded):
        if answer is not None:
            probs[head][index, 0] = answer
    scored = score_rows(rows, LABELS, probs)
    told = [answer if answer in (None, "missing") else "model" for answer in answers]
    assert scored["failure"].to_pylist() == told
    for name in LABELS.heads:
        assert [p is None for p in scored[f"pred_{name}"].to_pylist()] == [
            f is not None for f in told
        ]
    (event,) = aggregate_by_event(scored, LABELS, method=method).to_pylist()
    assert event["n_failed"] == sum(f is not None for f in told)
    finite = pc.is_null(scored["failure"])
    if None in told:
        (alone,) = aggregate_by_event(scored.filter(finite), LABELS, method=method).to_pylist()
        for name in LABELS.heads:
            assert event[f"probs_{name}"] == alone[f"probs_{name}"]
    else:
        assert event["pred_species"] is None


def test_taken_rows_are_those_of_arrow_and_a_null_index_is_a_null_row():
    probs = [[0.5, 0.25, 0.25], None, [0, 1, 0]]
    column = pa.chunked_array([probs[:2], probs[2:]], pa.list_(pa.float32()))
    rows = pa.table({"id": ["a", "b", "c"], "probs_species": column})
    labels = LabelSpace({"species": ("cat", "dog", "fox")})
    taken = take_fixed(rows, labels, pa.array([2, None, 1, 0, 2]))
    assert taken["id"].to_pylist() == ["c", None, "b", "a", "c"]
    assert taken["probs_species"].to_pylist() == [probs[2], None, None, probs[0], probs[2]]
    with pytest.raises(SchemaError, match="probs_species must hold 2 values"):
        take_fixed(rows, LabelSpace({"species": ("cat", "dog")}), pa.array([0]))
