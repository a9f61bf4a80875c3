from typing import Any

import pytest

from ctc_ray.config.base import build
from ctc_ray.config.choices import Preset
from ctc_ray.config.optimization import OptimizerConfig
from ctc_ray.config.presets import PRESETS
from ctc_ray.config.training import AugmentConfig, TrainConfig


def config(**values: Any) -> TrainConfig:
    given = {"dataset_uri": "d", "output_uri": "o", "heads": ["species"], **values}
    return build(TrainConfig, given, where="test")


def test_the_original_preset_is_what_the_original_does() -> None:
    made = config(preset="original")
    assert (made.optimizer.name, made.optimizer.learning_rate, made.optimizer.momentum) == (
        "sgd", 0.01, 0.9,
    )  # fmt: skip
    assert (made.schedule.name, made.schedule.factor, made.schedule.patience) == ("plateau", 0.1, 2)
    assert made.schedule.min_learning_rate == 1e-5
    assert (made.max_epochs, made.early_stopping_patience) == (70, 3)
    augment = made.augment
    assert (augment.zoom, augment.crop, augment.rotate, augment.flip) == (0.1, 0.1, 5, True)
    assert (augment.colour, augment.gray, augment.mix) == ("full_randomized", 0, "none")


def test_what_is_given_goes_before_the_preset() -> None:
    made = config(
        preset="original", max_epochs=5, optimizer={"learning_rate": 0.1}, augment={"zoom": 0}
    )
    assert made.max_epochs == 5
    assert (made.optimizer.name, made.optimizer.learning_rate) == ("sgd", 0.1)
    assert (made.augment.zoom, made.augment.colour) == (0, "full_randomized")
    in_python = TrainConfig(
        dataset_uri="d",
        output_uri="o",
        heads=("species",),
        preset="original",
        optimizer=OptimizerConfig(learning_rate=0.1),
        augment=AugmentConfig(zoom=0),
    )
    assert in_python.optimizer == made.optimizer
    assert in_python.augment == made.augment


@pytest.mark.parametrize("preset", PRESETS)
def test_a_configuration_that_is_written_and_read_is_the_same(preset: Preset) -> None:
    made = config(preset=preset)
    assert (
        config(**made.model_dump(mode="json", exclude={"dataset_uri", "output_uri", "heads"}))
        == made
    )
    assert made.replaced(seed=3).optimizer == made.optimizer


def test_a_preset_that_does_not_exist_is_named() -> None:
    with pytest.raises(Exception, match="preset is 'best'"):
        config(preset="best")
