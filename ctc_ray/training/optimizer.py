"""The optimiser, the schedule of its learning rate, and early stopping."""

import math
from collections.abc import Iterator, Mapping
from typing import Any, assert_never

from torch import nn, optim

from ctc_ray.config.optimization import OptimizerConfig, ScheduleConfig

_FACTOR = "rate_factor"  # of a group of weights
_MIN_DELTA = 1e-4  # plateau: a smaller decrease of the loss is none; as in the original
_ONE_CYCLE_RISE, _ONE_CYCLE_DIVISOR, _ONE_CYCLE_END = 0.3, 25.0, 1e4
_COOLDOWN = 1  # plateau: epochs after a reduction that do not count as waiting; as in Keras


def make_optimizer(
    model: nn.Module,
    config: OptimizerConfig,
    blocks: Mapping[nn.Parameter, int] | None = None,
    *,
    backbone_rate: float = 1.0,
) -> optim.Optimizer:
    """An optimiser of all trainable weights; biases and norms have no weight decay.

    Args:
        blocks: of the backbone: weight -> number of its block, from the input. These weights have
            learning rates of their own, see `set_learning_rate`.
        backbone_rate: factor of the learning rate for them.
    """
    groups = list(_groups(model, config, _factors(config, blocks or {}, backbone_rate)))
    rate, momentum = config.learning_rate, config.momentum
    match config.name:
        case "sgd":
            return optim.SGD(groups, lr=rate, momentum=momentum, nesterov=config.nesterov)
        case "rmsprop":
            return optim.RMSprop(groups, lr=rate, momentum=momentum)
        case "adamw":
            return optim.AdamW(groups, lr=rate)
        case _:
            assert_never(config.name)


def _groups(
    model: nn.Module, config: OptimizerConfig, factors: Mapping[nn.Parameter, float]
) -> Iterator[dict[str, Any]]:
    """Weights with the same decay and the same factor of the learning rate."""
    found: dict[tuple[float, float], list[nn.Parameter]] = {}
    for weight in model.parameters():
        if weight.requires_grad:
            decay = config.weight_decay if weight.ndim > 1 else 0.0
            found.setdefault((factors.get(weight, 1.0), decay), []).append(weight)
    for (factor, decay), weights in found.items():
        yield {"params": weights, "weight_decay": decay, _FACTOR: factor}


def _factors(
    config: OptimizerConfig, blocks: Mapping[nn.Parameter, int], backbone_rate: float
) -> dict[nn.Parameter, float]:
    """The factor of the learning rate of each weight of the backbone."""
    n_blocks = 1 + max(blocks.values(), default=0)
    return {
        weight: backbone_rate * config.layer_decay ** (n_blocks - block)
        for weight, block in blocks.items()
    }


