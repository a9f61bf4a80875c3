"""Every image gets one split, decided only by its event or its location."""

import hashlib
import logging

import pyarrow as pa
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ctc_ray.columns.seeds import hash_to_unit
from ctc_ray.errors import ConfigError
from ctc_ray.inventory.sources.csv_source import CsvColumns, read_csv
from ctc_ray.splits.assign import (
    assign_splits,
    split_by_event,
    split_by_location_hash,
    split_by_meta,
)
from ctc_ray.splits.fractions import md5_fraction

HALVES = {"train": 0.5, "val": 0.5}


def rows_of(rows: list[tuple[str, str | None]]) -> pa.Table:
    """A table of rows (event, location)."""
    return pa.table(
        {
            "capture_event_id": pa.array([event for event, _ in rows], pa.string()),
            "location_id": pa.array([location for _, location in rows], pa.string()),
        }
    )


def test_fraction_of_an_event_is_24_bits_of_md5():
    assert md5_fraction(pa.array(["1", "é"])).tolist() == [
        0.7687112551159415,
        int(hashlib.md5("é".encode()).hexdigest()[:6], 16) / 0xFFFFFF,
    ]


def test_event_is_in_the_first_split_whose_cumulative_share_reaches_its_fraction():
    # "1" -> .7687, "2" -> .7817, "cat0.jpg" -> .4318
    ids = pa.array(["cat0.jpg", "1", "2", "1"])

    splits = split_by_event(ids, {"a": 0.4, "b": 0.37, "c": 0.23})

    assert splits.to_pylist() == ["b", "b", "c", "b"]
    assert split_by_event(ids, {"c": 0.77, "a": 0.23}).to_pylist() == ["c", "c", "a", "c"]


@pytest.mark.parametrize(
    "fractions", [{"a": 0.7, "b": 0.2, "c": 0.1}, {"a": 0.6, "b": 0.3, "c": 0.1}, {"a": 1.0}]
)
def test_rounding_leaves_no_event_without_split(fractions, monkeypatch):
    fractions_N = md5_fraction(pa.array([str(n) for n in range(10**5)]))
    last = str(fractions_N.argmax())
    assert fractions_N.max() > 0.9999

    assert split_by_event(pa.array([last]), fractions).to_pylist() == [list(fractions)[-1]]


def test_split_without_share_gets_nothing():
    splits = split_by_event(pa.array([str(n) for n in range(99)]), {"none": 0, "a": 1.0, "z": 0})

    assert set(splits.to_pylist()) == {"a"}


def test_hash_of_a_location_is_53_bits_of_blake2b():
    digest = hashlib.blake2b(b"salt\0S1", digest_size=8).digest()

    assert hash_to_unit("S1", "salt") == int(digest.hex(), 16) // 2**11 / 2**53


def test_rows_without_location_are_split_by_their_event():
    events = [(str(n), None) for n in range(20)]
    locations = [("e", str(n)) for n in range(20)]

    by_event = split_by_location_hash(rows_of(events), fractions=HALVES, salt="")
    by_location = split_by_location_hash(rows_of(locations), fractions=HALVES, salt="")

    assert by_event.equals(by_location)


@pytest.mark.parametrize("by", ["location", "location-hash"])
def test_images_without_location_are_a_warning_and_no_location_at_all_is_an_error(by, caplog):
    half = rows_of([("e", "A"), ("f", None)])
    with caplog.at_level(logging.WARNING):
        assign_splits(half, by=by, fractions=HALVES, salt="")
    assert f"split.by {by}: 1 of 2 images have no location" in caplog.text
    with pytest.raises(ConfigError, match="none of 1 images has a location"):
        assign_splits(rows_of([("f", None)]), by=by, fractions=HALVES, salt="")


def test_salt_changes_the_assignment():
    rows = rows_of([("e", str(n)) for n in range(50)])

    first = split_by_location_hash(rows, fractions=HALVES, salt="1")

    assert not first.equals(split_by_location_hash(rows, fractions=HALVES, salt="2"))
    assert first.equals(split_by_location_hash(rows, fractions=HALVES, salt="1"))


def test_shares_of_locations_are_about_the_fractions():
    rows = rows_of([("e", str(n)) for n in range(4000)])

    splits = split_by_location_hash(
        rows, fractions={"a": 0.7, "b": 0.2, "c": 0.1}, salt=""
    ).to_pylist()

    for name, share in (("a", 0.7), ("b", 0.2), ("c", 0.1)):
        assert splits.count(name) / 4000 == pytest.approx(share, abs=0.03)


@pytest.mark.parametrize(
    ("fractions", "message"),
    [
        ({"a": 0.5, "b": 0.4}, r"add up to 0\.9, not to 1"),
        ({}, "add up to 0, not to 1"),
        ({"a": 1.5, "b": -0.5}, "between 0 and 1"),
        ({"a/b": 1.0}, "'a/b' cannot be the name of a split"),
    ],
)
def test_invalid_fractions_are_an_error(fractions, message):
    with pytest.raises(ConfigError, match=message):
        split_by_event(pa.array(["e"]), fractions)
    with pytest.raises(ConfigError, match=message):
        split_by_location_hash(rows_of([("e", "S")]), fractions=fractions, salt="")


