import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctc_ray.config.base import build
from ctc_ray.config.dataset import CreateDatasetConfig
from ctc_ray.errors import ConfigError, LabelError
from ctc_ray.inventory.events.assemble import SourceRows, assemble
from ctc_ray.runs.manifest import Manifest
from ctc_ray.stages.create_dataset.plan import plan_dataset

MANIFEST = Manifest(kind="inventory", config={}, classes={"s": ["a", "b"], "n": ["1"]})


def table_of(rows):
    """Of (event, s, n, location); one image per row."""

    def text(place):
        return pa.array([row[place] for row in rows], pa.large_string())

    return assemble(
        SourceRows(
            event_ids=text(0),
            image_rows=np.arange(len(rows)),
            image_uris=pa.array([f"{k}.jpg" for k in range(len(rows))], pa.large_string()),
            observation_rows=np.arange(len(rows)),
            labels={"s": text(1), "n": text(2)},
            location_ids=text(3),
        ),
        where="rows",
    ).table


def config(**values):
    base = {"inventory_uri": "i", "output_uri": "o", "heads": ["s"], "observations": "first"}
    return build(CreateDatasetConfig, {**base, **values}, where="test")


ROWS = [("e", "a", "1", "A"), ("f", "b", "1", "B"), ("g", "b", None, "C"), ("h", None, "2", "D")]


@pytest.mark.parametrize(
    ("values", "events"),
    [
        ({"filter": {"keep": ["s=a", "n=2"]}}, "eh"),
        ({"filter": {"keep": ["s=b"], "remove": ["n=1"]}}, "g"),
        ({"filter": {"drop_missing_labels": True}}, "efg"),
        ({"filter": {"min_events_per_class": 2}}, "fgh"),
        ({"filter": {"min_images_per_class": 2}}, "fgh"),
        ({"heads": ["s", "n"], "filter": {"drop_missing_labels": True}}, "ef"),
    ],
)
def test_filters_keep_these_events(values, events):
    plan = plan_dataset(config(**values), table_of(ROWS), MANIFEST)
    assert "".join(plan.rows["capture_event_id"].to_pylist()) == events


def test_mapping_comes_before_observations_and_its_bytes_are_an_input(tmp_path):
    (tmp_path / "m.yaml").write_text("s: {a: b, q: b}")
    table = table_of([("e", "a", "1", "A"), ("e", "b", "1", "A")])
    uri = str(tmp_path / "m.yaml")
    plan = plan_dataset(config(mapping_uri=uri, observations="error"), table, MANIFEST)
    assert plan.classes == {"s": ["b"]}
    assert plan.summary["mapped_classes_that_do_not_occur"] == 1
    assert list(plan.inputs) == [uri]
    with pytest.raises(LabelError, match="several observations"):
        plan_dataset(config(observations="error"), table, MANIFEST)


def test_most_frequent_observation_counts_repeated_rows_and_ties_go_to_the_first():
    table = table_of(
        [("e", "b", "1", "A"), ("e", "a", "1", "A"), ("e", "a", "1", "A"),
         ("f", "b", "1", "A"), ("f", "a", "1", "A"), ("g", None, "1", "A")]
    )  # fmt: skip
    rows = plan_dataset(config(observations="most-frequent"), table, MANIFEST).rows
    labels = dict(zip(*(rows[c].to_pylist() for c in ("capture_event_id", "label_s")), strict=True))
    assert labels == {"e": "a", "f": "b", "g": None}


def test_nothing_left_is_an_error():
    filters = {"keep": ["s=zebra"], "allow_unmatched": True}
    with pytest.raises(ConfigError, match="no image is left"):
        plan_dataset(config(filter=filters), table_of(ROWS), MANIFEST)


@pytest.mark.parametrize("kind", ["keep", "remove"])
def test_a_filter_that_matches_nothing_is_an_error_unless_allowed(kind):
    filters = {kind: ["s=a", "s=bb"]}
    message = rf"filter\.{kind}: s=bb does not occur; similar classes: b \(--filter\.allow"
    with pytest.raises(ConfigError, match=message):
        plan_dataset(config(filter=filters), table_of(ROWS), MANIFEST)
    plan = plan_dataset(
        config(filter={**filters, "allow_unmatched": True}), table_of(ROWS), MANIFEST
    )
    assert plan.rows.num_rows == (1 if kind == "keep" else 3)
    added = pa.chunked_array([pa.array([], pa.string())])  # an append may lack a class
    assert plan_dataset(config(filter=filters), table_of(ROWS), MANIFEST, already=added)


def test_an_inventory_without_heads_needs_none_and_one_with_heads_does():
    bare = table_of(ROWS).drop_columns("observations")
    bare = bare.append_column("observations", pa.nulls(4, pa.list_(pa.string())))
    plan = plan_dataset(config(heads=[]), bare, MANIFEST.model_copy(update={"classes": {}}))
    assert (plan.rows.num_rows, plan.classes) == (4, {})
    with pytest.raises(LabelError, match=r"heads is required .*; the inventory's heads are s, n"):
        plan_dataset(config(heads=[]), table_of(ROWS), MANIFEST)


rows = st.lists(
    st.tuples(st.sampled_from("efghij"), st.sampled_from(["a", "b", "c", None]),
              st.sampled_from(["1", "2", None]), st.sampled_from("ABC")),
    min_size=1, max_size=25,
)  # fmt: skip


@given(rows, st.sampled_from(["first", "drop", "most-frequent"]), st.integers(0, 2), st.booleans())
def test_rows_are_kept_or_counted(rows, observations, least, drop):
    table = table_of([*rows, ("z", "a", "1", "A"), ("zz", "a", "1", "B"), ("zy", "a", "1", "A")])
    everything = {"keep": ["s=a", "s=b"], "remove": ["s=c"], "min_events_per_class": least}
    everything["allow_unmatched"] = True
    plan = plan_dataset(
        config(
            observations=observations,
            filter={**everything, "drop_missing_labels": drop},
            split={"fractions": {"train": 1}},
            balance={"head": "s", "max_events_per_class": 2},
        ),
        table,
        MANIFEST,
    )
    steps = plan.summary["left_out"]
    assert plan.rows.num_rows + sum(s["images"] for s in steps) == table.num_rows
    n_events = len(set(plan.rows["capture_event_id"].to_pylist()))
    n_before = pc.count_distinct(table["capture_event_id"]).as_py()
    assert n_events + sum(s["events"] for s in steps) == n_before
    assert len(plan.splits) == plan.rows.num_rows
