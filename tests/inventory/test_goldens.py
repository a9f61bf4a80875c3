"""Inventories, labels and splits equal the original's, except for the deviations listed here.

`goldens.json` was written by running the original on its own files and on unusual files. No
deviation loses anything that the original kept:

| golden | the original | here |
|---|---|---|
| edge: bad_header | logs an error, empty inventory, exit 0 | SchemaError that names the columns |
| edge: bom | the mark is part of the first name: as bad_header | the mark is left out |
| edge: blank_line | reading stops there in silence | blank lines are left out |
| edge: short_row_mid | reading stops there in silence | SchemaError with the line |
| edge: dup_rows | the observation is there twice | once |
| edge: empty_id | rows without id are one event | SchemaError with the line |
| edge: first_row_no_image | the event is lost | it has the images of its later rows |
| edge: multi_rows_diff_image | images of later rows are lost | the event has all of them |
| edge: non_ascii_id_split | UnicodeEncodeError | UTF-8 is hashed |
| edge: panthera | ValueError, a source that is gone | no such command |
| single_csv: ele_zebra_diff_image | the second image is lost | the event has both |
| multi_csv: …_substring, remaining_counts_ref | removing count=1 removes 10 … 14: 73 left | 114 |
| multi_csv: writer_order_max20_train | shards of 20 events, shuffled | ids in their order |
| json_data_file: tfr_multi_species_standard | the last observation wins | an error, or a choice |
| dir | names with two dots are left out: 118 | 119 |
| cat_dog_dinv_test.json, dummy.json | empty inventory | SchemaError: all were rejected |
| json_data_file | rejected records are logged at debug level | they are findings, per reason |

A label -1 is null here; the comparison writes it as the original does.
"""

import pyarrow as pa
import pytest

from ctc_ray import cli
from ctc_ray.errors import SchemaError
from ctc_ray.inventory.checks.labels import count_labels
from ctc_ray.inventory.sources.class_folders import read_dir
from ctc_ray.inventory.sources.csv_source import CsvColumns, read_csv
from ctc_ray.inventory.sources.original_json import read_json
from ctc_ray.selection.filters import all_labelled, has_label
from ctc_ray.selection.labelling import label_rows
from ctc_ray.splits.assign import split_by_event

pytestmark = pytest.mark.real_data

HEADS = ("species", "standing", "count")
COLUMNS = CsvColumns("id", ("image",), ("species",))
HEADER = "id,image,species\n"

SAME = {
    "na": HEADER + "1,a.jpg,NA\n",
    "case_ws": HEADER + "1,a.jpg, Cat \n2,b.jpg,cat\n",
}
ANOTHER = {  # golden -> csv, and our records of it
    "bom": (
        "\ufeff" + HEADER + "1,a.jpg,cat\n",
        {"1": {"images": ["a.jpg"], "labels": [{"species": "cat"}]}},
    ),
    "blank_line": (
        HEADER + "1,a.jpg,cat\n\n2,b.jpg,dog\n",
        {
            "1": {"images": ["a.jpg"], "labels": [{"species": "cat"}]},
            "2": {"images": ["b.jpg"], "labels": [{"species": "dog"}]},
        },
    ),
    "dup_rows": (
        HEADER + "1,a.jpg,cat\n1,a.jpg,cat\n",
        {"1": {"images": ["a.jpg"], "labels": [{"species": "cat"}]}},
    ),
    "first_row_no_image": (
        HEADER + "1,,cat\n1,a.jpg,cat\n",
        {"1": {"images": ["a.jpg"], "labels": [{"species": "cat"}]}},
    ),
    "multi_rows_diff_image": (
        HEADER + "1,a.jpg,cat\n1,b.jpg,cat\n",
        {"1": {"images": ["a.jpg", "b.jpg"], "labels": [{"species": "cat"}]}},
    ),
}
ERRORS = {  # golden -> csv, and the error
    "bad_header": ("ID,image,species\n1,a.jpg,cat\n", "column 'id' not found; columns are ID, "),
    "empty_id": (HEADER + ",a.jpg,cat\n,b.jpg,dog\n", r"line 2 has no event id"),
    "short_row_mid": (HEADER + "1,a.jpg,cat\n2,b.jpg\n3,c.jpg,dog\n", "line 3 has 2 cells"),
}


