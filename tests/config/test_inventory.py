import pytest

from ctc_ray.config.base import build
from ctc_ray.config.inventory import (
    CsvInventoryConfig,
    DirInventoryConfig,
    InventoryConfig,
    JsonInventoryConfig,
    MegadetectorInventoryConfig,
    TimedInventoryConfig,
)
from ctc_ray.errors import ConfigError

BASE = {"source_uri": "a.csv", "output_uri": "inventory"}


@pytest.mark.parametrize("model", [CsvInventoryConfig, DirInventoryConfig, JsonInventoryConfig])
def test_every_source_needs_a_place_to_read_and_one_to_write(model):
    with pytest.raises(ConfigError, match=r"output_uri is required.*source_uri is required"):
        build(model, {}, where="test")
    with pytest.raises(ConfigError, match="source_uri is ''"):
        build(model, {**BASE, "source_uri": ""}, where="test")


def test_a_csv_needs_the_columns_of_images():
    both = {"image_columns": ["i"], "path_columns": ["p"]}
    for columns in ({}, {"image_columns": []}, both):
        with pytest.raises(ConfigError, match="give either --image-columns or --path-columns"):
            build(CsvInventoryConfig, {**BASE, "event_column": "id", **columns}, where="test")


@pytest.mark.parametrize(
    "columns",
    [{}, {"captured_at_column": "t"}, {"deployment_column": "d"}, {"location_column": "l"}],
)
def test_a_csv_without_events_needs_what_they_are_made_of(columns):
    values = {**BASE, "image_columns": ["i"], **columns}
    with pytest.raises(ConfigError, match="need --event-column, or --captured-at-column together"):
        build(CsvInventoryConfig, values, where="test")
    build(CsvInventoryConfig, {**values, "event_column": "id"}, where="test")
    whole = {"captured_at_column": "t", "location_column": "l"}
    build(CsvInventoryConfig, {**values, **whole}, where="test")


def test_the_order_of_columns_is_kept():
    columns = {"image_columns": ["b", "a"], "head_columns": ["z", "y"]}
    made = build(CsvInventoryConfig, {**BASE, "event_column": "id", **columns}, where="test")
    assert (made.image_columns, made.head_columns) == (("b", "a"), ("z", "y"))


@pytest.mark.parametrize("field", ["image_columns", "head_columns", "meta_columns"])
def test_a_column_cannot_be_named_twice(field):
    values = {**BASE, "event_column": "id", "image_columns": ["i"], field: ["a", "a"]}
    with pytest.raises(ConfigError, match=f"{field} is .*twice"):
        build(CsvInventoryConfig, values, where="test")


def test_class_folders_need_nothing_else():
    made = build(DirInventoryConfig, {"source_uri": "photos", "output_uri": "out"}, where="test")
    assert made.source_uri == "photos"
    assert "read_threads" not in made.result_fields()  # how fast, not what


EVENTS = {"event_gap_s", "max_images_per_event", "clock_corrections_uri"}


@pytest.mark.parametrize("model", InventoryConfig.__subclasses__(), ids=lambda m: m.__name__)
def test_a_source_has_only_the_settings_that_it_reads(model):
    """A class folder, an old JSON and a result file have no times; boxes are no labels."""
    timed = model not in (DirInventoryConfig, JsonInventoryConfig, MegadetectorInventoryConfig)
    assert EVENTS & model.model_fields.keys() == (EVENTS if timed else set())
    assert ("rare_class_events" in model.model_fields) == (model is not MegadetectorInventoryConfig)
    assert isinstance(model.model_construct(), TimedInventoryConfig) == timed
