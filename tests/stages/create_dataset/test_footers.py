import numpy as np
import pyarrow as pa

from ctc_ray.runs.failures import Footer
from ctc_ray.runs.manifest import Manifest
from ctc_ray.runs.records import PixelRecord, RowGroupRecord, SplitRecord
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


def pixels_of(name: str, moments: list[list[int] | None]) -> Footer:
    values = pa.chunked_array([pa.array(moments, pa.list_(pa.int64(), 6))])
    return Footer(name, len(moments), 0, report.footer_pixels(values))


def brightness(mean: int, square: int) -> list[int]:
    return [65536 * value for value in (mean, 0, 255, square, 0, 255**2)]


def manifest_of(*footers: Footer) -> Manifest:
    return Manifest(kind="dataset", config={}, pixels=report.pixel_sums(footers))


def test_pixels_are_those_of_the_usable_images_of_each_split_however_they_are_divided() -> None:
    dark, light = brightness(51, 51**2), brightness(153, 153**2)
    other = pixels_of("split=val/p.parquet", [brightness(51, 51**2)] * 2)
    one = manifest_of(pixels_of("split=train/a", [dark, None, light]), other)
    parts = [pixels_of("split=train/b", [light]), pixels_of("split=train/a", [None, dark])]
    assert one.pixels == manifest_of(*parts, other, pixels_of("split=train/c", [None])).pixels
    known = PixelRecord(n_images=2, mean=(0.4, 0.0, 1.0), std=(0.2, 1.0, 1.0))
    assert one.pixels_of(["train"]) == known
    assert one.pixels_of(["val"]) == PixelRecord(n_images=2, mean=(0.2, 0.0, 1.0), std=(1, 1, 1))
    together = one.pixels_of(["train", "val"])
    values = np.array([51, 153, 51, 51]) / 255
    assert together is not None
    assert (together.n_images, together.mean[0]) == (4, round(values.mean(), 4))
    assert together.std[0] == round(values.std(), 4)
    assert Manifest.model_validate_json(one.model_dump_json()) == one


def test_there_are_no_pixels_where_a_shard_is_older_or_no_image_is_usable() -> None:
    there = pixels_of("split=train/a", [[0] * 6])
    older = manifest_of(
        there, Footer("split=train/b", 1, 0, {}), pixels_of("split=val/a", [[0] * 6])
    )
    assert set(older.pixels) == {"val"}
    assert older.pixels_of(["train"]) is older.pixels_of(["train", "val"]) is None
    assert manifest_of(pixels_of("split=train/a", [None])).pixels_of(["train"]) is None
    before = {"n_images": 1, "mean": [0.1, 0.2, 0.3], "std": [1, 1, 1]}
    for value in (None, before):  # of earlier versions
        assert (
            Manifest.model_validate({"kind": "dataset", "config": {}, "pixels": value}).pixels == {}
        )
