"""Rows of a source become images and events; no image is lost or repeated."""

import dataclasses

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctc_ray.errors import SchemaError
from ctc_ray.inventory.events.assemble import Inventory, SourceRows, assemble
from ctc_ray.schemas import inventory_schema

text = pa.large_string()


def source(rows: list[tuple[str, list[str], str | None]]) -> SourceRows:
    """The columns of rows (event, images, species)."""
    return SourceRows(
        event_ids=pa.array([event for event, _, _ in rows], text),
        image_rows=np.array([i for i, row in enumerate(rows) for _ in row[1]], np.int64),
        image_uris=pa.array([uri for row in rows for uri in row[1]], text),
        observation_rows=np.arange(len(rows)),
        labels={"species": pa.array([species for _, _, species in rows], text)},
    )


def made(rows: list[tuple[str, list[str], str | None]]) -> Inventory:
    return assemble(source(rows), where="source")


def columns(inventory: Inventory, *names: str) -> list[tuple[object, ...]]:
    return [tuple(row[name] for name in names) for row in inventory.table.to_pylist()]


def test_table_has_exactly_the_schema_of_an_inventory():
    inventory = made([("e", ["a.jpg"], "lion")])

    assert inventory.table.schema.equals(inventory_schema(["species"]))
    assert inventory.heads == ("species",)
    assert inventory.findings.counts == {}


def test_images_of_an_event_are_neighbours_in_the_order_of_the_source_and_events_are_sorted():
    inventory = made(
        [("e2", ["z.jpg"], "lion"), ("e10", ["c.jpg"], "lion"), ("e2", ["b.jpg", "a.jpg"], "lion")]
    )

    assert columns(inventory, "capture_event_id", "image_uri", "image_index", "n_images") == [
        ("e10", "c.jpg", 0, 1),
        ("e2", "z.jpg", 0, 3),
        ("e2", "b.jpg", 1, 3),
        ("e2", "a.jpg", 2, 3),
    ]
    assert inventory.findings.counts == {"rows_merged": 1}


def test_event_ids_are_sorted_like_strings_in_python():
    ids = ["b", "B", "é", "10", "2", "\U0001f981", "\uffff", "a b"]

    inventory = made([(event, [f"{event}.jpg"], None) for event in ids])

    assert inventory.table["capture_event_id"].to_pylist() == sorted(ids)


def test_image_that_is_twice_in_an_event_is_kept_once_and_counted():
    inventory = made([("e", ["a.jpg", "b.jpg"], "lion"), ("e", ["a.jpg", "c.jpg"], "lion")])

    assert inventory.table["image_uri"].to_pylist() == ["a.jpg", "b.jpg", "c.jpg"]
    assert inventory.findings.counts["duplicate_images"] == 1


def test_image_of_two_events_stays_in_both():
    inventory = made([("e", ["a.jpg"], "lion"), ("f", ["a.jpg"], "lion")])

    assert inventory.table.num_rows == 2
    assert len(set(inventory.table["image_id"].to_pylist())) == 2


def test_each_image_of_an_event_has_all_its_distinct_observations():
    inventory = made(
        [("e", ["a.jpg"], "lion"), ("e", ["b.jpg"], "zebra"), ("e", ["b.jpg"], "lion")]
    )

    both = [{"species": "lion"}, {"species": "zebra"}]
    assert inventory.table["observations"].to_pylist() == [both, both]
    assert inventory.findings.counts["events_with_several_observations"] == 1


def test_observation_without_any_label_counts_only_where_there_is_no_other():
    inventory = made(
        [("e", ["a.jpg"], None), ("e", [], "lion"), ("f", ["b.jpg"], None), ("f", ["c.jpg"], None)]
    )

    assert columns(inventory, "capture_event_id", "observations") == [
        ("e", [{"species": "lion"}]),
        ("f", [{"species": None}]),
        ("f", [{"species": None}]),
    ]


