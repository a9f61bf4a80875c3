"""Configuration of `ctc train`."""

import itertools
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from ctc_ray.config.base import Config, Shown, StageConfig
from ctc_ray.config.choices import (
    Colour,
    Decoding,
    Direction,
    ImageChoice,
    Mixing,
    Precision,
    Preset,
    Sampling,
    Tracking,
    UnmappedRule,
)
from ctc_ray.config.continuation import continued
from ctc_ray.config.model import ModelConfig
from ctc_ray.config.optimization import LossConfig, OptimizerConfig, ScheduleConfig
from ctc_ray.config.presets import with_preset
from ctc_ray.errors import holds_credentials

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

_TEST = "test"  # name of the split that --test-split measures


def direction_of(metric: str) -> Direction:
    """Whether the smallest or the largest value of a metric is best."""
    return "min" if metric.startswith("val_loss") else "max"


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
    brightness: float = Field(0.2, ge=0, lt=1)
    """Used with --augment.colour standard: multiply by a factor between 1 - this and 1 + this."""
    contrast: float = Field(0.2, ge=0, lt=1)
    """Used with --augment.colour standard: likewise, the distance from the image's mean."""
    saturation: float = Field(0.2, ge=0, lt=1)
    """Used with --augment.colour standard: likewise, the distance from gray."""
    hue: float = Field(0.02, ge=0, le=0.5)
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


