"""One label per head and image; no event with several observations is decided in silence."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctc_ray.errors import LabelError
from ctc_ray.inventory.events.assemble import SourceRows, assemble
from ctc_ray.inventory.sources.csv_source import CsvColumns, read_csv
from ctc_ray.inventory.sources.original_json import read_json
from ctc_ray.labels import LabelSpace
from ctc_ray.schemas import label_column, planned_schema
from ctc_ray.selection.labelling import agreed_labels, label_rows

Row = tuple[str, str | None, str | None]


def inventory_of(rows: list[Row]) -> pa.Table:
    """The inventory of rows (event, species, count) with one image each."""
    return assemble(
        SourceRows(
            event_ids=pa.array([row[0] for row in rows], pa.large_string()),
            image_rows=np.arange(len(rows)),
            image_uris=pa.array([f"{n}.jpg" for n in range(len(rows))], pa.large_string()),
            observation_rows=np.arange(len(rows)),
            labels={
                "species": pa.array([row[1] for row in rows], pa.large_string()),
                "count": pa.array([row[2] for row in rows], pa.large_string()),
            },
            meta={"site": pa.array(["S"] * len(rows), pa.large_string())},
        ),
        where="rows",
    ).table


TWO = [("e", "lion", "1"), ("e", "zebra", "2"), ("f", "lion", None)]


def test_labels_become_columns_and_missing_ones_stay_missing():
    table = inventory_of([("e", "lion", None), ("f", None, "2"), ("g", None, None)])

    labelled = label_rows(table, ["count", "species"], observations="error")

    schema = planned_schema(["count", "species"], ["site"])
    assert labelled.rows.drop_columns("content_hash").cast(schema).schema.equals(schema)
    assert labelled.rows["label_species"].to_pylist() == ["lion", None, None]
    assert labelled.rows["label_count"].to_pylist() == [None, "2", None]
    assert labelled.rows["image_id"].equals(table["image_id"])
    assert (labelled.n_events_dropped, labelled.n_images_dropped) == (0, 0)


def test_several_observations_stop_with_an_example_and_the_way_out():
    with pytest.raises(LabelError) as error:
        label_rows(inventory_of(TWO), ["species", "count"], observations="error")

    assert str(error.value) == (
        "1 capture event has several observations, e.g. 'e': species=lion, count=1 and "
        "species=zebra, count=2 (--observations drop|first|most-frequent)"
    )


def test_drop_leaves_the_whole_event_out_and_counts_it():
    labelled = label_rows(inventory_of(TWO), ["species"], observations="drop")

    assert labelled.rows["capture_event_id"].to_pylist() == ["f"]
    assert (labelled.n_events_dropped, labelled.n_images_dropped) == (1, 2)


def test_first_takes_the_first_observation_on_all_images():
    labelled = label_rows(inventory_of(TWO), ["species", "count"], observations="first")

    assert labelled.rows["label_species"].to_pylist() == ["lion", "lion", "lion"]
    assert labelled.rows["label_count"].to_pylist() == ["1", "1", None]
    assert (labelled.n_events_dropped, labelled.n_images_dropped) == (0, 0)


def test_observations_that_agree_in_the_chosen_heads_are_one():
    table = inventory_of([("e", "lion", "1"), ("e", "lion", "2")])

    labelled = label_rows(table, ["species"], observations="error")

    assert labelled.rows["label_species"].to_pylist() == ["lion", "lion"]


def test_observation_without_label_of_the_chosen_heads_does_not_count_beside_another():
    table = inventory_of([("e", None, "2"), ("e", "lion", "1"), ("f", None, "1"), ("f", None, "2")])

    labelled = label_rows(table, ["species"], observations="error")

    assert labelled.rows["label_species"].to_pylist() == ["lion", "lion", None, None]


def test_label_beside_a_missing_one_is_another_observation():
    table = inventory_of([("e", "lion", None), ("e", "lion", "2")])

    with pytest.raises(LabelError, match="species=lion, count=missing and species=lion, count=2"):
        label_rows(table, ["species", "count"], observations="error")


def test_unknown_head_is_an_error_that_names_the_heads():
    with pytest.raises(LabelError, match=r"^head 'kind' not found; heads are species, count$"):
        label_rows(inventory_of(TWO), ["kind"], observations="drop")


def test_no_rows_stay_no_rows():
    labelled = label_rows(inventory_of(TWO).slice(0, 0), ["species"], observations="error")

    schema = planned_schema(["species"], ["site"])
    assert labelled.rows.drop_columns("content_hash").cast(schema).schema.equals(schema)
    assert labelled.rows.num_rows == 0


def test_no_heads_leave_the_rows_as_they_are():
    assert label_rows(inventory_of(TWO), [], observations="error").rows.num_rows == 3


rows = st.lists(
    st.tuples(
        st.sampled_from(["e", "f", "g"]),
        st.sampled_from(["lion", "zebra", None]),
        st.sampled_from(["1", "2", None]),
    ),
    min_size=1,
    max_size=10,
)
some_heads = st.sampled_from([["species"], ["count"], ["species", "count"], ["count", "species"]])


@given(rows, some_heads)
def test_rows_are_kept_or_counted(rows, heads):
    table = inventory_of(rows)

    dropped = label_rows(table, heads, observations="drop")
    first = label_rows(table, heads, observations="first")

    assert first.rows.num_rows == table.num_rows
    assert dropped.rows.num_rows + dropped.n_images_dropped == table.num_rows
    events = set(table["capture_event_id"].to_pylist())
    kept = set(dropped.rows["capture_event_id"].to_pylist())
    assert len(kept) + dropped.n_events_dropped == len(events)
    for event in events:  # by hand, event by event
        given_labels = {
            tuple(dict(zip(("species", "count"), row[1:], strict=True))[head] for head in heads)
            for row in rows
            if row[0] == event
        }
        assert (event in kept) == (len(given_labels - {(None,) * len(heads)}) <= 1)


@given(rows, some_heads, st.integers(1, 5))
def test_result_does_not_depend_on_how_the_table_is_cut_into_chunks(rows, heads, size):
    table = inventory_of(rows)
    cut = pa.concat_tables([table.slice(start, size) for start in range(0, table.num_rows, size)])

    for policy in ("drop", "first"):
        whole = label_rows(table, heads, observations=policy)
        pieces = label_rows(cut, heads, observations=policy)
        assert pieces.rows.equals(whole.rows)
        assert pieces.n_events_dropped == whole.n_events_dropped
        assert pieces.n_images_dropped == whole.n_images_dropped


@pytest.mark.real_data
def test_classes_are_the_originals(originals, goldens):
    heads = ("species", "standing", "count")
    uri = str(originals / "cats_vs_dogs_multi.csv")
    table = read_csv(uri, CsvColumns("id", ("image",), heads)).table

    rows = label_rows(table, heads, observations="error").rows

    classes = LabelSpace.from_table(rows, {head: label_column(head) for head in heads})
    golden = goldens["multi_csv"]["label_map"]
    assert classes.to_json() == {h: sorted(golden[h], key=golden[h].get) for h in heads}


@pytest.mark.real_data
def test_as_many_records_have_several_observations_as_in_the_original(originals, goldens):
    inventory = read_json(str(originals / "json_data_file.json"))

    labelled = label_rows(inventory.table, inventory.heads, observations="drop")

    kept = set(labelled.rows["capture_event_id"].to_pylist())
    assert len(kept) == goldens["json_data_file"]["n_after_remove_multi"]
    assert labelled.n_events_dropped == 2


some_labels = st.sampled_from([None, "cat", "dog", "fox"])
observation_lists = st.lists(
    st.none() | st.lists(st.fixed_dictionaries({"a": some_labels, "b": some_labels}), max_size=4)
)


@given(observation_lists, st.integers(1, 5))
def test_a_label_is_agreed_on_if_all_observations_that_have_one_have_the_same(lists, n_per_chunk):
    kind = pa.list_(pa.struct([("a", pa.string()), ("b", pa.string())]))
    parts = [lists[i : i + n_per_chunk] for i in range(0, len(lists), n_per_chunk)]
    column = pa.chunked_array([pa.array(part, kind) for part in parts], kind)
    for head in ("a", "b"):
        distinct = [{o[head] for o in row or () if o[head] is not None} for row in lists]
        found, several = agreed_labels(column, head)
        assert several.tolist() == [len(labels) > 1 for labels in distinct]
        assert found.to_pylist() == [
            labels.pop() if len(labels) == 1 else None for labels in distinct
        ]
