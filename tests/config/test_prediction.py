from typing import get_args

import pytest

from ctc_ray.config.base import build
from ctc_ray.config.choices import Aggregation
from ctc_ray.config.prediction import ExportConfig, PredictConfig
from ctc_ray.errors import ConfigError

BASE = {"bundle_uri": "bundle", "output_uri": "predictions"}
CSV = {"csv_uri": "a.csv", "event_column": "id", "image_columns": ["image"]}


def config(**values) -> PredictConfig:
    return build(PredictConfig, {**BASE, **values}, where="test")


@pytest.mark.parametrize(
    "source",
    [
        {"images_uri": "a"},
        CSV,
        {"inventory_uri": "a"},
        {"dataset_uri": "a"},
        {"dataset_uri": "a", "split": "test"},
    ],
)
def test_each_source_alone_is_enough(source):
    assert config(**source).aggregation == "mean"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({}, "give exactly one of --images-uri, .*; given: none"),
        ({"images_uri": "a", **CSV}, "given: --images-uri, --csv-uri"),
        ({"csv_uri": "a"}, "--csv-uri needs --event-column and either --im"),
        (
            {"csv_uri": "a", "event_column": "id"},
            "--csv-uri needs --event-column and either --im",
        ),
        ({"images_uri": "a", "split": "test"}, "--split needs --dataset-uri"),
        ({**CSV, "layout": "{location}"}, "--layout needs --images-uri"),
        ({"inventory_uri": "a", "time_from": ["original"]}, "--time-from needs --images-uri"),
        ({"dataset_uri": "a", "max_images_per_event": 3}, "--max-images-per-event needs --im"),
    ],
)
def test_other_sources_are_refused(source, message):
    with pytest.raises(ConfigError, match=message):
        config(**source)


@pytest.mark.parametrize("aggregation", get_args(Aggregation))
def test_ways_to_aggregate(aggregation):
    assert config(images_uri="a", aggregation=aggregation).aggregation == aggregation


def test_files_with_all_probabilities_need_all_probabilities():
    with pytest.raises(ConfigError, match="--export writes all probabilities, --top-k only some"):
        config(images_uri="a", export=["csv"], top_k=3)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"precision": "float16"}, "--precision float16 needs --gpu-per-worker"),
        ({"precision": "bfloat16", "engine": "onnx"}, "--precision bfloat16 is for --engine torch"),
    ],
)
def test_short_numbers_where_nothing_computes_with_them(values, message):
    with pytest.raises(ConfigError, match=message):
        config(images_uri="a", **values)


@pytest.mark.parametrize(
    "values",
    [
        {"top_k": 0},
        {"aggregation": "median"},
        {"export": ["xml"]},
        {"export": ["csv", "csv"]},
        {"batch_size": 0},
    ],
)
def test_values_out_of_range_are_refused(values):
    with pytest.raises(ConfigError, match=next(iter(values))):
        config(images_uri="a", **values)


def test_how_many_actors_work_is_not_part_of_the_work():
    work = config(images_uri="a").result_fields()
    assert (
        config(images_uri="a", workers=9, gpu_per_worker=1, threads_per_task=2).result_fields()
        == work
    )
    assert config(images_uri="a", aggregation="max").result_fields() != work


def test_export_formats():
    assert build(ExportConfig, BASE, where="test").format == "onnx"
    with pytest.raises(ConfigError, match="format is 'hdf5'"):
        build(ExportConfig, {**BASE, "format": "hdf5"}, where="test")
