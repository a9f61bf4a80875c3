from pathlib import Path

import pyarrow as pa
import pytest

from ctc_ray.config.prediction import PredictConfig
from ctc_ray.errors import ConfigError
from ctc_ray.files import parquet, storage
from ctc_ray.schemas import Failure, meta_fields
from ctc_ray.stages.predict import sources as source


def config(**fields: object) -> PredictConfig:
    return PredictConfig.model_validate({"bundle_uri": "b", "output_uri": "o", **fields})


def test_images_of_a_dataset_come_from_its_shards(dataset: Path) -> None:
    where = config(dataset_uri=str(dataset))
    rows = source.read_source(where).rows
    shards = parquet.read_folder(str(dataset), ["image_id", "jpeg", "failure"])
    want = dict(zip(shards["image_id"].to_pylist(), shards["jpeg"].to_pylist(), strict=True))
    got = list(source.read_images_of(where, rows))
    assert len(got) == rows.num_rows == 48
    for image_id, raw in zip(rows["image_id"].to_pylist(), got, strict=True):
        assert raw == (want[image_id] or Failure.MISSING)


def test_plan_columns_stay_out_of_the_predictions(dataset: Path) -> None:
    rows = source.read_source(config(dataset_uri=str(dataset))).rows
    assert not {"_shard", "failure"} & set(source.image_columns(rows))


def test_fingerprint_of_a_folder_changes_with_its_files(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"1")
    where = config(images_uri=str(tmp_path))
    before = source.fingerprints(where, source.read_source(where).rows)
    (tmp_path / "b.jpg").write_bytes(b"1")
    assert source.fingerprints(where, source.read_source(where).rows) != before


def test_all_other_columns_of_a_csv_are_carried_along(photos: Path) -> None:
    columns = ("image1", "image2", "image3")
    where = config(csv_uri=str(photos / "events.csv"), event_column="event", image_columns=columns)
    assert meta_fields(source.read_source(where).rows.schema) == ["species", "count", "site"]


def test_source_without_any_image_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError):
        source.read_source(config(images_uri=str(tmp_path / "empty")))


def test_fingerprint_of_a_csv_is_that_of_its_bytes(photos: Path) -> None:
    where = config(
        csv_uri=str(photos / "events.csv"), event_column="event", image_columns=("image1",)
    )
    empty = pa.table({})
    assert source.fingerprints(where, empty) == {
        where.csv_uri: storage.digest(str(photos / "events.csv"))
    }
