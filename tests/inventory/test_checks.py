"""Labels are counted per observation of an event, the missing ones too."""

import numpy as np
import pyarrow as pa
import pytest

from ctc_ray.errors import LabelError
from ctc_ray.inventory.assembly import SourceRows, assemble
from ctc_ray.inventory.checks import LabelCount, head_names, label_statistics, labels_of
from ctc_ray.inventory.csv_source import CsvColumns, read_csv


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
    table = inventory_of([("e", "lion"), ("e", "lion"), ("e", "lion"), ("f", "zebra")])

    assert label_statistics(table, ["species"]) == {
        "species": [LabelCount("lion", 1, 0.5), LabelCount("zebra", 1, 0.5)]
    }


def test_each_observation_of_an_event_counts():
    table = inventory_of([("e", "lion"), ("e", "zebra"), ("f", "zebra"), ("g", "zebra")])

    assert label_statistics(table, ["species"]) == {
        "species": [LabelCount("zebra", 3, 0.75), LabelCount("lion", 1, 0.25)]
    }


def test_missing_labels_are_counted_and_come_last_among_equals():
    rows = [("1", None), ("2", "b"), ("3", "a"), ("4", None), ("5", "a"), ("6", "b"), ("7", "c")]

    (counts,) = label_statistics(inventory_of(rows), ["species"]).values()

    assert [(count.label, count.count) for count in counts] == [
        ("a", 2),
        ("b", 2),
        (None, 2),
        ("c", 1),
    ]
    assert sum(count.share for count in counts) == pytest.approx(1)


def test_unknown_head_is_an_error():
    with pytest.raises(LabelError, match=r"^head 'spezies' not found; heads are species$"):
        label_statistics(inventory_of([("e", "lion")]), ["spezies"])
    with pytest.raises(LabelError, match="heads are none"):
        labels_of(pa.array(["x"]), "species")


def test_heads_of_a_column_are_its_fields():
    assert head_names(inventory_of([("e", "lion")]).schema.field("observations").type) == [
        "species"
    ]
    assert head_names(pa.list_(pa.string())) == []


@pytest.mark.real_data
def test_counts_are_the_originals(originals, goldens):
    heads = ("species", "standing", "count")
    uri = str(originals / "cats_vs_dogs_multi.csv")
    inventory = read_csv(uri, CsvColumns("id", ("image",), heads))

    found = {
        head: {"-1" if c.label is None else c.label: c.count for c in counts}
        for head, counts in label_statistics(inventory.table, heads).items()
    }

    assert inventory.table.num_rows == goldens["multi_csv"]["n"]
    assert found == goldens["multi_csv"]["stats"]