def test_value_of_the_field_is_the_split():
    rows = pa.table({"meta_fold": pa.chunked_array([["a", "b"], ["a"]])})

    assert split_by_meta(rows, "fold").to_pylist() == ["a", "b", "a"]


def test_field_that_is_missing_somewhere_is_an_error():
    rows = pa.table({"meta_fold": ["a", None, None], "meta_site": ["x", "y", "z"]})

    with pytest.raises(ConfigError, match="'fold' has no value on 2 of 3 images"):
        split_by_meta(rows, "fold")
    with pytest.raises(ConfigError, match="'fould' not found; fields are fold, site"):
        split_by_meta(rows, "fould")


@pytest.mark.parametrize("name", ["", "a/b", "..\\a", "a=b", "50%", "a#1", "a?", "a\nb", "x" * 201])
def test_value_that_cannot_be_a_folder_is_an_error(name):
    with pytest.raises(ConfigError, match="cannot be the name of a split"):
        split_by_meta(pa.table({"meta_fold": ["ok", name]}), "fold")


def test_kind_of_split_is_chosen_by_name():
    rows = rows_of([(str(n), f"S{n}") for n in range(30)]).append_column(
        "meta_fold", pa.array(["f"] * 30)
    )

    def assigned(by: str) -> pa.Array:
        return assign_splits(rows, by=by, fractions=HALVES, salt="s")

    assert assigned("event").equals(split_by_event(rows["capture_event_id"], HALVES, "s"))
    assert assigned("location-hash").equals(
        split_by_location_hash(rows, fractions=HALVES, salt="s")
    )
    assert assigned("meta:fold").to_pylist() == ["f"] * 30
    for by in ("site", "meta:", "meta"):
        with pytest.raises(ConfigError, match="expected event, location, location-hash, time"):
            assigned(by)


ids = st.text(max_size=4)
event_locations = st.lists(st.tuples(ids, st.one_of(st.none(), ids)), max_size=20)
shares = st.lists(st.floats(0, 1), min_size=1, max_size=5).filter(lambda x: sum(x) > 0.01)


def normalised(numbers: list[float]) -> dict[str, float]:
    return {f"s{n}": number / sum(numbers) for n, number in enumerate(numbers)}


@given(event_locations, shares, st.text(max_size=3))
def test_every_row_gets_a_split_with_a_share(rows, shares, salt):
    fractions = normalised(shares)
    table = rows_of([*rows, ("z", "Z")])

    for by in ("event", "location-hash"):
        splits = assign_splits(table, by=by, fractions=fractions, salt=salt)
        assert len(splits) == len(rows) + 1
        assert splits.null_count == 0
        assert all(fractions[name] > 0 for name in splits.to_pylist())


@given(event_locations)
def test_no_location_is_in_two_splits(rows):
    splits = split_by_location_hash(rows_of(rows), fractions=HALVES, salt="").to_pylist()

    seen: dict[str, str] = {}
    for (_, location), name in zip(rows, splits, strict=True):
        if location is not None:
            assert seen.setdefault(location, name) == name


@given(event_locations, event_locations, st.sampled_from(["event", "location-hash"]))
def test_adding_images_moves_no_image_to_another_split(rows, more, by):
    assume(any(location is not None for _, location in rows))

    before = assign_splits(rows_of(rows), by=by, fractions=HALVES, salt="x")
    after = assign_splits(rows_of([*more, *rows]), by=by, fractions=HALVES, salt="x")

    assert after.slice(len(more)).equals(before)


@pytest.mark.real_data
def test_fractions_are_the_originals(goldens):
    ids = goldens["id_to_zero_one"]
    assert md5_fraction(pa.array(list(ids))).tolist() == list(ids.values())


@pytest.mark.real_data
def test_splits_are_the_originals_event_by_event(originals, goldens):
    uri = str(originals / "cats_vs_dogs_multi.csv")
    table = read_csv(uri, CsvColumns("id", ("image",), ("species",))).table
    golden = goldens["multi_csv"]["split_70_15_15"]

    splits = assign_splits(
        table, by="event", fractions={"train": 0.7, "val": 0.15, "test": 0.15}, salt=""
    )

    found: dict[str, list[str]] = {}
    for event_id, name in zip(
        table["capture_event_id"].to_pylist(), splits.to_pylist(), strict=True
    ):
        found.setdefault(name, []).append(event_id)
    assert found == {name: sorted(event_ids) for name, event_ids in golden.items()}


@pytest.mark.real_data
def test_metadata_split_is_the_originals(originals, goldens):
    uri = str(originals / "panthera_csv_new.csv")
    columns = CsvColumns("capture_id", ("dir",), ("species_panthera",), ("split_name",))
    table = read_csv(uri, columns).table

    splits = assign_splits(table, by="meta:split_name", fractions={}, salt="").to_pylist()

    ((name, event_ids),) = goldens["panthera_split_by_meta"].items()
    assert splits == [name, name]
    assert table["capture_event_id"].to_pylist() == event_ids


def test_a_salt_changes_the_split_by_event_and_no_salt_is_the_originals_split():
    ids = pa.array([str(n) for n in range(200)])
    salted = split_by_event(ids, HALVES, "a").to_pylist()
    assert salted != split_by_event(ids, HALVES, "b").to_pylist()
    assert salted == split_by_event(pa.array([f"a\0{n}" for n in range(200)]), HALVES).to_pylist()
