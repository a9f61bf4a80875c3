"""The optimiser, the schedule of its learning rate, and early stopping."""

import math
from typing import Any, assert_never

from torch import nn, optim

from ctc_ray.config.training import OptimizerConfig, ScheduleConfig

_MIN_DELTA = 1e-4  # plateau: a smaller decrease of the loss is none; as in the original
_COOLDOWN = 1  # plateau: epochs after a reduction that do not count as waiting; as in Keras


def make_optimizer(model: nn.Module, config: OptimizerConfig) -> optim.Optimizer:
    """An optimiser of all trainable weights; biases and norms have no weight decay."""
    weights = [w for w in model.parameters() if w.requires_grad]
    groups = [
        {"params": [w for w in weights if w.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [w for w in weights if w.ndim <= 1], "weight_decay": 0.0},
    ]
    match config.name:
        case "sgd":
            return optim.SGD(groups, lr=config.learning_rate, momentum=config.momentum)
        case "adamw":
            return optim.AdamW(groups, lr=config.learning_rate)
        case _:
            assert_never(config.name)


def set_learning_rate(optimizer: optim.Optimizer, learning_rate: float) -> None:
    """Set the learning rate of all weights."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate


class LearningRateSchedule:
    """The learning rate of the next epoch (`value`); call `step` after every epoch.

    cosine rises linearly for `warmup_epochs` and then falls along half a cosine wave. plateau
    multiplies by `factor` after `patience` epochs without a smaller loss. Neither falls below
    `min_learning_rate`.
    """

    def __init__(self, config: ScheduleConfig, *, learning_rate: float, max_epochs: int) -> None:
        self._config = config
        self._first = learning_rate
        self._max_epochs = max_epochs
        self._best = math.inf
        self._n_waited = 0
        self._n_cooling = 0
        self.value = self._cosine(0) if config.name == "cosine" else learning_rate

    def step(self, epoch: int, val_loss: float) -> None:
        """Record the validation loss of an epoch.

        Args:
            epoch: number of the epoch, from 0.
            val_loss: its validation loss; may be NaN.
        """
        match self._config.name:
            case "plateau":
                self._plateau(val_loss)
            case "cosine":
                self.value = self._cosine(epoch + 1)
            case "constant":
                pass
            case _:
                assert_never(self._config.name)

    def _cosine(self, epoch: int) -> float:
        n_warmup = self._config.warmup_epochs
        if epoch < n_warmup:
            return self._first * (epoch + 1) / n_warmup
        done = (epoch - n_warmup) / max(1, self._max_epochs - n_warmup)
        value = self._first * (1 + math.cos(math.pi * min(1.0, done))) / 2
        return max(value, self._smallest)

    def _plateau(self, val_loss: float) -> None:
        if self._n_cooling:
            self._n_cooling -= 1
            self._n_waited = 0
        if val_loss < self._best - _MIN_DELTA:
            self._best, self._n_waited = val_loss, 0
        elif not self._n_cooling:
            self._n_waited += 1
            if self._n_waited >= self._config.patience:
                self.value = max(self.value * self._config.factor, self._smallest)
                self._n_cooling, self._n_waited = _COOLDOWN, 0

    @property
    def _smallest(self) -> float:
        # the first rate is the user's choice: no schedule raises it
        return min(self._config.min_learning_rate, self._first)

    def state_dict(self) -> dict[str, Any]:
        """The state that a later process needs to resume."""
        return {
            "value": self.value,
            "best": self._best,
            "n_waited": self._n_waited,
            "n_cooling": self._n_cooling,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume from a state that `state_dict` returned."""
        self.value = state["value"]
        self._best = state["best"]
        self._n_waited = state["n_waited"]
        self._n_cooling = state["n_cooling"]


class EarlyStopping:
    """Stops when the validation loss has not become smaller for `patience` epochs.

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
        self.is_best = False
        self.should_stop = False

    def step(self, epoch: int, val_loss: float) -> None:
        """Record the validation loss of an epoch.

        Args:
            epoch: number of the epoch, from 0.
            val_loss: its validation loss; may be NaN.
        """
        self.is_best = val_loss < self.best
        if self.is_best:
            self.best, self.best_epoch = val_loss, epoch
        self.should_stop = 0 < self._patience <= epoch - self.best_epoch

    def state_dict(self) -> dict[str, Any]:
        """The state that a later process needs to resume."""
        return {
            "best": self.best,
            "best_epoch": self.best_epoch,
            "is_best": self.is_best,
            "should_stop": self.should_stop,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume from a state that `state_dict` returned."""
        self.best = state["best"]
        self.best_epoch = state["best_epoch"]
        self.is_best = state["is_best"]
        self.should_stop = state["should_stop"]
