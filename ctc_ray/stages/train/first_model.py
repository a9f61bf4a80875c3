"""The model that a training begins with."""

from collections.abc import Callable
from typing import assert_never

from ctc_ray.config.choices import PixelNormalisation
from ctc_ray.config.training import TrainConfig
from ctc_ray.labels import LabelSpace
from ctc_ray.models.backbones import Backbone, ThreeFloats
from ctc_ray.models.low_rank import add_low_rank
from ctc_ray.models.multi_head import MultiHeadModel
from ctc_ray.models.starting_weights import StartingWeights, load_heads, report

Normalisation = tuple[ThreeFloats, ThreeFloats]
"""Mean and standard deviation per channel of pixels in [0, 1]."""


def normalisation_of(
    config: TrainConfig,
    backbone: Backbone,
    start: StartingWeights | None,
    statistics: Callable[[], Normalisation],
) -> Normalisation:
    """By what pixels are normalised: as the weights to begin with have learnt it, if they did.

    Args:
        statistics: gives those of the training images.
    """
    by_default: PixelNormalisation = "backbone" if config.model.pretrained else "dataset"
    whose = config.model.normalisation or by_default
    match whose:
        case "dataset":
            return statistics()
        case "backbone" if start is not None and start.normalisation is not None:
            return start.normalisation
        case "backbone":
            return backbone.mean, backbone.std
        case _:
            assert_never(whose)


def make_model(
    config: TrainConfig, labels: LabelSpace, backbone: Backbone, normalisation: Normalisation
) -> MultiHeadModel:
    """The backbone with one new output per head.

    Raises:
        ConfigError: matrices of low rank cannot be added to it.
    """
    mean, std = normalisation
    if rank := config.model.lora_rank:
        add_low_rank(backbone.network, rank, name=backbone.name)
    model = MultiHeadModel(
        backbone,
        labels,
        mean=mean,
        std=std,
        dropout=config.model.dropout,
        freeze_backbone=config.model.freeze_backbone,
    )
    model.lay_out(channels_last=config.channels_last)
    return model


def with_heads_of(
    start: StartingWeights | None, model: MultiHeadModel, config: TrainConfig
) -> list[str]:
    """Give the model the heads of the weights to begin with; in lines for the user, which."""
    if start is None:
        return []
    return list(report(start, load_heads(model, start), config.model.keep_aspect))
