"""A search space in YAML: dotted field -> how its values are drawn.

space:
  optimizer.name: {choice: [adamw, sgd]}
  optimizer.learning_rate: {loguniform: [0.001, 0.1]}
  optimizer.momentum: {uniform: [0.5, 0.99], when: {optimizer.name: sgd}}
  augment.contrast: {same_as: augment.brightness}
  augment.hue: {same_as: augment.brightness, times: 0.1}
"""

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, assert_never, get_args

from ctc_ray.columns.seeds import stable_hash
from ctc_ray.config.base import build, merge
from ctc_ray.config.choices import DimensionKind
from ctc_ray.config.training import TrainConfig
from ctc_ray.config.tuning import TuneConfig
from ctc_ray.errors import UsageError

_KINDS: tuple[DimensionKind, ...] = get_args(DimensionKind)
_WHEN, _TIMES = "when", "times"
_LOSS_WEIGHTS = "loss_weights."


@dataclass(frozen=True)
class Dimension:
    """What one field may be."""

    kind: DimensionKind
    values: tuple[Any, ...]
    """The options of choice and grid; the field of same_as; [low, high) of the others."""
    when: Mapping[str, Any] = field(default_factory=dict)
    """Other fields -> the value that each must have; otherwise this field has its default."""
    times: float = 1.0
    """What the value of the field of same_as is multiplied by."""

    def tied(self, sample: Mapping[str, Any]) -> Any:
        """The value of same_as, in a sample that has its field."""
        value = sample[self.values[0]]
        return value if self.times == 1 else value * self.times

    def extremes(self) -> tuple[Any, ...]:
        """Values that are valid only if the whole dimension is."""
        match self.kind:
            case "randint":
                return self.values[0], self.values[1] - 1
            case "choice" | "grid" | "uniform" | "loguniform":
                return self.values
            case "same_as":
                return ()
            case _:
                assert_never(self.kind)

    @property
    def needs(self) -> set[str]:
        """The fields that must have their values before this one."""
        return {*self.when, *(self.values if self.kind == "same_as" else ())}


def parse_space(config: TuneConfig) -> dict[str, Dimension]:
    """The dimensions of the search, each tried against the train configuration.

    Returns:
        Each after those that it depends on.

    Raises:
        UsageError: names the field, and what is wrong with it or its values.
    """
    leaves = {name: value for name, value in _leaves(config.space) if value is not None}
    if not leaves:
        raise UsageError("space: expected settings to search, or --preset")
    dimensions = _in_order({name: _parse(name, value) for name, value in leaves.items()})
    train_config(config, {})
    for name, dimension in dimensions.items():
        given = dict(dimension.when)
        for value in dimension.extremes():
            train_config(config, {**given, name: value})
        for other in dimension.values if dimension.kind == "same_as" else ():
            for value in dimensions[other].extremes():
                sample = {**given, **dimensions[other].when, other: value}
                train_config(config, {**sample, name: dimension.tied(sample)})
    return dimensions


def n_planned(dimensions: Mapping[str, Dimension], trials: int) -> int:
    """Trials of a whole search: as many as asked for, times those of the grid."""
    return trials * _n_grid(dimensions)


def draw(dimensions: Mapping[str, Dimension], *, seed: int, number: int) -> dict[str, Any]:
    """The sample of one trial, which depends on nothing but the arguments.

    Args:
        dimensions: in the order of `parse_space`.
        number: of the trial, from 0; each run of `_n_grid` numbers covers the grid once.
    """
    sample: dict[str, Any] = {}
    left = number % _n_grid(dimensions)
    for name, dimension in dimensions.items():
        index = left
        if dimension.kind == "grid":
            left, index = divmod(left, len(dimension.values))
        if is_searched(dimension, sample):
            sample[name] = _draw(dimension, f"{name}/{number}", seed, index, sample)
    return sample


def base_sample(config: TuneConfig, dimensions: Mapping[str, Dimension]) -> dict[str, Any] | None:
    """The train configuration as it is, as a sample; None: it is not in the space, or on a grid."""
    base = train_config(config, {}).model_dump(mode="json")
    sample: dict[str, Any] = {}
    for name, dimension in dimensions.items():
        if is_searched(dimension, sample):
            value = _value_of(base, name)
            if not _holds(dimension, value, sample):
                return None
            sample[name] = value
    return sample


def _value_of(base: Any, name: str) -> Any:
    if name.startswith(_LOSS_WEIGHTS):
        return base["loss_weights"].get(name.removeprefix(_LOSS_WEIGHTS), 1.0)
    for part in name.split("."):
        base = base[part]
    return base


def _holds(dimension: Dimension, value: Any, sample: Mapping[str, Any]) -> bool:
    """Whether the dimension may have this value."""
    values = dimension.values
    is_number = _is_number(value)
    match dimension.kind:
        case "choice":
            return value in values
        case "grid":
            return False
        case "uniform" | "loguniform":
            return is_number and values[0] <= value <= values[1]
        case "randint":
            return is_number and value in range(*values)
        case "same_as":
            tied = dimension.tied(sample)
            return bool(value == tied) or (is_number and math.isclose(value, tied))
        case _:
            assert_never(dimension.kind)


def is_searched(dimension: Dimension, sample: Mapping[str, Any]) -> bool:
    """Whether the fields that the dimension depends on have the values that it asks for."""
    if dimension.kind == "same_as" and dimension.values[0] not in sample:
        return False
    return all(sample.get(name) == value for name, value in dimension.when.items())