def test_observations_are_distinguished_by_all_heads_together():
    rows = SourceRows(
        event_ids=pa.array(["e"] * 4, text),
        image_rows=np.zeros(1, np.int64),
        image_uris=pa.array(["a.jpg"], text),
        observation_rows=np.arange(4),
        labels={
            "species": pa.array(["lion", "lion", "zebra", "lion"], text),
            "count": pa.array(["1", None, "1", "1"], text),
        },
    )

    inventory = assemble(rows, where="source")

    assert inventory.table["observations"][0].as_py() == [
        {"species": "lion", "count": "1"},
        {"species": "lion", "count": None},
        {"species": "zebra", "count": "1"},
    ]


def test_observations_of_very_many_heads_are_distinguished():
    n_heads, n_rows = 12, 300  # 301 ** 12 is far above 2 ** 63
    heads = {
        f"h{head}": pa.array([f"{(row * (head + 1)) % 300}" for row in range(n_rows)], text)
        for head in range(n_heads)
    }
    rows = SourceRows(
        event_ids=pa.array(["e"] * (2 * n_rows), text),
        image_rows=np.zeros(1, np.int64),
        image_uris=pa.array(["a.jpg"], text),
        observation_rows=np.arange(2 * n_rows),
        labels={head: pa.concat_arrays([values, values]) for head, values in heads.items()},
    )

    inventory = assemble(rows, where="source")

    assert len(inventory.table["observations"][0]) == n_rows


def test_event_without_image_is_left_out_and_counted():
    inventory = made([("e", [], "lion"), ("e", [], "zebra"), ("f", ["a.jpg"], "lion")])

    assert inventory.table["capture_event_id"].to_pylist() == ["f"]
    assert inventory.findings.counts == {"rows_merged": 1, "events_without_image": 1}
    assert inventory.empty_events["capture_event_id"].to_pylist() == ["e"]


def test_events_of_several_rows_are_listed_and_their_further_rows_counted():
    rows = [("f", ["a.jpg"], None), ("e", ["b.jpg"], None), ("f", [], None), ("f", [], None)]
    found = made([*rows, ("g", ["c.jpg"], None), ("e", [], None)]).findings
    assert found.counts == {"rows_merged": 3}
    assert found.examples("rows_merged") == ["e (2 rows)", "f (3 rows)"]


def test_no_image_at_all_is_an_error():
    with pytest.raises(SchemaError, match=r"^source: no image in 2 rows$"):
        made([("e", [], "lion"), ("f", [], None)])


def test_event_has_the_first_value_that_is_not_missing_and_conflicts_are_counted_per_event():
    rows = SourceRows(
        event_ids=pa.array(["e", "e", "e", "f"], text),
        image_rows=np.arange(4),
        image_uris=pa.array(["a", "b", "c", "d"], text),
        observation_rows=np.arange(4),
        location_ids=pa.array([None, "K", "L", "M"], text),
        meta={
            "note": pa.array(["x", "x", None, None], text),
            "who": pa.array(["1", "2", "3", "4"], text),
        },
    )

    inventory = assemble(rows, where="source")

    assert columns(inventory, "location_id", "deployment_id", "meta_note", "meta_who") == [
        *[("K", None, "x", "1")] * 3,
        ("M", None, None, "4"),
    ]
    assert inventory.findings.counts["conflicting_metadata"] == 1
    assert inventory.findings.examples("conflicting_metadata") == [
        "e (location_id: K, L; meta_who: 1, 2, 3)"
    ]
    assert inventory.findings.examples("events_across_locations") == ["e (K, L)"]
    assert inventory.meta == ("note", "who")


def test_capture_time_is_the_images_own():
    times = np.array(["2021-04-11T20:43:09", "2021-04-11T20:43:10"], "datetime64[us]")
    rows = SourceRows(
        event_ids=pa.array(["e", "e"], text),
        image_rows=np.arange(2),
        image_uris=pa.array(["a", "b"], text),
        observation_rows=np.arange(2),
        captured_at=pa.array(times),
    )

    inventory = assemble(rows, where="source")

    assert inventory.table["captured_at"].to_numpy().tolist() == times.tolist()


