import logging

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctc_ray.errors import ConfigError
from ctc_ray.inventory.sources.csv_source import CsvColumns, read_csv
from ctc_ray.selection.filters import all_labelled, has_label, in_frequent_classes

TABLE = pa.table(
    {
        "observations": pa.array(
            [[{"s": "lion"}, {"s": "cat"}], None, [{"s": "lions"}], [{"s": None}]]
        )
    }
)


def test_any_observation_counts_and_names_match_as_a_whole():
    assert has_label(TABLE, ["s=cat"], setting="k").tolist() == [True, False, False, False]
    assert has_label(TABLE, ["s=lion", "s=lions"], setting="k").tolist() == [
        True,
        False,
        True,
        False,
    ]
    assert not has_label(TABLE, [], setting="k").any()


def test_unknown_head_is_an_error_and_unknown_class_a_warning(caplog):
    with pytest.raises(ConfigError, match=r"filter\.keep: head 't' not found; heads are s"):
        has_label(TABLE, ["t=x"], setting="filter.keep")
    with caplog.at_level(logging.WARNING):
        assert not has_label(TABLE, ["s=lionn"], setting="filter.keep").any()
    assert "s=lionn does not occur; similar classes: lion, lions" in caplog.text


def test_row_that_lacks_a_label_of_one_head_is_not_all_labelled():
    rows = pa.table({"label_a": ["x", None, "y"], "label_b": ["x", "y", None]})
    assert all_labelled(rows, ["a", "b"]).tolist() == [True, False, False]


@given(
    st.lists(st.tuples(*[st.sampled_from(["x", "y", "z", None])] * 2), max_size=30),
    st.integers(1, 5),
)
def test_every_class_that_is_left_has_enough_events(labels, least):
    rows = pa.table(
        {
            "capture_event_id": pa.array([str(n) for n in range(len(labels))], pa.string()),
            "label_a": pa.array([a for a, _ in labels], pa.string()),
            "label_b": pa.array([b for _, b in labels], pa.string()),
        }
    )
    left = rows.filter(pa.array(in_frequent_classes(rows, ["a", "b"], least)))
    for head in ("label_a", "label_b"):
        values = left[head].to_pylist()
        assert all(values.count(v) >= least for v in set(values) - {None})
    again = in_frequent_classes(rows, ["a", "b"], 1)
    assert again.all()


@given(
    st.lists(st.tuples(st.sampled_from("xyz"), st.integers(1, 4)), max_size=20),
    st.integers(0, 3),
    st.integers(0, 6),
)
def test_class_of_few_images_is_left_out_however_many_events_it_has(events, least, images):
    given = [(str(n), label) for n, (label, size) in enumerate(events) for _ in range(size)]
    labels = [label for _, label in given]
    names = ("capture_event_id", "label_a")
    columns = zip(*given, strict=True) if given else ([], [])
    rows = pa.table(
        {n: pa.array(list(c), pa.string()) for n, c in zip(names, columns, strict=True)}
    )

    enough = in_frequent_classes(rows, ["a"], least, min_images=images).tolist()

    n_events = {label: len([1 for one, _ in events if one == label]) for label in labels}
    assert enough == [n_events[k] >= least and labels.count(k) >= images for k in labels]


@pytest.mark.real_data
def test_as_many_events_are_kept_and_removed_as_in_the_original(originals, goldens):
    uri = str(originals / "cats_vs_dogs_multi.csv")
    inventory = read_csv(uri, CsvColumns("id", ("image",), ("species", "standing", "count")))
    golden = goldens["multi_csv"]

    kept = has_label(inventory.table, ["count=1", "species=dog"], setting="filter.keep")
    ones = has_label(inventory.table, ["count=1"], setting="filter.remove")

    assert kept.sum() == golden["n_after_keep_count1_OR_dog"]
    assert ones.sum() == golden["n_count_eq_1"]  # the original also removes 10 … 14: substrings