class TrainConfig(StageConfig):
    """Train a model with one output per head, on one or many workers."""

    example: ClassVar[str] = """\
ctc train --dataset-uri dataset --output-uri model --heads species count \\
    --model.backbone resnet18 --model.pretrained true"""
    operational: ClassVar[frozenset[str]] = StageConfig.operational | {
        *("workers", "gpu_per_worker", "cpu_per_worker", "decode_threads"),
        *("max_epochs", "early_stopping_patience", "checkpoint_minutes", "track"),
    }
    option_groups: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "Options": ("max_epochs", "early_stopping_patience"),
        "Workers": ("workers", "gpu_per_worker", "cpu_per_worker", "decode_threads"),
    }

    dataset_uri: str = Field(min_length=1)
    """Folder written by `ctc create-dataset`."""
    heads: tuple[str, ...] = Field(min_length=1)
    """Heads to learn, for example species count; one is enough. Each must be in the dataset. With
    --continue-from, those of the model unless they are given."""
    continue_from: Annotated[str | None, Field(min_length=1), Shown(value="URI")] = None
    """Model of `ctc train` that a new training begins with: its weights (--model.pretrained), and
    where nothing is given its heads, its input, its class mapping and all its other settings, but
    for how it was run. Read at once: afterwards the configuration holds these settings, and no
    continue_from."""
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
    """Largest number of epochs. A larger number makes a finished training go on."""
    early_stopping_patience: int = Field(10, ge=0)
    """Stop after this many epochs in which --monitor has not become better. 0: never stop early."""
    monitor: Annotated[str, Shown(value="METRIC")] = "val_loss"
    """What says which epoch is best, for the epoch that is kept, early stopping and the plateau:
    val_loss, or val_loss, val_accuracy, val_balanced_accuracy, val_macro_f1 or val_top5 of a head,
    for example val_macro_f1_species."""
    train_splits: Annotated[tuple[str, ...], Field(min_length=1)] = ("train",)
    """Splits of the dataset that the model learns from."""
    val_splits: Annotated[tuple[str, ...], Field(min_length=1)] = ("val",)
    """Splits of the dataset that the model is measured on after each epoch, together."""
    test_split: bool = False
    """At the end, measure the model that is kept on the split `test`, too: per image and per
    capture event. It decides nothing in the training."""
    image_choice: ImageChoice = "random"
    """Images used per capture event and epoch. random: one (as in camera-trap-classifier). first:
    its first usable image. all: every image. stack: up to three, in gray, as the channels of one
    image, the last one repeated where there are fewer; validation and prediction do likewise, and
    colours are not changed (as grayscale_stacking in camera-trap-classifier)."""
    stack_first_3: bool = False
    """Used with --image-choice stack: take the first three usable images of longer events.
    Otherwise such an event is an error."""
    sampling: Sampling = "none"
    """How often an epoch uses the images of a class. none: each once. balanced: all classes equally
    often. square-root: in proportion to the square root of their numbers of images. Images of rare
    classes are used several times, changed differently; those of frequent classes now and then."""
    sampling_head: Annotated[str | None, Shown("the first of --heads")] = None
    """Used with --sampling: the head whose classes count. Images without a label of it keep their
    share."""
    decode_on: Decoding = "cpu"
    """Where training images are decoded and sampled. gpu: on the worker's GPU, with nvJPEG, which
    helps where CPUs are too few to keep it busy. Pixels differ a little between the two. Validation
    images are decoded on CPUs in both cases, as in `ctc predict`."""
    precision: Precision = "float32"
    """Numbers that the network computes with in training: bfloat16 is faster on newer GPUs and
    CPUs, float16 on older GPUs. The weights stay float32."""
    channels_last: bool = True
    """Keep the channels of a pixel together in memory. A training step on a CPU takes .96 of the
    time with resnet18 and .65 with tf_efficientnet_lite0 at 160 pixels."""
    compile: bool = False
    """Compile the backbone with torch.compile. The first batch of each size takes a minute or more,
    the others less time, but not on every machine: on one CPU, resnet18 is not faster. Where there
    is no compiler, a line says so and nothing is compiled."""
    deterministic: bool = False
    """Use only algorithms of the GPU that give the same bits in every run with the same GPU model,
    number of workers and versions. They are slower, and a network that needs an operation without
    such an algorithm is refused. On CPUs results are repeatable without it."""
    seed: int = Field(0, ge=0)
    """Seed of the first weights, the order of images and the augmentation."""
    workers: Annotated[int | str, Shown(value="N|MIN:MAX")] = 1
    """Number of training processes, on one or many nodes. 2:8: from 2 to 8, as many as the cluster
    has room for; a training goes on with fewer or more when nodes go and come."""
    gpu_per_worker: Annotated[
        float | None, Field(ge=0), Shown("1, where there is one for each worker")
    ] = None
    """GPUs per worker: 0 or 1."""
    cpu_per_worker: float = Field(1, gt=0)
    """CPUs that Ray reserves for each worker."""
    decode_threads: int = Field(2, gt=0)
    """Threads per worker that decode images."""
    checkpoint_minutes: float = Field(10.0, ge=0)
    """Minutes between two checkpoints within an epoch, beside the one after each epoch: what a
    killed training has to do again, at most. 0: after each epoch only."""
    track: Tracking = "none"
    """mlflow: log the configuration, the metrics of each epoch and the report to the server of
    MLFLOW_TRACKING_URI, or to ./mlruns. Needs pip install 'ctc-ray[mlflow]'."""

    @field_validator("workers", mode="before")
    @classmethod
    def _numbers_of_workers(cls, value: Any) -> Any:
        least, colon, most = str(value).partition(":")
        try:
            low, high = int(least), int(most if colon else least)
        except ValueError:
            low, high = 0, 0
        if isinstance(value, bool) or not 0 < low <= high:
            raise ValueError("expected a number such as 4, or a range such as 2:8")
        return low if low == high else f"{low}:{high}"

    @model_validator(mode="before")
    @classmethod
    def _of_preset_and_model(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        values = with_preset(values)
        uri = values.get("continue_from")
        if not isinstance(uri, str) or not uri or holds_credentials(uri):
            return values
        return {**continued(uri, values), "continue_from": None}

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
    def _sampling_has_a_head(self) -> Self:
        if self.sampling_head is not None and self.sampling == "none":
            raise ValueError("sampling_head needs sampling balanced or square-root")
        if self.sampling_head not in (None, *self.heads):
            raise ValueError(
                f"sampling_head is {self.sampling_head}; heads are {', '.join(self.heads)}"
            )
        return self

    @model_validator(mode="after")
    def _monitor_is_a_metric(self) -> Self:
        known = ["val_loss", *(f"val_{m}_{h}" for h in self.heads for m in MONITORED)]
        if self.monitor not in known:
            raise ValueError(f"monitor is {self.monitor}; metrics are {', '.join(known)}")
        return self

    @model_validator(mode="after")
    def _each_split_has_one_use(self) -> Self:
        uses = {f"{part}_splits": names for part, names in self.parts.items() if part != "test"}
        if both := sorted(set(self.train_splits) & set(self.val_splits)):
            raise ValueError(
                f"split {both[0]} is in train_splits and in val_splits; a model must not be "
                "measured on what it has learnt from"
            )
        for name, splits in uses.items():
            if self.test_split and _TEST in splits:
                raise ValueError(f"test_split measures the split test, which is in {name}, too")
        return self

    @model_validator(mode="after")
    def _first_3_of_stacks(self) -> Self:
        if self.stack_first_3 and not self.is_stack:
            raise ValueError("stack_first_3 needs image_choice stack")
        return self

    @model_validator(mode="after")
    def _gpus_decode_single_images(self) -> Self:
        if self.decode_on == "gpu" and self.is_stack:
            raise ValueError("decode_on gpu is for single images, image_choice is stack")
        return self

    @property
    def is_stack(self) -> bool:
        """Whether the model sees the images of an event as the channels of one."""
        return self.image_choice == "stack"

    @property
    def parts(self) -> dict[str, tuple[str, ...]]:
        """The splits of the dataset that are used as train, as val and, if at all, as test."""
        test = {"test": (_TEST,)} if self.test_split else {}
        return {"train": self.train_splits, "val": self.val_splits, **test}

    @property
    def splits(self) -> tuple[str, ...]:
        """All splits of the dataset that the training uses."""
        return tuple(itertools.chain.from_iterable(self.parts.values()))

    @property
    def evaluated(self) -> Literal["all", "stack"]:
        """What validation answers for: each image, or each event."""
        return "stack" if self.is_stack else "all"

    @property
    def one_per_event(self) -> Literal["random", "stack"]:
        """The image of an event by which pixels are measured before the training."""
        return "stack" if self.is_stack else "random"

    @property
    def backbone_rate(self) -> float:
        """Factor of the learning rate for the backbone: weights that have learnt change less."""
        if self.optimizer.backbone_rate is not None:
            return self.optimizer.backbone_rate
        return 0.3 if self.model.pretrained is False else 0.1

    @property
    def sampled_head(self) -> str:
        """The head whose classes `sampling` looks at."""
        return self.sampling_head or self.heads[0]

    @property
    def changes(self) -> AugmentConfig:
        """Random changes of training images: those of `augment`, but for colours of a stack."""
        if self.is_stack:
            return self.augment.model_copy(update={"colour": "none", "gray": 0.0})
        return self.augment

    @property
    def workers_range(self) -> tuple[int, int]:
        """The smallest and the largest number of workers."""
        least, _, most = str(self.workers).partition(":")
        return int(least), int(most or least)

    @property
    def gpus(self) -> float:
        """GPUs per worker; 0 while it is not decided."""
        return self.gpu_per_worker or 0

    @property
    def monitor_mode(self) -> Direction:
        """Whether the smallest or the largest value of `monitor` is best."""
        return direction_of(self.monitor)
