"""Configuration of `ctc train` and `ctc tune`."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, field_validator, model_validator

from ctc_ray.config.base import Config, Shown, StageConfig
from ctc_ray.config.choices import (
    ClassWeights,
    Colour,
    Direction,
    ImageChoice,
    Mixing,
    OptimizerName,
    Precision,
    Preset,
    ScheduleName,
    UnmappedRule,
)
from ctc_ray.config.presets import with_preset

MONITORED = (
    "loss",
    "accuracy",
    "balanced_accuracy",
    "macro_f1",
    "top5",
    "event_accuracy",
    "event_balanced_accuracy",
    "event_macro_f1",
)
"""Metrics of a head on the validation split."""


def direction_of(metric: str) -> Direction:
    """Whether the smallest or the largest value of a metric is best."""
    return "min" if metric.startswith("val_loss") else "max"


class ModelConfig(Config):
    """The network."""

    backbone: Annotated[str, Shown(value="NAME")] = "small_cnn"
    """small_cnn, or the name of any timm model, for example resnet18, tf_efficientnet_lite0 or
    convnext_tiny."""
    pretrained: Annotated[str | bool, Shown(value="FILE|true|false")] = False
    """Weights to start from. A model of `ctc train`, with its pixel statistics, its image size and
    its heads where the classes agree; a .safetensors or .pth file of the backbone, also a
    checkpoint of timm or Lightning; true: download the weights of timm; false: random weights."""
    freeze_backbone: bool = False
    """Keep the weights of the backbone and its batch statistics as they are; only the output layers
    learn. Use it with --model.pretrained: a backbone that begins at random stays random."""
    freeze_epochs: int = Field(0, ge=0)
    """Epochs in which only the output layers learn, before the backbone learns, too."""
    wise_ft: float = Field(1.0, gt=0, le=1)
    """Share of the trained weights in the backbone that is kept; the rest are those of
    --model.pretrained. Less than 1, for example 0.5, often answers better at new places (WiSE-FT,
    Wortsman et al. 2022)."""
    ema_decay: float = Field(0.0, ge=0, lt=1)
    """Validate and keep a moving average of the weights: after each update, this share of it stays.
    0: off. 0.99 suits short trainings, 0.999 or more long ones."""
    image_size: Annotated[
        int | None, Field(ge=16, le=2048), Shown("the usual size of the backbone")
    ] = None
    """Width and height of the network's input in pixels."""
    keep_aspect: bool = False
    """Crop images to a centred square before they are resized. Otherwise they are squeezed."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Share of features that are dropped before the heads during training."""

    @model_validator(mode="after")
    def _has_what_it_needs(self) -> Self:
        if self.wise_ft < 1 and (self.pretrained is False or self.freeze_backbone):
            raise ValueError("model.wise_ft needs model.pretrained and a backbone that learns")
        if self.freeze_epochs and self.freeze_backbone:
            raise ValueError("give model.freeze_epochs or model.freeze_backbone, not both")
        return self

    @field_validator("pretrained", mode="before")
    @classmethod
    def _true_or_false(cls, value: Any) -> Any:
        return (
            {"true": True, "false": False}.get(value.lower(), value)
            if isinstance(value, str)
            else value
        )


class AugmentConfig(Config):
    """Random changes of training images."""

    zoom: float = Field(0.1, ge=0, le=0.5)
    """Enlarge or shrink by a random factor between 1 - zoom and 1 + zoom. 0: off."""
    crop: float = Field(0.1, ge=0, le=0.5)
    """Cut off a random share of the width and height, at most this. 0: off."""
    rotate: float = Field(5.0, ge=0, le=180)
    """Rotate by a random angle in degrees, at most this to either side. 0: off."""
    flip: bool = True
    """Mirror half of the images, left to right."""
    colour: Colour = "standard"
    """none: no change. standard: brightness, contrast, saturation and hue, as much as the options
    below say. As in camera-trap-classifier: little: brightness and saturation; full_fast:
    brightness and tint; full_randomized: brightness, saturation, hue and contrast, in random order.
    """
    brightness: float = Field(0.4, ge=0, lt=1)
    """Used with --augment.colour standard: multiply by a factor between 1 - this and 1 + this."""
    contrast: float = Field(0.4, ge=0, lt=1)
    """Used with --augment.colour standard: likewise, the distance from the image's mean."""
    saturation: float = Field(0.4, ge=0, lt=1)
    """Used with --augment.colour standard: likewise, the distance from gray."""
    hue: float = Field(0.05, ge=0, le=0.5)
    """Used with --augment.colour standard: turn the colours by at most this share of a turn."""
    gray: float = Field(0.1, ge=0, le=1)
    """Share of images that lose their colours, as at night."""
    erase: float = Field(0.0, ge=0, le=1)
    """Share of images of which a rectangle, of 2 to 20 % of the area, is filled with the image's
    mean (random erasing, Zhong et al. 2020)."""

    mix: Mixing = "none"
    """Mix each image with another one of its batch, and the labels with it. mixup: add them up.
    cutmix: put a rectangle of one into the other."""
    mix_alpha: float = Field(0.2, gt=0)
    """Used with --augment.mix: the larger, the more images are mixed evenly (parameter of the beta
    distribution)."""


