"""Configuration of `ctc train` and `ctc tune`."""

from typing import Any, ClassVar, Self

from pydantic import Field, field_validator, model_validator

from ctc_ray.config.base import Config, StageConfig
from ctc_ray.config.choices import Colour, Direction, ImageChoice, OptimizerName, ScheduleName


class ModelConfig(Config):
    """The network."""

    backbone: str = "small_cnn"
    """small_cnn, or any model name of timm, e.g. resnet18, tf_efficientnet_lite0, convnext_tiny."""
    pretrained: str | bool = False
    """Weights to begin with: a .safetensors or .pth file of the backbone, true (timm's, which are
    downloaded), or false."""
    freeze_backbone: bool = False
    """Train only the heads; the backbone's batch statistics stay fixed too."""
    image_size: int | None = Field(None, ge=16, le=2048)
    """Side of the network's square input in pixels; the default is the backbone's own."""
    keep_aspect: bool = False
    """Cut the centre to a square before scaling, instead of squeezing the whole image."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Share of features dropped before the heads while training."""

    @field_validator("pretrained", mode="before")
    @classmethod
    def _true_or_false(cls, value: Any) -> Any:
        return (
            {"true": True, "false": False}.get(value.lower(), value)
            if isinstance(value, str)
            else value
        )


class AugmentConfig(Config):
    """Random changes of training images; the defaults are the original's."""

    zoom: float = Field(0.1, ge=0, le=0.5)
    """Scale drawn from 1 ± zoom; 0 is off."""
    crop: float = Field(0.1, ge=0, le=0.5)
    """Share of the side cut off, drawn from 0 to crop, at a random place; 0 is off."""
    rotate: float = Field(5.0, ge=0, le=180)
    """Degrees, drawn from ± rotate; 0 is off."""
    flip: bool = True
    """Mirror left and right half of the time."""
    colour: Colour = "full_randomized"
    """Colour changes: none, little (brightness, saturation), full_fast (brightness and chroma) or
    full_randomized (brightness, saturation, hue, contrast in random order)."""


class OptimizerConfig(Config):
    """How weights are changed."""

    name: OptimizerName = "sgd"
    """sgd (the original's) or adamw."""
    learning_rate: float = Field(0.01, gt=0)
    """Learning rate of the first epoch."""
    momentum: float = Field(0.9, ge=0, lt=1)
    """Momentum of sgd."""
    weight_decay: float = Field(1e-4, ge=0)
    """L2 penalty on weight matrices; biases and norms have none."""


class ScheduleConfig(Config):
    """How the learning rate changes from epoch to epoch."""

    name: ScheduleName = "plateau"
    """plateau (the original's: x factor when the validation loss stalls), cosine (to 0 at
    max_epochs), or constant."""
    factor: float = Field(0.1, gt=0, lt=1)
    """Of plateau: what the learning rate is multiplied with."""
    patience: int = Field(2, ge=0)
    """Of plateau: epochs without a better validation loss before that."""
    min_learning_rate: float = Field(1e-5, ge=0)
    """The learning rate is never made smaller than this."""
    warmup_epochs: int = Field(0, ge=0)
    """Of cosine: epochs in which the learning rate rises linearly."""


class TrainConfig(StageConfig):
    """Train a model with one output per head, on one or many workers."""

    operational: ClassVar[frozenset[str]] = StageConfig.operational | {
        "decode_threads",
        "cpu_per_worker",
    }

    dataset_uri: str = Field(min_length=1)
    """Folder written by `ctc create-dataset`."""
    heads: tuple[str, ...] = Field(min_length=1)
    """Heads to learn; each must be a head of the dataset."""
    loss_weights: dict[str, float] = Field({})
    """Weight of each head's loss; 1 where none is given."""
    model: ModelConfig = ModelConfig()
    """The network."""
    augment: AugmentConfig = AugmentConfig()
    """Random changes of training images."""
    optimizer: OptimizerConfig = OptimizerConfig()
    """How weights are changed."""
    schedule: ScheduleConfig = ScheduleConfig()
    """How the learning rate changes."""
    batch_size: int = Field(128, gt=0)
    """Images per training step and worker."""
    max_epochs: int = Field(70, gt=0)
    """Epochs at most."""
    early_stopping_patience: int = Field(3, ge=0)
    """Epochs without a better validation loss after which training ends; 0 never stops early."""
    image_choice: ImageChoice = "random"
    """Of each capture event and epoch: one image at random (the original's way), or all."""
    seed: int = Field(0, ge=0)
    """Seed of weights, order and augmentation."""
    workers: int = Field(1, gt=0)
    """Training processes, on one or many nodes."""
    gpu_per_worker: float = Field(0, ge=0)
    """GPUs per worker: 0 or 1."""
    cpu_per_worker: float = Field(1, gt=0)
    """CPUs that Ray sets aside per worker."""
    decode_threads: int = Field(2, gt=0)
    """Threads per worker that decode images."""

    @model_validator(mode="after")
    def _weights_name_heads(self) -> Self:
        extra = sorted(set(self.loss_weights) - set(self.heads))
        if extra:
            raise ValueError(
                f"loss_weights names {', '.join(extra)}; heads are {', '.join(self.heads)}"
            )
        if any(weight < 0 for weight in self.loss_weights.values()):
            raise ValueError("loss_weights must not be negative")
        return self


class TuneConfig(StageConfig):
    """Search for the fields of a train config that give the best model."""

    operational: ClassVar[frozenset[str]] = StageConfig.operational | {
        "concurrent_trials",
    }

    train: dict[str, Any]
    """A train configuration, without output_uri."""
    space: dict[str, Any] = Field(min_length=1)
    """Dotted field of the train configuration -> {choice: […]}, {grid: […]},
    {uniform: [low, high]}, {loguniform: [low, high]} or {randint: [low, high]}."""
    metric: str = "val_loss"
    """What to compare trials by: val_loss, or e.g. val_accuracy_species. Of a loss the smallest is
    best, of all others the largest."""
    trials: int = Field(10, gt=0)
    """Trials; with grid, repeats of the whole grid."""
    concurrent_trials: int = Field(1, gt=0)
    """Trials at the same time."""
    grace_epochs: int = Field(1, gt=0)
    """ASHA: epochs that every trial gets before it may be stopped."""
    reduction_factor: int = Field(4, ge=2)
    """ASHA: one trial in this many goes on at each rung."""
    seed: int = Field(0, ge=0)
    """Seed of the search."""

    @property
    def mode(self) -> Direction:
        """Whether the smallest or the largest metric is best."""
        return "min" if self.metric.startswith("val_loss") else "max"
