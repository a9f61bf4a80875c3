"""Labels are counted per observation of an event, missing labels included."""

import itertools

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctc_ray.errors import LabelError
from ctc_ray.inventory.checks.labels import LabelCount, check_images, check_labels, count_labels
from ctc_ray.inventory.events.assemble import AssembledImages, SourceRows, assemble
from ctc_ray.observations import head_names, labels_of


def inventory_of(rows: list[tuple[str, str | None]]) -> pa.Table:
    """The inventory of rows (event, species) with one image each."""
    return assemble(
        SourceRows(
            event_ids=pa.array([event for event, _ in rows], pa.large_string()),
            image_rows=np.arange(len(rows)),
            image_uris=pa.array([f"{n}.jpg" for n in range(len(rows))], pa.large_string()),
            observation_rows=np.arange(len(rows)),
            labels={"species": pa.array([species for _, species in rows], pa.large_string())},
        ),
        where="rows",
    ).table


def test_event_is_counted_once_however_many_images_it_has():
    observations = observed([("e", "lion"), ("e", "lion"), ("e", "lion"), ("f", "zebra")])

    assert count_labels(observations, ["species"]) == {
        "species": [LabelCount("lion", 1, 0.5), LabelCount("zebra", 1, 0.5)]
    }


def test_each_observation_of_an_event_counts():
    observations = observed([("e", "lion"), ("e", "zebra"), ("f", "zebra"), ("g", "zebra")])

    assert count_labels(observations, ["species"]) == {
        "species": [LabelCount("zebra", 3, 0.75), LabelCount("lion", 1, 0.25)]
    }


def test_missing_labels_are_counted_and_come_last_among_equals():
    rows = [("1", None), ("2", "b"), ("3", "a"), ("4", None), ("5", "a"), ("6", "b"), ("7", "c")]

    (counts,) = count_labels(observed(rows), ["species"]).values()

    assert [(count.label, count.count) for count in counts] == [
        ("a", 2),
        ("b", 2),
        (None, 2),
        ("c", 1),
    ]
    assert sum(count.share for count in counts) == pytest.approx(1)


def test_unknown_head_is_an_error():
    with pytest.raises(LabelError, match=r"^head 'spezies' not found; heads are species$"):
        count_labels(observed([("e", "lion")]), ["spezies"])
    with pytest.raises(LabelError, match="heads are none"):
        labels_of(pa.array(["x"]), "species")


def test_heads_of_a_column_are_its_fields():
    assert head_names(inventory_of([("e", "lion")]).schema.field("observations").type) == [
        "species"
    ]
    assert head_names(pa.list_(pa.string())) == []


def test_labels_that_differ_only_in_case_or_spaces_are_listed_with_their_events():
    rows = [("1", "Zebra"), ("2", "zebra "), ("3", "Zebra"), ("4", "lion"), ("5", "li on")]

    found = check_labels(observed(rows), ["species"], rare_class_events=0)

    assert found.counts == {"labels_differ_in_case_or_spaces": 2}
    assert found.examples("labels_differ_in_case_or_spaces") == [
        "species ('Zebra' 2 events, 'zebra ' 1 events)",
        "species ('li on' 1 events, 'lion' 1 events)",
    ]


def test_classes_are_rare_by_their_events_rarest_first():
    rows = [*[("1", "lion")] * 5, ("1", "zebra"), ("2", "zebra"), ("3", "zebra"), ("4", "ant")]

    found = check_labels(observed([*rows, ("5", None)]), ["species"], rare_class_events=3)

    assert found.examples("rare_classes") == [
        "species: ant (1 event)",
        "species: lion (1 event)",
    ]
    assert check_labels(observed(rows), ["species"], rare_class_events=1).counts == {}


def test_no_label_is_no_finding():
    assert check_labels(observed([("1", None)]), ["species"], rare_class_events=9).counts == {}


labelled = st.lists(
    st.tuples(st.sampled_from("efgh"), st.sampled_from(["a", "b", "c", None])), min_size=1
)


@given(labelled)
def test_each_class_counts_the_events_with_its_label(rows):
    found = check_labels(observed(rows), ["species"], rare_class_events=99)

    expected = {
        f"species: {label}": len({e for e, given in rows if given == label})
        for label in {label for _, label in rows if label is not None}
    }
    found_events = {row["row"]: int(row["detail"].split()[0]) for row in found.table().to_pylist()}
    assert found_events == expected


def observed(rows: list[tuple[str, str | None]]) -> pa.Array:
    """The list of observations of each event."""
    table = inventory_of(rows)
    events = table.filter(pc.equal(table["image_index"], 0))
    return events["observations"].combine_chunks()


def images_of(pairs: list[tuple[str, str]]) -> AssembledImages:
    """The assembled images of rows (event, image)."""
    rows = SourceRows(
        event_ids=pa.array([event for event, _ in pairs], pa.large_string()),
        image_rows=np.arange(len(pairs)),
        image_uris=pa.array([uri for _, uri in pairs], pa.large_string()),
        observation_rows=np.arange(len(pairs)),
    )
    return assemble(rows, where="rows").images


def test_an_image_of_several_events_is_listed_with_both_events():
    pairs = [("g", "a"), ("f", "b"), ("e", "a"), ("e", "a"), ("f", "a"), ("g", "c")]

    for order in itertools.permutations(pairs):
        assert check_images(images_of(list(order))).table().to_pylist() == [
            {"kind": "images_of_several_events", "row": "a", "detail": "e, f"},
            {"kind": "images_of_several_events", "row": "a", "detail": "e, g"},
        ]
    assert check_images(images_of(pairs[:2])).counts == {}


def test_an_image_whose_events_have_different_observations_is_told_with_both():
    pairs = [("e", "a", "fox"), ("f", "a", "deer"), ("g", "b", "fox"), ("h", "b", "fox"),
             ("i", "c", "fox"), ("j", "c", None)]  # fmt: skip
    rows = SourceRows(
        event_ids=pa.array([event for event, _, _ in pairs], pa.large_string()),
        image_rows=np.arange(len(pairs)),
        image_uris=pa.array([uri for _, uri, _ in pairs], pa.large_string()),
        observation_rows=np.arange(len(pairs)),
        labels={"species": pa.array([label for _, _, label in pairs], pa.large_string())},
    )
    found = check_images(assemble(rows, where="rows").images)
    assert found.examples("images_with_conflicting_labels") == ["a (species=fox / species=deer)"]
    assert found.counts["images_of_several_events"] == 3