def _draw(dimension: Dimension, name: str, seed: int, index: int, sample: Mapping[str, Any]) -> Any:
    rng = random.Random(stable_hash(name, seed, 0))
    values = dimension.values
    match dimension.kind:
        case "choice":
            return values[rng.randrange(len(values))]
        case "grid":
            return values[index]
        case "uniform":
            return rng.uniform(*values)
        case "loguniform":
            return math.exp(rng.uniform(math.log(values[0]), math.log(values[1])))
        case "randint":
            return rng.randrange(*values)
        case "same_as":
            return dimension.tied(sample)
        case _:
            assert_never(dimension.kind)


def _n_grid(dimensions: Mapping[str, Dimension]) -> int:
    return math.prod(len(d.values) for d in dimensions.values() if d.kind == "grid")


def _in_order(dimensions: Mapping[str, Dimension]) -> dict[str, Dimension]:
    """Each dimension after those that it depends on.

    Raises:
        UsageError: it depends on a field that is not searched, or on itself.
    """
    for name, dimension in dimensions.items():
        if unknown := sorted(dimension.needs - set(dimensions)):
            raise UsageError(
                f"space.{name}: depends on {unknown[0]}, which is not searched; "
                f"searched are {', '.join(dimensions)}"
            )
        others = dimension.values if dimension.times != 1 else ()
        if words := [one for other in others for one in _words(dimensions[other])]:
            raise UsageError(f"space.{name}.times: {words[0]!r} is no number to multiply")
    ordered: dict[str, Dimension] = {}
    while len(ordered) < len(dimensions):
        ready = {
            n: d for n, d in dimensions.items() if n not in ordered and d.needs <= set(ordered)
        }
        if not ready:
            left = ", ".join(name for name in dimensions if name not in ordered)
            raise UsageError(f"space: {left}: each depends on another one")
        ordered |= ready
    return ordered


def _words(dimension: Dimension) -> list[Any]:
    """The values that cannot be multiplied."""
    return [one for one in dimension.extremes() if not _is_number(one)]


def train_config(
    config: TuneConfig,
    sample: Mapping[str, Any],
    *,
    output_uri: str = "trial",
    parent_uri: str | None = None,
    fold: str | None = None,
) -> TrainConfig:
    """The train configuration of one trial.

    Args:
        sample: dotted field -> value.
        parent_uri: the model that the trial goes on from. What happens once at the beginning of a
            training, as warming up, does not happen again.
        fold: of a search with folds: the split that measures; the first one if it is not given.

    Raises:
        UsageError: it is not valid.
    """
    values = merge(config.train, {"output_uri": output_uri})
    if config.folds:
        measured = config.folds[0] if fold is None else fold
        learnt = [name for name in config.folds if name != measured]
        values = merge(values, {"train_splits": learnt, "val_splits": [measured]})
    for name, value in sample.items():
        values = merge(values, nested(name, value))
    shown = ", ".join(f"{name}={value!r}" for name, value in sample.items())
    where = f"space: {shown}" if sample else "train"
    made = build(TrainConfig, values, where=where)
    if parent_uri is None:
        return made
    going_on: dict[str, Any] = {
        "model": {"pretrained": parent_uri, "freeze_epochs": 0},
        "schedule": {"warmup_epochs": 0},
        "optimizer": {"backbone_rate": made.backbone_rate},
    }
    return build(TrainConfig, merge(values, going_on), where=where)


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
    if not isinstance(value, Mapping) or len(set(value) - {_WHEN, _TIMES}) != 1:
        raise UsageError(f"space.{name}: expected one of {', '.join(_KINDS)}, found {value!r}")
    ((kind, values),) = ((k, v) for k, v in value.items() if k not in (_WHEN, _TIMES))
    times = value.get(_TIMES, 1.0)
    if not _is_number(times) or (_TIMES in value and kind != "same_as"):
        raise UsageError(f"space.{name}.times: expected a number beside same_as, found {times!r}")
    when = value.get(_WHEN, {})
    if not isinstance(when, Mapping):
        raise UsageError(f"space.{name}.when: expected {{setting: value}}, found {when!r}")
    if when and kind == "grid":
        raise UsageError(f"space.{name}: a grid has no `when`; take choice")
    return Dimension(kind, _checked(f"space.{name}.{kind}", kind, values), dict(when), times)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _checked(where: str, kind: DimensionKind, values: Any) -> tuple[Any, ...]:
    """The values of a dimension.

    Raises:
        UsageError: they do not fit its kind.
    """
    match kind:
        case "same_as":
            if not isinstance(values, str):
                raise UsageError(f"{where}: expected a setting, found {values!r}")
            return (values,)
        case "choice" | "grid":
            _require_list(where, values)
        case "uniform" | "loguniform" | "randint":
            _require_list(where, values)
            _check_range(where, kind, values)
        case _:
            assert_never(kind)
    return tuple(values)


def _require_list(where: str, values: Any) -> None:
    if not isinstance(values, Sequence) or isinstance(values, str) or not values:
        raise UsageError(f"{where}: expected a list, found {values!r}")


def _check_range(where: str, kind: DimensionKind, values: Sequence[Any]) -> None:
    numbers = all(map(_is_number, values))
    if len(values) != 2 or not numbers or not values[0] < values[1]:
        raise UsageError(f"{where}: expected [low, high] with low < high, found {list(values)}")
    if kind == "loguniform" and values[0] <= 0:
        raise UsageError(f"{where}: low must be above 0, found {values[0]}")
    if kind == "randint" and not all(isinstance(v, int) for v in values):
        raise UsageError(f"{where}: expected whole numbers, found {list(values)}")
