"""Settings of a search that go together, ready to use."""

from collections.abc import Sequence
from typing import Any, assert_never

from ctc_ray.config.choices import SearchPreset


def space_of(preset: SearchPreset, heads: Sequence[str]) -> dict[str, Any]:
    """The space of a preset: dotted field -> its values, as in `--space`.

    Args:
        heads: of the trainings; the first is the one that the others' weights are relative to.
    """
    match preset:
        case "none":
            return {}
        case "augmentation":
            # One strength of geometry and one of colour: few trials cannot tell eight apart, and
            # trials with eight drawn alone are hardly ever weak (RandAugment, Cubuk et al. 2020,
            # has one for all). The factors are those of the defaults.
            return {
                "augment.zoom": {"uniform": [0.0, 0.3]},
                "augment.crop": {"same_as": "augment.zoom"},
                "augment.rotate": {"same_as": "augment.zoom", "times": 50.0},
                "augment.brightness": {"uniform": [0.0, 0.5]},
                "augment.contrast": {"same_as": "augment.brightness"},
                "augment.saturation": {"same_as": "augment.brightness"},
                "augment.hue": {"same_as": "augment.brightness", "times": 0.1},
                "augment.gray": {"choice": [0.0, 0.1, 0.2]},
                "augment.erase": {"choice": [0.0, 0.25]},
                "augment.mix": {"choice": ["none", "mixup", "cutmix"]},
            }
        case "loss-weights":
            return {
                **{f"loss_weights.{head}": {"loguniform": [0.1, 10.0]} for head in heads[1:]},
                "loss.class_weights": {"choice": ["none", "effective-number"]},
                "loss.logit_adjustment": {"choice": [0.0, 0.5, 1.0]},
            }
        case "optimizer":
            return {
                "optimizer.learning_rate": {"loguniform": [1e-4, 1e-2]},
                "optimizer.weight_decay": {"loguniform": [1e-3, 0.3]},
                "optimizer.layer_decay": {"choice": [0.7, 0.85, 1.0]},
                "optimizer.backbone_rate": {"choice": [0.1, 0.3, 1.0]},
            }
        case _:
            assert_never(preset)
