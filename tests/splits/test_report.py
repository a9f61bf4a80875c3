import pyarrow as pa

from ctc_ray.splits.report import (
    classes_not_in_every_split,
    files_with_several_labels,
    leakage,
    split_shares,
)

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


def test_a_file_of_several_events_leaks_by_its_uri_and_its_labels_are_compared():
    """Six files in three events each, as case 20: every file is in every split."""
    n = 18
    labels = ["deer", "fox", "empty"]
    rows = pa.table(
        {
            "location_id": [f"s{k // 6}" for k in range(n)],
            "capture_event_id": [f"e{k:02d}" for k in range(n)],
            "_image": pa.array([k % 6 for k in range(n)], pa.uint64()),
            "label_species": [labels[(k + k // 6) % 3] for k in range(n)],
            "label_count": ["1"] * (n - 1) + [None],
        }
    )
    splits = pa.array([("train", "val", "test")[k // 6] for k in range(n)])
    found = {row["same"]: row for row in leakage(rows, splits)}
    assert found["image"] == {
        "same": "image", "all": 6, "in_several_splits": 6, "images_of_these": 18,
    }  # fmt: skip
    assert found["location"]["in_several_splits"] == 0
    assert files_with_several_labels(rows, ["species", "count"]) == [
        {"same": "image", "head": "species", "files": 6, "images_of_these": 18}
    ]
    once = rows.slice(0, 6)
    assert [row["same"] for row in leakage(once, splits[:6])] == ["location", "capture event"]
    assert files_with_several_labels(once, ["species"]) == []
