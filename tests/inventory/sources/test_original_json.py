"""The original's inventory JSON is read by its rules, and rejected records are counted."""

import json

import pytest

from ctc_ray.errors import ConfigError, SchemaError
from ctc_ray.inventory.sources.original_json import read_json
from ctc_ray.schemas import inventory_schema

GOOD = {"labels": [{"species": "lion"}], "images": ["a.jpg"]}


def test_heads_and_metadata_are_the_union_over_the_records(write):
    records = {
        "e": {"labels": [{"species": "lion", "count": "1"}], "images": ["a.jpg", "b.jpg"]},
        "f": {
            "labels": [{"young": "0"}],
            "images": ["c.jpg"],
            "meta_data": {"site": "S1", "note": ""},
        },
    }

    inventory = read_json(write(json.dumps(records)))

    assert inventory.heads == ("count", "species", "young")
    assert inventory.meta == ("note", "site")
    assert inventory.table.schema.equals(inventory_schema(inventory.heads, inventory.meta))
    assert inventory.table["observations"].to_pylist() == [
        [{"count": "1", "species": "lion", "young": None}],
        [{"count": "1", "species": "lion", "young": None}],
        [{"count": None, "species": None, "young": "0"}],
    ]
    assert inventory.table["meta_site"].to_pylist() == [None, None, "S1"]
    assert inventory.table["meta_note"].to_pylist() == [None, None, None]
    assert inventory.findings.counts == {}


def test_minus_one_is_missing_and_several_observations_stay(write):
    records = {
        "e": {"labels": [{"species": "lion"}, {"species": "-1"}, {"species": "zebra"}],
              "images": ["", "a.jpg"]},
        "f": {"labels": [{"species": "-1"}], "images": ["b.jpg"]},
        "g": {"labels": [{}], "images": ["c.jpg"]},
    }  # fmt: skip

    inventory = read_json(write(json.dumps(records)))

    assert inventory.table["image_uri"].to_pylist() == ["a.jpg", "b.jpg", "c.jpg"]
    assert inventory.table["observations"].to_pylist() == [
        [{"species": "lion"}, {"species": "zebra"}],
        [{"species": None}],
        [{"species": None}],
    ]


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (["a.jpg"], "rejected_not_an_object"),
        ({"images": ["a"]}, "rejected_labels"),
        ({**GOOD, "labels": []}, "rejected_labels"),
        ({**GOOD, "labels": {"species": "lion"}}, "rejected_labels"),
        ({**GOOD, "labels": [{"species": ["lion"]}]}, "rejected_labels"),
        ({**GOOD, "labels": [{"count": 12}]}, "rejected_labels"),
        ({**GOOD, "labels": [{"species": ""}]}, "rejected_labels"),
        ({**GOOD, "labels": [{"species": "\ud800"}]}, "rejected_labels"),
        ({**GOOD, "labels": ["lion"]}, "rejected_labels"),
        ({"labels": GOOD["labels"]}, "rejected_images"),
        ({**GOOD, "images": []}, "rejected_images"),
        ({**GOOD, "images": [""]}, "rejected_images"),
        ({**GOOD, "images": "a.jpg"}, "rejected_images"),
        ({**GOOD, "images": ["a.jpg", None]}, "rejected_images"),
        ({**GOOD, "meta_data": "S1"}, "rejected_meta_data"),
        ({**GOOD, "meta_data": {"site": 1}}, "rejected_meta_data"),
        ({**GOOD, "meta_data": None}, "rejected_meta_data"),
    ],
)
def test_invalid_record_is_left_out_and_counted_by_its_reason(write, record, reason):
    inventory = read_json(write(json.dumps({"bad": record, "good": GOOD})))

    assert inventory.table["capture_event_id"].to_pylist() == ["good"]
    assert inventory.findings.counts == {"rejected_records": 1, reason: 1}


def test_id_that_is_not_valid_text_is_rejected(write):
    inventory = read_json(write(json.dumps({"\udce9": GOOD, "é": GOOD})))

    assert inventory.table["capture_event_id"].to_pylist() == ["é"]
    assert inventory.findings.counts == {"rejected_records": 1, "rejected_id": 1}


def test_last_of_repeated_keys_is_kept_and_each_replaced_one_is_a_finding(write):
    first = json.dumps({"labels": [{"species": "lion"}], "images": ["a.jpg"]})
    last = json.dumps({"labels": [{"species": "zebra"}], "images": ["b.jpg"]})

    inventory = read_json(write(f'{{"é": {first}, "f": {first}, "é": {first}, "é": {last}}}'))

    assert inventory.table["image_uri"].to_pylist() == ["a.jpg", "b.jpg"]
    assert inventory.findings.counts == {"duplicate_keys": 2}
    assert inventory.findings.table()["row"].to_pylist() == ["é", "é"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"e":\n {"labels" 1}}', r"not JSON: Expecting ':' delimiter: line 2 column 12"),
        ("", r"not JSON: "),
        ("[" * 100_000, r"not JSON: "),
        ("1" * 5000, r"not JSON: "),
        (b'{"\xe9": 1}', r"not UTF-8 "),
        ("[]", r"expected an object of id -> record, found list$"),
        ("{}", r"there is no record$"),
    ],
)
def test_file_that_is_not_an_inventory_is_an_error(write, content, message):
    with pytest.raises(SchemaError, match=r"source\.csv: " + message):
        read_json(write(content))


def test_path_that_does_not_exist_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere\.json: no such file$"):
        read_json(str(tmp_path / "nowhere.json"))
    with pytest.raises(ConfigError, match=r"a folder, not a file$"):
        read_json(str(tmp_path))
