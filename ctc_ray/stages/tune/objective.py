"""What compares the trials of a search: one metric, or the mean of one over heads and folds."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, assert_never

from ctc_ray.config.choices import Direction
from ctc_ray.config.search import Dimension, train_config
from ctc_ray.config.training import MONITORED, direction_of
from ctc_ray.config.tuning import TuneConfig
from ctc_ray.errors import ConfigError


@dataclass(frozen=True)
class Objective:
    """A metric of the validation split, or the weighted mean of several."""

    name: str
    """As asked for."""
    weights: Mapping[str, float]
    """Column of a training's history -> its weight in the mean."""
    is_pareto: bool
    """Whether each column is an objective of its own, too."""
    folds: tuple[str, ...] = ()
    """Splits that each measure a model of a trial; metrics are means over them. None: a trial is
    one model, measured on the validation split."""

    @property
    def step(self) -> Literal["epoch", "fold"]:
        """After what trials are compared."""
        return "fold" if self.folds else "epoch"

    @property
    def direction(self) -> Direction:
        """Whether the smallest or the largest value is best."""
        return direction_of(self.name)

    @property
    def best(self) -> Callable[..., Any]:
        """The function that finds the best of several values."""
        match self.direction:
            case "min":
                return min
            case "max":
                return max
            case _:
                assert_never(self.direction)

    def value(self, metrics: Mapping[str, Any]) -> float:
        """The mean; NaN where a column is missing."""
        total = sum(self.weights.values())
        found = [w * float(metrics.get(n, float("nan"))) for n, w in self.weights.items()]
        return sum(found) / total

    def values(self, metrics: Mapping[str, Any]) -> list[float]:
        """One per column, in their order."""
        return [float(metrics.get(name, float("nan"))) for name in self.weights]

    def told(self, metrics: Mapping[str, Any]) -> list[float]:
        """What a search learns from: one value per objective."""
        return self.values(metrics) if self.is_pareto else [self.value(metrics)]

    def front(self, trials: Sequence[Sequence[float]]) -> list[bool]:
        """Whether no other trial is as good in every column and better in one.

        Args:
            trials: the values of each, as `values` gives them.
        """
        sign = 1 if self.direction == "max" else -1
        signed = [[sign * value for value in one] for one in trials]
        return [not any(_dominates(other, one) for other in signed) for one in signed]


def _dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    pairs = list(zip(one, other, strict=True))
    return all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)


def objective_of(config: TuneConfig, dimensions: Mapping[str, Dimension]) -> Objective:
    """What the configuration asks for.

    Raises:
        ConfigError: there is no such metric, it does not compare trials, or what is asked for is
            of a metric without a head.
    """
    base = train_config(config, {})
    weighted = [name for name in dimensions if name.startswith("loss_weights")]
    name = config.metric or ("val_macro_f1" if weighted and base.monitor == "val_loss" else None)
    name = name or base.monitor
    over_heads = {f"val_{metric}" for metric in MONITORED if metric != "loss"}
    known = ["val_loss", *(f"val_{metric}_{head}" for head in base.heads for metric in MONITORED)]
    if name not in {*known, *over_heads}:
        raise ConfigError(
            f"metric: {name!r} is not known; metrics are {', '.join([*known, *sorted(over_heads)])}"
        )
    if name == "val_loss" and weighted:
        raise ConfigError(
            f"metric: val_loss is weighted by {', '.join(weighted)} of the search space, so it "
            f"does not compare trials; take another, e.g. val_macro_f1_{base.heads[0]}"
        )
    names_of_columns = {f"{name}_{head}" for head in base.heads} | {f"{name}_std"}
    if both := sorted(names_of_columns & {f"{name}_{fold}" for fold in config.folds}):
        raise ConfigError(f"folds: {both[0]} would be the name of two columns; rename the split")
    if name not in over_heads:
        if config.pareto or config.head_weights:
            raise ConfigError(
                f"metric: {name} is one number; --pareto and --head-weights need a metric without "
                "a head, e.g. val_macro_f1"
            )
        return Objective(name, {name: 1.0}, is_pareto=False, folds=config.folds)
    if unknown := sorted(set(config.head_weights) - set(base.heads)):
        raise ConfigError(
            f"head_weights names {', '.join(unknown)}; heads are {', '.join(base.heads)}"
        )
    weights = {f"{name}_{head}": config.head_weights.get(head, 1.0) for head in base.heads}
    if min(weights.values()) < 0 or not sum(weights.values()):
        raise ConfigError("head_weights must not be negative, and not all 0")
    return Objective(name, weights, config.pareto, config.folds)
