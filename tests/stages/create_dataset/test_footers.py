import pyarrow as pa

from ctc_ray.runs.failures import Footer
from ctc_ray.runs.manifest import Manifest
from ctc_ray.runs.records import RowGroupRecord, SplitRecord
from ctc_ray.stages.create_dataset import footers as report

GROUPS = [
    pa.table(
        {
            "capture_event_id": ["a", "a", "b"],
            "failure": pa.array([None, "missing", "missing"]),
            "label_s": ["x", "x", "y"],
        }
    ),
    pa.table(
        {
            "capture_event_id": ["c"],
            "failure": pa.nulls(1, pa.string()),
            "label_s": pa.nulls(1, pa.string()),
        }
    ),
]


def footer(name: str) -> Footer:
    return Footer(name, 4, 2, report.footer_counts(GROUPS, ["s"]))


def test_a_shard_counts_images_events_and_usable_ones_of_each_row_group() -> None:
    shard = report.shard_record(footer("split=train/part-00000.parquet"))
    assert shard.row_groups == [
        RowGroupRecord(n_images=3, n_events=2, n_usable_events=1, n_usable_images=1),
        RowGroupRecord(n_images=1, n_events=1, n_usable_events=1, n_usable_images=1),
    ]
    assert (shard.split, shard.n_images, shard.n_failed) == ("train", 4, 2)


def test_only_usable_images_count_for_a_class_and_every_class_is_named() -> None:
    manifest = Manifest(kind="dataset", config={}, classes={"s": ["x", "y"]})
    labels = report.label_counts(manifest, [footer("split=a/1"), footer("split=a/2")])
    assert labels == {"a": {"s": {"x": 2, "y": 0}}}
    assert report.label_tables(labels) == {
        "usable images per class of s": [{"class": "x", "a": 2}, {"class": "y", "a": 0}]
    }


def test_splits_add_up_their_shards() -> None:
    shards = [report.shard_record(footer(f"split={s}/p.parquet")) for s in ("a", "b", "a")]
    assert report.split_counts(shards) == [
        SplitRecord(split="a", images=8, events=6, failed=4),
        SplitRecord(split="b", images=4, events=3, failed=2),
    ]
