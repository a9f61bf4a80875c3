"""Settings of `ctc train` that go together; what the user gives goes before them."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from ctc_ray.config.choices import Preset
from ctc_ray.config.optimization import LossConfig

PRESETS: Mapping[Preset, Mapping[str, Any]] = {
    "default": {},  # the defaults of the settings themselves
    "original": {
        "augment": {
            "zoom": 0.1,
            "crop": 0.1,
            "rotate": 5.0,
            "colour": "full_randomized",
            "gray": 0.0,
        },
        "optimizer": {
            "name": "sgd",
            "learning_rate": 0.01,
            "backbone_rate": 1.0,
            "momentum": 0.9,
            "weight_decay": 1e-4,
        },
        "loss": LossConfig(label_smoothing=0.0).model_dump(exclude_unset=True),
        "schedule": {"name": "plateau", "factor": 0.1, "patience": 2, "warmup_epochs": 0},
        "max_epochs": 70,
        "early_stopping_patience": 3,
    },
}


def with_preset(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values, and those of their preset where they are silent."""
    preset: Mapping[str, Any] = PRESETS.get(values.get("preset", "default"), {})
    return {**values, **{key: _under(values.get(key), own) for key, own in preset.items()}}


def _under(given: Any, own: Any) -> Any:
    """What is given, and below it the values of the preset."""
    if given is None:
        return own
    if isinstance(given, Mapping) and isinstance(own, Mapping):
        return {**own, **given}
    if isinstance(given, BaseModel) and isinstance(own, Mapping):
        return {**own, **given.model_dump(exclude_unset=True)}
    return given
