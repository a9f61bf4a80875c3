import itertools
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from builders import photograph, taken_at

from ctc_ray.config.inventory import ImagesInventoryConfig
from ctc_ray.config.prediction import PredictConfig
from ctc_ray.errors import ConfigError
from ctc_ray.files import parquet, storage
from ctc_ray.labels import LabelSpace
from ctc_ray.schemas import Failure, meta_fields
from ctc_ray.stages.create_inventory import stage as create_inventory
from ctc_ray.stages.predict import sources as source

LABELS = LabelSpace({"species": ("red",)})


def config(**fields: object) -> PredictConfig:
    return PredictConfig.model_validate({"bundle_uri": "b", "output_uri": "o", **fields})


def test_images_of_a_dataset_come_from_its_shards(dataset: Path) -> None:
    where = config(dataset_uri=str(dataset))
    rows = source.read_source(where, LABELS).whole().rows
    shards = parquet.read_folder(str(dataset), ["image_id", "jpeg", "failure"])
    want = dict(zip(shards["image_id"].to_pylist(), shards["jpeg"].to_pylist(), strict=True))
    got = list(itertools.chain.from_iterable(source.read_images_of(where, rows)))
    assert len(got) == rows.num_rows == 48
    for image_id, file in zip(rows["image_id"].to_pylist(), got, strict=True):
        assert file.raw == (want[image_id] or Failure.MISSING)


def test_plan_columns_stay_out_of_the_predictions(dataset: Path) -> None:
    rows = source.read_source(config(dataset_uri=str(dataset)), LABELS).whole().rows
    assert not {"_shard", "failure"} & set(source.image_columns(rows))


def test_fingerprint_of_a_folder_changes_with_its_files(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"1")
    where = config(images_uri=str(tmp_path))
    before = source.fingerprints(where, source.read_source(where, LABELS))
    (tmp_path / "b.jpg").write_bytes(b"1")
    assert source.fingerprints(where, source.read_source(where, LABELS)) != before


def test_all_other_columns_of_a_csv_are_carried_along(photos: Path) -> None:
    columns = ("image1", "image2", "image3")
    where = config(csv_uri=str(photos / "events.csv"), event_column="event", image_columns=columns)
    assert meta_fields(source.read_source(where, LABELS).schema) == [
        "species",
        "count",
        "site",
    ]


def test_source_without_any_image_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError):
        source.read_source(config(images_uri=str(tmp_path / "empty")), LABELS)


def test_fingerprint_of_a_csv_is_that_of_its_bytes(photos: Path) -> None:
    where = config(
        csv_uri=str(photos / "events.csv"), event_column="event", image_columns=("image1",)
    )
    empty = pa.table({})
    assert source.fingerprints(where, empty) == {
        where.csv_uri: storage.digest(str(photos / "events.csv"))
    }


def test_a_folder_is_read_as_create_inventory_reads_it(tmp_path: Path) -> None:
    """The card of a hybrid camera as a disk station keeps it, and one camera linked twice."""
    root = tmp_path / "root"
    for name in ("A", "A/@eaDir", ".thumbnails"):
        (root / name).mkdir(parents=True, exist_ok=True)
        (root / name / "1.jpg").write_bytes(photograph("red", seed=1))
    (root / "A" / "2.jpg").write_bytes(b"")
    (root / "A" / "1.mp4").write_bytes(b"\0\0\0\x18ftypisom")
    (root / "A" / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0")
    (root / "A" / "notes.txt").write_text("notes")
    (root / "B").symlink_to(root / "A")
    fields = {"layout": "{location}", "event_gap_s": 5}
    inventory_config = ImagesInventoryConfig(
        source_uri=str(root), output_uri=str(tmp_path / "inventory"), **fields
    )
    manifest = create_inventory.run(inventory_config)
    want = parquet.read_folder(str(tmp_path / "inventory"))

    found = source.read_source(config(images_uri=str(root), **fields), LABELS)

    rows = found.whole().rows
    assert rows.num_rows == found.n_images == 4  # two files by two names
    assert rows.equals(want.select(rows.column_names))
    assert found.findings.counts == {
        kind: n for kind, n in manifest.findings.items() if kind in found.findings.counts
    }
    assert found.findings.counts == {
        "not_an_image": 9, "folders_linked_twice": 1, "images_without_time": 4,
    }  # fmt: skip


def test_bursts_of_a_folder_are_events_of_their_camera(tmp_path: Path) -> None:
    for name in ("A/1.jpg", "A/2.jpg", "B/1.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(taken_at(photograph("red", seed=1), "2021:04:11 20:43:09"))
    rows = source.read_source(config(images_uri=str(tmp_path)), LABELS).whole().rows
    assert rows["n_images"].to_pylist().count(2) == 2
    assert set(rows["deployment_id"].to_pylist()) == {"A", "B"}


@pytest.mark.real_data
def test_the_card_of_a_hybrid_camera_is_its_six_photographs(
    shared_data: Path, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    shutil.copytree(shared_data.parent / "cases" / "06-folder-with-videos-and-loops" / "root", root)
    (root / "camA" / "parent").symlink_to(root)
    (root / "gone").symlink_to(tmp_path / "nowhere")
    rows = source.read_source(config(images_uri=str(root)), LABELS).whole().rows
    names = [Path(uri).name for uri in rows["image_uri"].to_pylist()]
    assert sorted(names) == sorted([*(f"IMG_000{k}.JPG" for k in range(6)), "zero.JPG"])


def test_an_inventory_is_planned_a_row_group_at_a_time(inventory: Path, tmp_path: Path) -> None:
    """The parts have the rows of the whole, and events go on from part to part."""
    rows = parquet.read_folder(str(inventory))
    cut = tmp_path / "inventory"
    shutil.copytree(inventory, cut)
    for uri in parquet.list_tables(str(cut)):
        Path(uri).unlink()
    parquet.write_table(str(cut / "part-00000.parquet"), rows.slice(0, 31), rows_per_group=5)
    parquet.write_table(str(cut / "part-00001.parquet"), rows.slice(31), rows_per_group=7)
    found = source.read_source(config(inventory_uri=str(cut)), LABELS)
    whole = source.read_source(config(inventory_uri=str(inventory)), LABELS).whole()
    parts = list(found.read_parts())
    assert len(parts) > 9
    assert found.n_images == rows.num_rows == whole.rows.num_rows
    assert found.whole() == whole
    assert pa.concat_tables([part.rows for part in parts]).schema == found.schema
    numbers = np.array([0, 4, 30, 31, rows.num_rows - 1])
    assert found.uris_at(numbers) == rows["image_uri"].take(pa.array(numbers)).to_pylist()