class OptimizerConfig(Config):
    """How weights are updated."""

    name: OptimizerName = "adamw"
    """sgd, rmsprop, or adamw."""
    learning_rate: float = Field(0.001, gt=0)
    """Largest learning rate."""
    momentum: float = Field(0.9, ge=0, lt=1)
    """Used with --optimizer.name sgd or rmsprop: momentum."""
    nesterov: bool = False
    """Used with --optimizer.name sgd: momentum as by Nesterov."""
    weight_decay: float = Field(0.05, ge=0)
    """Weight decay: decoupled with adamw, else L2. Biases and normalisation layers have none."""
    backbone_rate: float = Field(1.0, gt=0)
    """Factor of the learning rate for the backbone."""
    layer_decay: float = Field(1.0, gt=0, le=1)
    """Factor of the learning rate from each block of the backbone to the one before it, so that the
    first blocks change least. 1: off."""
    scale_with_workers: bool = False
    """Multiply the learning rate by --workers and --accumulate, so that it fits the images of a
    step."""
    clip_norm: Annotated[float | None, Field(gt=0), Shown("no limit")] = None
    """Shorten gradients whose norm, over all weights, is larger than this."""

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> Self:
        if self.nesterov and (self.name != "sgd" or self.momentum == 0):
            raise ValueError("optimizer.nesterov needs optimizer.name sgd with a momentum")
        return self


class LossConfig(Config):
    """What is minimised: the cross entropy of every head over its labelled images."""

    class_weights: ClassWeights = "none"
    """Weight of an image by the number n of training images of its class: inverse: 1 / n.
    effective-number: 1 / (1 - beta^n), with --loss.beta (Cui et al. 2019). The weights of a head
    have the mean 1."""
    beta: float = Field(0.999, gt=0, lt=1)
    """Used with --loss.class-weights effective-number."""
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """Share of the label that is divided evenly among all classes."""
    focal_gamma: float = Field(0.0, ge=0)
    """Multiply the loss of an image by (1 - p)^gamma, with p the probability of its label (focal
    loss, Lin et al. 2017). 0: off."""
    logit_adjustment: float = Field(0.0, ge=0)
    """Add this times the logarithm of the share of a class to its logit during training (Menon et
    al. 2021): rare classes are predicted more often. 1: balanced softmax. 0: off."""


class ScheduleConfig(Config):
    """How the learning rate changes from epoch to epoch."""

    name: ScheduleName = "cosine"
    """plateau: multiply by --schedule.factor when --monitor stops improving. step: multiply by it
    every --schedule.step-epochs. cosine: decrease to 0 at --max-epochs. one-cycle: rise from 1/25
    in the first 30 % of the training, then decrease to 0. constant: no change."""
    factor: float = Field(0.1, gt=0, lt=1)
    """Used with --schedule.name plateau or step: factor of each reduction."""
    step_epochs: int = Field(30, gt=0)
    """Used with --schedule.name step: epochs between two reductions."""
    patience: int = Field(2, ge=0)
    """Used with --schedule.name plateau: epochs without improvement before the learning rate is
    reduced."""
    min_learning_rate: float = Field(1e-5, ge=0)
    """The schedule never goes below this learning rate."""
    warmup_epochs: float = Field(1, ge=0)
    """Epochs in which the learning rate rises linearly, step by step, from 0."""


