"""Configuration of the network of `ctc train`."""

from typing import Annotated, Any, Self

from pydantic import Field, field_validator, model_validator

from ctc_ray.config.backbone_names import backbone_name
from ctc_ray.config.base import Config, Shown
from ctc_ray.config.choices import PixelNormalisation


class InputConfig(Config):
    """The part of the network that decides which pixels it sees."""

    backbone: Annotated[str, Shown(value="NAME")] = "small_cnn"
    """small_cnn, or the name of any timm model, for example resnet18, tf_efficientnet_lite0 or
    convnext_tiny. Names of camera-trap-classifier, such as ResNet18 or Xception, are known, too."""
    pretrained: Annotated[str | bool, Shown(value="FILE|true|false")] = False
    """Weights to start from. A model of `ctc train`, with its pixel statistics, its image size and
    its heads where the classes agree; a .safetensors or .pth file of the backbone, also a
    checkpoint of timm or Lightning; true: download the weights of timm; false: random weights."""
    image_size: Annotated[
        int | None, Field(ge=16, le=2048), Shown("the usual size of the backbone")
    ] = None
    """Width and height of the network's input in pixels."""
    keep_aspect: bool = False
    """Crop images to a centred square before they are resized. Otherwise they are squeezed."""

    @field_validator("backbone")
    @classmethod
    def _name_here(cls, value: str) -> str:
        return backbone_name(value)

    @field_validator("pretrained", mode="before")
    @classmethod
    def _true_or_false(cls, value: Any) -> Any:
        return (
            {"true": True, "false": False}.get(value.lower(), value)
            if isinstance(value, str)
            else value
        )


class ModelConfig(InputConfig):
    """The network."""

    freeze_backbone: bool = False
    """Keep the weights of the backbone and its batch statistics as they are; only the output layers
    learn. Use it with --model.pretrained: a backbone that begins at random stays random."""
    freeze_epochs: int = Field(0, ge=0)
    """Epochs in which only the output layers learn, before the backbone learns, too."""
    lora_rank: int = Field(0, ge=0)
    """Rank of a matrix that is added to each linear layer of the backbone. Of the backbone, only
    these matrices learn (LoRA, Hu et al. 2022); the model holds the sums. For transformers and
    convnexts, with --model.pretrained. 0: off."""
    wise_ft: float = Field(1.0, gt=0, le=1)
    """Share of the trained weights in the backbone that is kept; the rest are those of
    --model.pretrained. Less than 1, for example 0.5, often answers better at new places (WiSE-FT,
    Wortsman et al. 2022)."""
    ema_decay: float = Field(0.0, ge=0, lt=1)
    """Validate and keep a moving average of the weights: after each update, this share of it stays.
    0: off. 0.99 suits short trainings, 0.999 or more long ones."""
    normalisation: Annotated[
        PixelNormalisation | None, Shown("backbone with --model.pretrained, else dataset")
    ] = None
    """By what mean and deviation pixels are normalised. backbone: those that its weights were
    trained with. dataset: those of the training images."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Share of features that are dropped before the heads during training."""

    @model_validator(mode="after")
    def _has_what_it_needs(self) -> Self:
        if self.wise_ft < 1 and (self.pretrained is False or self.freeze_backbone):
            raise ValueError("model.wise_ft needs model.pretrained and a backbone that learns")
        if self.lora_rank and (self.pretrained is False or self.freeze_backbone):
            raise ValueError("model.lora_rank needs model.pretrained and a backbone that learns")
        if self.lora_rank and self.wise_ft < 1:
            raise ValueError("give model.lora_rank or model.wise_ft, not both")
        if self.freeze_epochs and self.freeze_backbone:
            raise ValueError("give model.freeze_epochs or model.freeze_backbone, not both")
        return self
