import pyarrow as pa

from ctc_ray.splits.report import classes_not_in_every_split, leakage, split_shares

ROWS = pa.table(
    {
        "capture_event_id": ["e", "e", "f", "g"],
        "location_id": ["S", "S", "S", None],
        "content_hash": ["1", "2", "3", "1"],
        "label_s": ["a", "a", "a", None],
    }
)
SPLITS = pa.array(["train", "train", "val", "val"])


def test_values_in_several_splits_are_counted():
    found = {row["same"]: tuple(row.values())[1:] for row in leakage(ROWS, SPLITS)}
    assert found == {"location": (1, 1, 3), "capture event": (3, 0, 0), "content": (3, 1, 2)}
    assert len(leakage(ROWS.drop_columns("content_hash"), SPLITS)) == 2


def test_class_missing_from_a_split_is_listed():
    assert classes_not_in_every_split(ROWS, SPLITS, heads=["s"], names=["train", "val"]) == []
    found = classes_not_in_every_split(ROWS, SPLITS, heads=["s"], names=["train", "val", "test"])
    assert found == [{"head": "s", "class": "a", "locations": 1, "not_in": "test"}]


def test_shares_of_all_splits_are_reported():
    shares = split_shares(SPLITS, {"train": 0.8, "test": 0.2})
    assert [(s["split"], s["share"]) for s in shares] == [("train", 0.5), ("test", 0), ("val", 0.5)]