class TrainConfig(StageConfig):
    """Train a model with one output per head, on one or many workers."""

    example: ClassVar[str] = """\
ctc train --dataset-uri dataset --output-uri model --heads species count \\
    --model.backbone resnet18 --model.pretrained true"""
    operational: ClassVar[frozenset[str]] = StageConfig.operational | {
        "decode_threads",
        "cpu_per_worker",
    }
    option_groups: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "Options": (),
        "Workers": ("workers", "gpu_per_worker", "cpu_per_worker", "decode_threads"),
    }

    dataset_uri: str = Field(min_length=1)
    """Folder written by `ctc create-dataset`."""
    heads: tuple[str, ...] = Field(min_length=1)
    """Heads to learn, for example species count; one is enough. Each must be in the dataset."""
    mapping_uri: Annotated[str | None, Shown("the classes of the dataset")] = None
    """File that renames or merges classes for this training: a csv with the columns head,from,to,
    or YAML of the form head: {from: to}. An empty `to`, or -1, means no label."""
    unmapped: UnmappedRule = "keep"
    """Used with --mapping-uri: classes that the file does not name, of the heads that it names.
    keep: they stay as they are. drop: their images have no label of this head."""
    loss_weights: Annotated[dict[str, float], Shown("1 for every head")] = Field({})
    """Weight of the loss of each head."""
    loss: LossConfig = LossConfig()
    """What is minimised."""
    preset: Preset = "default"
    """Where the other options get their defaults. original: those of camera-trap-classifier (sgd,
    plateau, colours in random order, early stopping after 3 epochs)."""
    model: ModelConfig = ModelConfig()
    """The network."""
    augment: AugmentConfig = AugmentConfig()
    """Random changes of training images."""
    optimizer: OptimizerConfig = OptimizerConfig()
    """How weights are updated."""
    schedule: ScheduleConfig = ScheduleConfig()
    """How the learning rate changes from epoch to epoch."""
    batch_size: int = Field(128, gt=0)
    """Images that a worker takes at a time."""
    accumulate: int = Field(1, gt=0)
    """Batches of each worker per update of the weights: their gradients are those of one large
    batch, missing labels included."""
    max_epochs: int = Field(30, gt=0)
    """Largest number of epochs."""
    early_stopping_patience: int = Field(10, ge=0)
    """Stop after this many epochs in which --monitor has not become better. 0: never stop early."""
    monitor: Annotated[str, Shown(value="METRIC")] = "val_loss"
    """What says which epoch is best, for the epoch that is kept, early stopping and the plateau:
    val_loss, or val_loss, val_accuracy, val_balanced_accuracy, val_macro_f1 or val_top5 of a head,
    for example val_macro_f1_species."""
    image_choice: ImageChoice = "random"
    """Images used per capture event and epoch. random: one (as in camera-trap-classifier). first:
    its first usable image. all: every image."""
    precision: Precision = "float32"
    """Numbers that the network computes with in training: bfloat16 is faster on newer GPUs and
    CPUs, float16 on older GPUs. The weights stay float32."""
    seed: int = Field(0, ge=0)
    """Seed of the first weights, the order of images and the augmentation."""
    workers: int = Field(1, gt=0)
    """Number of training processes, on one or many nodes."""
    gpu_per_worker: Annotated[
        float | None, Field(ge=0), Shown("1, where there is one for each worker")
    ] = None
    """GPUs per worker: 0 or 1."""
    cpu_per_worker: float = Field(1, gt=0)
    """CPUs that Ray reserves for each worker."""
    decode_threads: int = Field(2, gt=0)
    """Threads per worker that decode images."""

    @model_validator(mode="before")
    @classmethod
    def _of_preset(cls, values: Any) -> Any:
        return with_preset(values) if isinstance(values, Mapping) else values

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

    @model_validator(mode="after")
    def _unmapped_needs_a_mapping(self) -> Self:
        if self.unmapped != "keep" and self.mapping_uri is None:
            raise ValueError("unmapped needs mapping_uri")
        return self

    @model_validator(mode="after")
    def _monitor_is_a_metric(self) -> Self:
        known = ["val_loss", *(f"val_{m}_{h}" for h in self.heads for m in MONITORED)]
        if self.monitor not in known:
            raise ValueError(f"monitor is {self.monitor}; metrics are {', '.join(known)}")
        return self

    @property
    def gpus(self) -> float:
        """GPUs per worker; 0 while it is not decided."""
        return self.gpu_per_worker or 0

    @property
    def monitor_mode(self) -> Direction:
        """Whether the smallest or the largest value of `monitor` is best."""
        return direction_of(self.monitor)


class TuneConfig(StageConfig):
    """Search for the training settings that give the best model."""

    example: ClassVar[str] = "ctc tune --config tune.yaml"
    operational: ClassVar[frozenset[str]] = StageConfig.operational | {
        "concurrent_trials",
    }

    train: dict[str, Any]
    """Settings of `ctc train`, without output_uri. Best given in the --config file."""
    space: dict[str, Any] = Field(min_length=1)
    """Settings to search and their values: {choice: […]}, {grid: […]}, {uniform: [low, high]},
    {loguniform: [low, high]} or {randint: [low, high]}. Best given in the --config file."""
    metric: Annotated[str, Shown(value="METRIC")] = "val_loss"
    """Metric that compares trials: val_loss, or for example val_accuracy_species. The smallest loss
    is best; for other metrics the largest value."""
    trials: int = Field(10, gt=0)
    """Number of trials. With grid: number of times that the whole grid is tried."""
    concurrent_trials: int = Field(1, gt=0)
    """Number of trials at the same time."""
    grace_epochs: int = Field(1, gt=0)
    """Epochs that every trial gets before it can be stopped (ASHA)."""
    reduction_factor: int = Field(4, ge=2)
    """At each stage of the search, one trial in this many continues (ASHA)."""
    seed: int = Field(0, ge=0)
    """Seed of the search."""

    @property
    def mode(self) -> Direction:
        """Whether the smallest or the largest metric is best."""
        return direction_of(self.metric)
