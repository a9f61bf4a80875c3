"""Labels are counted per observation of an event, the missing ones too."""

import itertools

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctc_ray.errors import LabelError
from ctc_ray.inventory.assembly import InventoryImages, SourceRows, assemble
from ctc_ray.inventory.checks import (
    LabelCount,
    check_clocks,
    check_images,
    check_labels,
    count_labels,
    head_names,
    labels_of,
)
from ctc_ray.inventory.findings import Findings


def inventory_of(rows: list[tuple[str, str | None]]) -> pa.Table:
    """Of rows (event, species) with one image each."""
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


def test_labels_that_differ_in_case_or_spaces_only_are_told_with_their_events():
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
def test_each_class_has_as_many_events_as_name_it(rows):
    found = check_labels(observed(rows), ["species"], rare_class_events=99)

    expected = {
        f"species: {label}": len({e for e, given in rows if given == label})
        for label in {label for _, label in rows if label is not None}
    }
    told = {row["row"]: int(row["detail"].split()[0]) for row in found.table().to_pylist()}
    assert told == expected


def observed(rows: list[tuple[str, str | None]]) -> pa.Array:
    """The list of observations of each event."""
    table = inventory_of(rows)
    events = table.filter(pc.equal(table["image_index"], 0))
    return events["observations"].combine_chunks()


def clocks(table: pa.Table) -> Findings:
    """What `check_clocks` finds; a camera is a pair of location and deployment."""
    pairs = list(
        zip(*(table[n].to_pylist() for n in ("location_id", "deployment_id")), strict=True)
    )
    known = sorted({pair for pair in pairs if pair != (None, None)}, key=repr)
    cameras = [known.index(pair) if pair in known else -1 for pair in pairs]
    uris, times = (table[name].combine_chunks() for name in ("image_uri", "captured_at"))
    return check_clocks(uris, times, np.array(cameras, np.int32))


def dated(rows: list[tuple[str, str | None]], **places: list[str | None]) -> pa.Table:
    """Of rows (file name, time)."""
    empty = [None] * len(rows)
    times = np.array([time or "NaT" for _, time in rows], "datetime64[us]")
    return pa.table(
        {
            "image_uri": pa.array([name for name, _ in rows]),
            "location_id": pa.array(places.get("location", empty), pa.string()),
            "deployment_id": pa.array(places.get("deployment", empty), pa.string()),
            "captured_at": pa.array(times),
        }
    )


def test_time_that_jumps_back_by_more_than_a_day_is_told_once():
    rows = [
        ("img9.jpg", "2021-05-10T12:00:00"),
        ("img10.jpg", "2021-05-11T12:00:00"),
        ("img11.jpg", "2021-05-10T12:00:00"),  # exactly a day
        ("img12.jpg", None),
        ("img13.jpg", "2021-05-09T11:59:59"),
        ("img14.jpg", "2021-05-09T12:00:00"),
    ]

    found = clocks(dated(rows, deployment=["A"] * 6))

    assert found.counts == {"clock_resets": 1}
    assert found.examples("clock_resets") == [
        "img13.jpg (2021-05-09 11:59:59 after 2021-05-10 12:00:00)"
    ]


def test_clocks_of_different_cameras_are_not_compared():
    rows = [("a1.jpg", "2021-05-10"), ("a2.jpg", "2021-01-01")]

    assert clocks(dated(rows)).counts == {}
    assert clocks(dated(rows, deployment=["A", "B"])).counts == {}
    assert clocks(dated(rows, deployment=["A", "A"], location=["K", "L"])).counts == {}
    assert clocks(dated(rows, location=["K", "K"])).counts == {"clock_resets": 1}


def test_web_addresses_have_no_order():
    rows = [("https://a/1.jpg", "2021-05-10"), ("https://a/2.jpg", "2021-01-01")]

    assert clocks(dated(rows, deployment=["A", "A"])).counts == {}


def test_where_clocks_begin_is_told_whatever_the_order():
    days = ["1970-01-01", "1999-12-31", "2000-01-01T23:00", "2000-01-02", "2021-05-10", None]
    rows = [(f"{n}.jpg", day) for n, day in enumerate(days)]

    found = clocks(dated(rows))

    assert found.table()["row"].to_pylist() == ["0.jpg", "1.jpg", "2.jpg"]
    assert clocks(dated([("a", None)])).counts == {}


clock_rows = st.lists(
    st.tuples(st.integers(0, 40), st.sampled_from("AB"), st.integers(0, 9)),
    unique_by=lambda row: row[0],
    min_size=1,
)


@given(clock_rows, st.randoms())
def test_jumps_are_found_in_any_order_of_the_rows(rows, random):
    def jumps(rows):
        table = dated(
            [(f"x{n}.jpg", f"2021-05-{day + 1:02}") for n, _, day in rows],
            deployment=[camera for _, camera, _ in rows],
        )
        return sorted(clocks(table).table()["row"].to_pylist())

    expected = []
    for camera in "AB":
        mine = sorted((n, day) for n, name, day in rows if name == camera)
        pairs = itertools.pairwise(mine)
        expected += [f"x{n}.jpg" for (_, before), (n, day) in pairs if day < before - 1]
    shuffled = random.sample(rows, len(rows))
    assert jumps(shuffled) == sorted(expected)


def images_of(named: list[tuple[str, str]]) -> InventoryImages:
    """Of rows (event, image)."""
    rows = SourceRows(
        event_ids=pa.array([event for event, _ in named], pa.large_string()),
        image_rows=np.arange(len(named)),
        image_uris=pa.array([uri for _, uri in named], pa.large_string()),
        observation_rows=np.arange(len(named)),
    )
    return assemble(rows, where="rows").images


def test_an_image_of_several_events_is_told_with_both_of_them():
    named = [("g", "a"), ("f", "b"), ("e", "a"), ("e", "a"), ("f", "a"), ("g", "c")]

    for order in itertools.permutations(named):
        assert check_images(images_of(list(order))).table().to_pylist() == [
            {"kind": "images_of_several_events", "row": "a", "detail": "e, f"},
            {"kind": "images_of_several_events", "row": "a", "detail": "e, g"},
        ]
    assert check_images(images_of(named[:2])).counts == {}
