"""A search space in YAML: dotted field -> choice, grid, uniform, loguniform or randint.

space:
  optimizer.learning_rate: {loguniform: [0.001, 0.1]}
  augment.colour: {choice: [none, little, full_randomized]}
  loss_weights.count: {uniform: [0.1, 1]}
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, assert_never, get_args

from ctc_ray.config.base import build, merge
from ctc_ray.config.choices import DimensionKind
from ctc_ray.config.training import TrainConfig
from ctc_ray.config.tuning import TuneConfig
from ctc_ray.errors import UsageError

_KINDS: tuple[DimensionKind, ...] = get_args(DimensionKind)


@dataclass(frozen=True)
class Dimension:
    """What one field may be: the options of choice and grid, or [low, high) of the others."""

    kind: DimensionKind
    values: tuple[Any, ...]

    def extremes(self) -> tuple[Any, ...]:
        """Values that are valid only if the whole dimension is."""
        match self.kind:
            case "randint":
                return self.values[0], self.values[1] - 1
            case "choice" | "grid" | "uniform" | "loguniform":
                return self.values
            case _:
                assert_never(self.kind)


def parse_space(config: TuneConfig) -> dict[str, Dimension]:
    """The dimensions of the search, each tried against the train configuration.

    Raises:
        UsageError: names the field, and what is wrong with it or its values.
    """
    dimensions = {
        name: _parse(name, value) for name, value in _leaves(config.space) if value is not None
    }
    train_config(config, {})
    for name, dimension in dimensions.items():
        for value in dimension.extremes():
            train_config(config, {name: value})
    return dimensions


def train_config(
    config: TuneConfig, sample: Mapping[str, Any], *, output_uri: str = "trial"
) -> TrainConfig:
    """The train configuration of one trial.

    Args:
        sample: dotted field -> value.

    Raises:
        UsageError: it is not valid.
    """
    values = merge(config.train, {"output_uri": output_uri})
    for name, value in sample.items():
        values = merge(values, nested(name, value))
    shown = ", ".join(f"{name}={value!r}" for name, value in sample.items())
    return build(TrainConfig, values, where=f"space: {shown}" if sample else "train")


def nested(name: str, value: Any) -> dict[str, Any]:
    """A dotted field as mappings in mappings."""
    first, _, rest = name.partition(".")
    return {first: nested(rest, value) if rest else value}


def _leaves(space: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in space.items():
        if isinstance(value, Mapping) and not set(value) & set(_KINDS):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _parse(name: str, value: Any) -> Dimension:
    if not isinstance(value, Mapping) or len(value) != 1:
        raise UsageError(f"space.{name}: expected one of {', '.join(_KINDS)}, found {value!r}")
    ((kind, values),) = value.items()
    if not isinstance(values, Sequence) or isinstance(values, str) or not values:
        raise UsageError(f"space.{name}.{kind}: expected a list, found {values!r}")
    dimension = Dimension(kind, tuple(values))
    match dimension.kind:
        case "choice" | "grid":
            pass
        case "uniform" | "loguniform" | "randint":
            _check_range(f"space.{name}.{kind}", dimension.kind, values)
        case _:
            assert_never(dimension.kind)
    return dimension


def _check_range(where: str, kind: DimensionKind, values: Sequence[Any]) -> None:
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    if len(values) != 2 or not numbers or not values[0] < values[1]:
        raise UsageError(f"{where}: expected [low, high] with low < high, found {list(values)}")
    if kind == "loguniform" and values[0] <= 0:
        raise UsageError(f"{where}: low must be above 0, found {values[0]}")
    if kind == "randint" and not all(isinstance(v, int) for v in values):
        raise UsageError(f"{where}: expected whole numbers, found {list(values)}")
