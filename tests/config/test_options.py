"""What `--help` says of each option, for every configuration of the command line."""

import pytest

from ctc_ray.config.aggregation import AggregateConfig
from ctc_ray.config.base import Config, StageConfig
from ctc_ray.config.dataset import CreateDatasetConfig
from ctc_ray.config.demo import DemoConfig
from ctc_ray.config.inventory import (
    CsvInventoryConfig,
    ImagesInventoryConfig,
    InventoryConfig,
    ListedPathsConfig,
)
from ctc_ray.config.keys import known_keys, submodel
from ctc_ray.config.options import HOW_TO_RUN, MAIN, REQUIRED, Option, option_groups, usage
from ctc_ray.config.prediction import ExportConfig, PredictConfig
from ctc_ray.config.show import ShowConfig
from ctc_ray.config.training import TrainConfig
from ctc_ray.config.tuning import TuneConfig

MODELS: list[type[Config]] = [
    *(model for model in InventoryConfig.__subclasses__() if "example" in vars(model)),
    *ListedPathsConfig.__subclasses__(),
    CreateDatasetConfig,
    TrainConfig,
    TuneConfig,
    PredictConfig,
    AggregateConfig,
    ExportConfig,
    DemoConfig,
    ShowConfig,
]


def options(model: type[Config]) -> dict[str, Option]:
    return {o.key: o for group in option_groups(model) for o in group.options}


@pytest.mark.parametrize("model", MODELS, ids=lambda m: m.__name__)
def test_every_setting_is_an_option_of_one_group(model: type[Config]) -> None:
    parts = {name for name, field in model.model_fields.items() if submodel(field.annotation)}
    listed = [o.key for group in option_groups(model) for o in group.options]
    assert sorted(listed) == sorted(set(known_keys(model)) - parts)


@pytest.mark.parametrize("model", MODELS, ids=lambda m: m.__name__)
def test_every_option_says_that_it_is_required_or_what_its_default_is(model: type[Config]) -> None:
    for option in options(model).values():
        assert option.text.endswith("]"), option
        assert ("[required]" in option.text) != ("[default: " in option.text), option


@pytest.mark.parametrize("model", MODELS, ids=lambda m: m.__name__)
def test_required_options_come_first_and_how_to_run_last(model: type[Config]) -> None:
    groups = option_groups(model)
    for group in groups:
        for option in group.options:
            assert ("[required]" in option.text) == (group.title == REQUIRED)
    titles = [group.title for group in groups]
    assert REQUIRED not in titles[1:]
    assert titles[-1] == HOW_TO_RUN


@pytest.mark.parametrize("model", MODELS, ids=lambda m: m.__name__)
def test_groups_name_fields_that_there_are(model: type[Config]) -> None:
    for names in model.option_groups.values():
        assert set(names) <= set(model.model_fields)
    assert model.example.startswith("ctc ")
    assert all(len(line) < 76 for line in model.example.splitlines())


@pytest.mark.parametrize("model", MODELS, ids=lambda m: m.__name__)
def test_texts_name_other_options_as_they_are_typed(model: type[Config]) -> None:
    for option in options(model).values():
        words = option.text.replace("[", " ").replace(",", " ").split()
        assert not {w for w in words if w.endswith(("_uri", "_column"))}, option
        assert not option.text.startswith("Of "), option


@pytest.mark.parametrize(
    ("model", "key", "default"),
    [
        (TrainConfig, "seed", "0"),
        (TrainConfig, "overwrite", "false"),
        (TrainConfig, "augment.flip", "true"),
        (TrainConfig, "augment.rotate", "5"),
        (TrainConfig, "schedule.min_learning_rate", "1e-05"),
        (TrainConfig, "model.image_size", "the usual size of the backbone"),
        (TrainConfig, "loss_weights", "1 for every head"),
        (CreateDatasetConfig, "split.salt", "empty"),
        (CreateDatasetConfig, "split.fractions", "train 0.9, val 0.05, test 0.05"),
        (CreateDatasetConfig, "filter.keep", "none"),
        (CreateDatasetConfig, "balance.splits", "train"),
        (CreateDatasetConfig, "max_pixels", "100000000"),
        (CsvInventoryConfig, "location_column", "none"),
    ],
)
def test_defaults_are_shown_also_where_they_are_zero_false_or_empty(
    model: type[Config], key: str, default: str
) -> None:
    assert options(model)[key].text.endswith(f" [default: {default}]")


@pytest.mark.parametrize(
    ("model", "key", "value"),
    [
        (TrainConfig, "dataset_uri", "URI"),
        (TrainConfig, "heads", "HEAD..."),
        (TrainConfig, "seed", "N"),
        (TrainConfig, "augment.zoom", "NUMBER"),
        (TrainConfig, "augment.flip", ""),
        (TrainConfig, "optimizer.name", "sgd|rmsprop|adamw"),
        (TrainConfig, "loss_weights", ".NAME NUMBER"),
        (TrainConfig, "model.pretrained", "FILE|true|false"),
        (TuneConfig, "space", ".KEY VALUE"),
        (CreateDatasetConfig, "balance.max_events_per_class", "N|rarest"),
        (CreateDatasetConfig, "filter.keep", "HEAD=CLASS..."),
        (CreateDatasetConfig, "split.salt", "TEXT"),
        (PredictConfig, "export", "table|csv|json..."),
        (PredictConfig, "event_column", "COLUMN"),
        (ImagesInventoryConfig, "layout", "PATTERN"),
    ],
)
def test_what_stands_for_a_value(model: type[Config], key: str, value: str) -> None:
    assert options(model)[key].value == value


def test_only_a_switch_that_is_on_can_be_switched_off() -> None:
    assert options(TrainConfig)["augment.flip"].switch_off == "--no-flip"
    assert options(TrainConfig)["overwrite"].switch_off == ""


def test_usage_shows_what_is_required() -> None:
    assert usage("ctc export", ExportConfig) == (
        "ctc export --bundle-uri URI --output-uri URI [options]"
    )
    assert usage("ctc demo", DemoConfig) == "ctc demo [options]"
    assert usage("ctc tune", TuneConfig) == "ctc tune --output-uri URI [options]"


def test_options_of_how_it_runs_are_apart_from_what_comes_out() -> None:
    groups = {g.title: {o.key for o in g.options} for g in option_groups(PredictConfig)}
    assert {"overwrite", "workers", "threads_per_task"} <= groups[HOW_TO_RUN]
    assert "aggregation" in groups[MAIN]
    assert issubclass(PredictConfig, StageConfig)