def set_learning_rate(optimizer: optim.Optimizer, learning_rate: float) -> None:
    """Set the learning rate of all weights; those of a backbone may have a factor of their own."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * group.get(_FACTOR, 1.0)


class LearningRateSchedule:
    """The learning rate of every update of the weights; call `step` after every epoch.

    A function of the update's place in the training, except plateau, which multiplies by `factor`
    after `patience` epochs in which the monitored value has not become better. The first
    `warmup_epochs` rise linearly. Only one-cycle falls below `min_learning_rate`.
    """

    def __init__(self, config: ScheduleConfig, *, learning_rate: float, max_epochs: int) -> None:
        self._config = config
        self._largest = learning_rate
        self._max_epochs = max_epochs
        self._best = math.inf
        self._n_waited = 0
        self._n_cooling = 0
        self._plateau_rate = learning_rate

    def at(self, epoch: int, update: int, n_updates: int) -> float:
        """The learning rate of an update.

        Args:
            epoch: number of the epoch, from 0.
            update: number of the update in the epoch, from 0.
            n_updates: of an epoch.
        """
        place = epoch + update / n_updates  # in epochs
        warm = self._config.warmup_epochs
        if place < warm:
            return self._largest * (place + 1 / n_updates) / (warm + 1 / n_updates)
        match self._config.name:
            case "plateau":
                return self._plateau_rate
            case "constant":
                return self._largest
            case "step":
                n = epoch // self._config.step_epochs
                return max(self._largest * self._config.factor**n, self._smallest)
            case "cosine":
                done = (place - warm) / max(1.0, self._max_epochs - warm)
                return max(_half_wave(self._largest, 0, done), self._smallest)
            case "one-cycle":
                return self._one_cycle((place - warm) / max(1.0, self._max_epochs - warm))
            case _:
                assert_never(self._config.name)

    def _one_cycle(self, done: float) -> float:
        """As `torch.optim.lr_scheduler.OneCycleLR` with its defaults (Smith and Topin 2017)."""
        first = self._largest / _ONE_CYCLE_DIVISOR
        if done < _ONE_CYCLE_RISE:
            return _half_wave(first, self._largest, done / _ONE_CYCLE_RISE)
        falling = (done - _ONE_CYCLE_RISE) / (1 - _ONE_CYCLE_RISE)
        return _half_wave(self._largest, first / _ONE_CYCLE_END, falling)

    def step(self, value: float) -> None:
        """Record the monitored value of an epoch.

        Args:
            value: the smaller the better.
        """
        if self._n_cooling:
            self._n_cooling -= 1
            self._n_waited = 0
        if value < self._best - _MIN_DELTA:
            self._best, self._n_waited = value, 0
        elif not self._n_cooling:
            self._n_waited += 1
            if self._n_waited >= self._config.patience:
                self._plateau_rate = max(self._plateau_rate * self._config.factor, self._smallest)
                self._n_cooling, self._n_waited = _COOLDOWN, 0

    @property
    def _smallest(self) -> float:
        # the largest rate is the user's choice: no schedule raises it
        return min(self._config.min_learning_rate, self._largest)

    def state_dict(self) -> dict[str, Any]:
        """The state that a later process needs to resume."""
        return {
            "rate": self._plateau_rate,
            "best": self._best,
            "n_waited": self._n_waited,
            "n_cooling": self._n_cooling,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume from a state that `state_dict` returned."""
        self._plateau_rate = state["rate"]
        self._best = state["best"]
        self._n_waited = state["n_waited"]
        self._n_cooling = state["n_cooling"]


def _half_wave(start: float, end: float, done: float) -> float:
    """From start to end along half a cosine wave, at this share of the way."""
    return end + (start - end) * (1 + math.cos(math.pi * min(1.0, max(0.0, done)))) / 2


class EarlyStopping:
    """Stops when the monitored value has not become better for `patience` epochs.

    `is_best` is true if the last epoch was the best so far. A loss that is NaN is never the best.
    """

    def __init__(self, patience: int) -> None:
        """Before the first epoch.

        Args:
            patience: in epochs; 0 never stops early.
        """
        self._patience = patience
        self.best = math.inf
        self.best_epoch = -1
        self.last_epoch = -1
        self.is_best = False

    @property
    def should_stop(self) -> bool:
        """Whether it has not become better for too long."""
        return 0 < self._patience <= self.last_epoch - self.best_epoch

    def step(self, epoch: int, value: float) -> None:
        """Record the monitored value of an epoch.

        Args:
            epoch: number of the epoch, from 0.
            value: the smaller the better.
        """
        self.is_best = value < self.best
        if self.is_best:
            self.best, self.best_epoch = value, epoch
        self.last_epoch = epoch

    def state_dict(self) -> dict[str, Any]:
        """The state that a later process needs to resume."""
        return {
            "best": self.best,
            "best_epoch": self.best_epoch,
            "is_best": self.is_best,
            "last_epoch": self.last_epoch,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume from a state that `state_dict` returned."""
        self.best = state["best"]
        self.best_epoch = state["best_epoch"]
        self.is_best = state["is_best"]
        self.last_epoch = state["last_epoch"]