def test_each_unusual_csv_gives_the_original_records_or_a_deviation(goldens):
    others = {"non_ascii_id_split", "panthera"}
    assert set(goldens["edge"]) == {*SAME, *ANOTHER, *ERRORS, *others}
    assert all(f"| edge: {name} |" in (__doc__ or "") for name in {*ANOTHER, *ERRORS, *others})


@pytest.mark.parametrize("name", SAME)
def test_csv_is_read_as_the_original_read_it(write, goldens, as_records, name):
    assert as_records(read_csv(write(SAME[name]), COLUMNS)) == goldens["edge"][name]


@pytest.mark.parametrize("name", ANOTHER)
def test_csv_that_the_original_read_in_part_is_read_whole(write, goldens, as_records, name):
    content, expected = ANOTHER[name]

    found = as_records(read_csv(write(content), COLUMNS))

    assert found == expected
    golden = goldens["edge"][name]
    assert found != golden
    assert all(set(golden[event]["images"]) <= set(found[event]["images"]) for event in golden)


@pytest.mark.parametrize("name", ERRORS)
def test_csv_whose_rows_the_original_lost_in_silence_is_an_error(write, name):
    content, message = ERRORS[name]
    with pytest.raises(SchemaError, match=message):
        read_csv(write(content), COLUMNS)


def test_id_beyond_ascii_gets_a_split():
    assert split_by_event(pa.chunked_array([["é"]]), {"train": 1.0}).to_pylist() == ["train"]


def test_source_that_the_original_had_removed_is_not_a_command(capsys):
    with pytest.raises(SystemExit) as left:
        cli.main(["create-inventory", "panthera", "--source-uri", "x", "--output-uri", "y"])
    assert left.value.code == 2
    assert "panthera" in capsys.readouterr().err


def test_single_images_are_read_as_the_original_read_them(originals, goldens, as_records):
    uri = str(originals / "dataset_single_image_multi_species.csv")

    inventory = read_csv(uri, CsvColumns("capture_id", ("image",), HEADS))

    found = as_records(inventory)
    assert found["ele_zebra_diff_image"]["images"].pop() == "/path/capture_ele_zebra2.jpg"  # new
    assert found == goldens["single_csv"]
    assert inventory.findings.counts == {
        "rows_merged": 2,
        "duplicate_images": 1,
        "events_without_image": 1,
        "events_with_several_observations": 2,
    }


def test_several_images_are_read_as_the_original_read_them(originals, goldens, as_records):
    uri = str(originals / "dataset_multi_image_multi_species.csv")

    inventory = read_csv(uri, CsvColumns("capture_id", ("image1", "image2", "image3"), HEADS))

    assert as_records(inventory) == goldens["multi_image_csv"]


def test_counts_and_classes_are_the_originals(originals, goldens):
    uri = str(originals / "cats_vs_dogs_multi.csv")
    golden = goldens["multi_csv"]

    inventory = read_csv(uri, CsvColumns("id", ("image",), HEADS))

    statistics = count_labels(inventory.images.observations, HEADS)
    found = {
        head: {"-1" if c.label is None else c.label: c.count for c in counts}
        for head, counts in statistics.items()
    }
    assert inventory.table.num_rows == golden["n"]
    assert found == golden["stats"]
    assert {head: sorted(set(found[head]) - {"-1"}) for head in HEADS} == {
        head: list(classes) for head, classes in golden["label_map"].items()
    }


def test_events_with_a_missing_label_are_the_originals(originals, goldens):
    uri = str(originals / "cats_vs_dogs_multi.csv")
    rows = read_csv(uri, CsvColumns("id", ("image",), HEADS)).table

    labelled = label_rows(rows, HEADS, observations="error").rows

    n_left = all_labelled(labelled, HEADS).sum()
    assert n_left == goldens["multi_csv"]["n_after_discard_missing"]