def test_a_camera_is_a_deployment_at_its_location():
    rows = dataclasses.replace(
        source([(event, [f"{event}.jpg"], None) for event in "abcdef"] + [("a", ["a.jpg"], None)]),
        location_ids=pa.array(["K", "K", "L", None, None, "K", None]),
        deployment_ids=pa.array(["1", "2", "1", None, "1", "1", None]),
    )
    cameras = assemble(rows, where="source").images.cameras.tolist()
    assert cameras[0] == cameras[5] >= 0
    assert len({cameras[i] for i in (0, 1, 2, 4)} - {-1}) == 4
    assert cameras[3] == -1
    assert cameras[6] == -1  # a duplicate of the first image


def test_inventory_without_heads_can_be_written_and_read(tmp_path):
    rows = SourceRows(
        event_ids=pa.array(["e"], text),
        image_rows=np.zeros(1, np.int64),
        image_uris=pa.array(["a.jpg"], text),
        observation_rows=np.arange(1),
    )

    inventory = assemble(rows, where="source")
    pq.write_table(inventory.table, tmp_path / "part.parquet")

    assert pq.read_table(tmp_path / "part.parquet").schema.equals(inventory_schema([]))
    assert inventory.table["observations"].null_count == 1


def test_text_may_be_dictionary_encoded_and_rows_may_be_built_in_parts():
    plain = source([("e", ["a.jpg", "b.jpg"], "lion"), ("f", ["a.jpg"], None)])
    encoded = dataclasses.replace(
        plain,
        event_ids=plain.event_ids.dictionary_encode(),
        labels={"species": plain.labels["species"].dictionary_encode()},
        location_ids=pa.array(["L", None]).dictionary_encode(),
    )
    one = assemble(dataclasses.replace(plain, location_ids=pa.array(["L", None])), where="source")
    other = assemble(encoded, where="source")
    assert other.table.equals(one.table)
    parts = [other.images.rows(i, i + 2) for i in (0, 2)]
    assert pa.concat_tables(parts).equals(one.table)
    assert (len(other.images), other.images.n_events) == (3, 2)


events = st.sampled_from(["e1", "e2", "é", ""])
uris = st.lists(st.sampled_from(["a.jpg", "b.jpg", "c.jpg", "d.jpg"]), max_size=3)
species = st.sampled_from(["lion", "zebra", None])
some_rows = st.lists(st.tuples(events, uris, species), min_size=1, max_size=12)
rows_with_image = some_rows.filter(lambda rows: any(images for _, images, _ in rows))


@given(rows_with_image)
def test_every_image_of_every_event_has_exactly_one_row(rows):
    inventory = made(rows)

    found = columns(inventory, "capture_event_id", "image_uri")
    assert sorted(found) == sorted({(event, uri) for event, images, _ in rows for uri in images})
    named = sum(len(images) for _, images, _ in rows)
    assert len(found) + inventory.findings.counts.get("duplicate_images", 0) == named
    assert len(set(inventory.table["image_id"].to_pylist())) == len(found)


@given(rows_with_image)
def test_index_counts_the_images_of_each_event(rows):
    inventory = made(rows)

    for event in set(inventory.table["capture_event_id"].to_pylist()):
        own = [row for row in inventory.table.to_pylist() if row["capture_event_id"] == event]
        assert [row["image_index"] for row in own] == list(range(len(own)))
        assert {row["n_images"] for row in own} == {len(own)}


@given(rows_with_image)
def test_every_label_that_was_given_is_among_the_events_observations(rows):
    inventory = made(rows)

    for row in inventory.table.to_pylist():
        given_labels = {s for event, _, s in rows if event == row["capture_event_id"]}
        expected = (given_labels - {None}) or {None}
        observed = [observation["species"] for observation in row["observations"]]
        assert len(observed) == len(set(observed))
        assert set(observed) == expected


@given(rows_with_image, st.randoms(use_true_random=False))
def test_order_of_rows_changes_neither_images_nor_events_nor_observations(rows, random):
    shuffled = list(rows)
    random.shuffle(shuffled)

    def content(inventory: Inventory) -> list[tuple[object, ...]]:
        return sorted(
            (
                row["image_id"],
                row["n_images"],
                sorted(o["species"] or "" for o in row["observations"]),
            )
            for row in inventory.table.to_pylist()
        )

    assert content(made(shuffled)) == content(made(rows))
