"""The parts of `ctc train`'s configuration that say what is minimised, and how."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from ctc_ray.config.base import Config, Shown
from ctc_ray.config.choices import ClassWeights, OptimizerName, ScheduleName


class OptimizerConfig(Config):
    """How weights are updated."""

    name: OptimizerName = "adamw"
    """sgd, rmsprop, or adamw."""
    learning_rate: float = Field(0.01, gt=0)
    """Largest learning rate, that of the heads."""
    momentum: float = Field(0.9, ge=0, lt=1)
    """Used with --optimizer.name sgd or rmsprop: momentum."""
    nesterov: bool = False
    """Used with --optimizer.name sgd: momentum as by Nesterov."""
    weight_decay: float = Field(0.05, ge=0)
    """Weight decay: decoupled with adamw, else L2. Biases and normalisation layers have none."""
    backbone_rate: Annotated[
        float | None, Field(gt=0), Shown("0.1 with --model.pretrained, else 0.3")
    ] = None
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
    label_smoothing: float = Field(0.1, ge=0, lt=1)
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