def test_removing_a_count_keeps_counts_that_begin_with_it(originals, goldens):
    uri = str(originals / "cats_vs_dogs_multi.csv")
    golden = goldens["multi_csv"]
    rows = read_csv(uri, CsvColumns("id", ("image",), HEADS)).table

    left = rows.filter(pa.array(~has_label(rows, ["count=1"], setting="filter.remove")))

    assert len(left) == golden["n"] - golden["n_count_eq_1"]
    assert len(left) > golden["n_after_remove_count_1_reference_substring"]
    found = {c.label: c.count for c in count_labels(left["observations"], HEADS)["count"]}
    lost = {"10", "11", "12", "13", "14", None}  # of the original; null was in its stats as "-1"
    assert {k: n for k, n in found.items() if k not in lost} == golden["remaining_counts_ref"]
    assert {k or "-1": n for k, n in found.items()} == {
        k: n for k, n in golden["stats"]["count"].items() if k != "1"
    }


def test_every_golden_is_compared_or_a_deviation(goldens):
    """A new golden without a comparison fails here."""
    assert set(goldens) == {
        *("edge", "single_csv", "multi_image_csv", "multi_csv", "dir", "json_data_file"),
        *("cat_dog_dinv_test.json", "dummy.json"),
        *("id_to_zero_one", "panthera_split_by_meta"),  # in tests/splits/test_assign.py
        "predictions_output",  # in tests/predictions/writers/test_original.py
    }


def test_splits_of_a_csv_are_the_originals(originals, goldens):
    ids = read_csv(
        str(originals / "cats_vs_dogs_multi.csv"), CsvColumns("id", ("image",), HEADS)
    ).table["capture_event_id"]

    splits = split_by_event(ids, {"train": 0.7, "val": 0.15, "test": 0.15}).to_pylist()

    found: dict[str, list[str]] = {}
    for event, split in zip(ids.to_pylist(), splits, strict=True):
        found.setdefault(split, []).append(event)
    golden = goldens["multi_csv"]["split_70_15_15"]
    assert found == {split: sorted(events) for split, events in golden.items()}


@pytest.mark.parametrize("shares", [[0.7, 0.15, 0.15], [0.9, 0.05, 0.05]])
def test_class_folders_and_their_splits_are_the_originals(shared_data, goldens, shares):
    root = shared_data / "labelled" / "cats_dogs" / "test" / "test_images"
    golden = goldens["dir"]

    inventory = read_dir(str(root))

    ids = inventory.table["capture_event_id"].to_pylist()
    ids.remove("Dogs#dog.3206.jpg")  # the original left out names with two dots
    assert len(ids) == golden["n"]
    for event_id, record in golden["example"].items():
        assert event_id in ids
        assert str(root / record["images"][0].removeprefix("./test/test_images/")) in (
            inventory.table["image_uri"].to_pylist()
        )
    fractions = dict(zip(["train", "val", "test"], shares, strict=True))
    splits = split_by_event(pa.chunked_array([ids]), fractions).to_pylist()
    counts = {name: splits.count(name) for name in ("train", "val", "test")}
    assert counts == golden[f"split_{shares}"]


def test_records_of_a_json_are_kept_as_the_original_kept_them(originals, goldens):
    inventory = read_json(str(originals / "json_data_file.json"))

    golden = goldens["json_data_file"]
    kept = sorted(set(inventory.table["capture_event_id"].to_pylist()))
    assert kept == golden["kept"]
    assert inventory.heads == tuple(golden["label_map"])
    assert inventory.findings.counts == {
        "rejected_records": 4,
        "rejected_images": 2,
        "rejected_labels": 1,
        "rejected_meta_data": 1,
        "events_with_several_observations": 2,
        "windows_paths": 31,
    }


def test_classes_of_a_json_are_the_originals(originals, goldens):
    inventory = read_json(str(originals / "json_data_file.json"))

    found = count_labels(inventory.images.observations, inventory.heads)
    assert {
        head: sorted(count.label for count in counts if count.label is not None)
        for head, counts in found.items()
    } == {head: list(classes) for head, classes in goldens["json_data_file"]["label_map"].items()}


@pytest.mark.parametrize(("name", "n"), [("cat_dog_dinv_test.json", 119), ("dummy.json", 118)])
def test_obsolete_format_is_an_error_not_an_empty_inventory(originals, goldens, name, n):
    assert goldens[name] == 0
    with pytest.raises(
        SchemaError,
        match=rf"{name}: all {n} records were rejected; the first, '\S+': labels must be a list",
    ):
        read_json(str(originals / name))
