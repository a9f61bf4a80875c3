"""Which sample the next trial takes, and which trials end early: Ray Tune's parts, and Optuna's.

A search that is resumed is a new one for Ray Tune: it gets the trials that are left, and these
classes get what the ended ones have found.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, assert_never

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial
from ray.tune.schedulers import (
    ASHAScheduler,
    FIFOScheduler,
    MedianStoppingRule,
    TrialScheduler,
)
from ray.tune.search import Searcher

from ctc_ray.config.search import (
    Dimension,
    base_sample,
    draw,
    is_searched,
    n_planned,
    train_config,
)
from ctc_ray.config.training import TrainConfig
from ctc_ray.config.tuning import TuneConfig
from ctc_ray.errors import ConfigError
from ctc_ray.stages.tune.objective import Objective
from ctc_ray.stages.tune.population import Population
from ctc_ray.stages.tune.records import EndedTrial
from ctc_ray.stages.tune.samples import RandomSamples, Samples
from ctc_ray.stages.tune.trial import EPOCH, FAILED, FOLD, OBJECTIVE, with_objective

_OF_NETWORK = ("heads", "mapping_uri", "unmapped", "image_choice")
_STARTUP_TRIALS = 8  # of TPE, at random; as many as Optuna's default of 10 would be half a search


@dataclass
class Planned(Searcher):  # type: ignore[misc]  # Ray is untyped here
    """Gives Ray Tune the trials that are left, each with its number and its sample."""

    numbers: list[int]
    """Numbers of the trials that are left, ascending."""
    samples: Samples
    is_spent: Callable[[], bool] = lambda: False
    """Whether no further trial may begin."""

    def __post_init__(self) -> None:
        super().__init__()
        self._running: set[str] = set()

    def suggest(self, trial_id: str) -> Any:
        """The next trial; None while it waits for others to end.

        If none of these runs, one was lost with its process, and the search cannot go on.
        """
        if not self.numbers or self.is_spent():
            return Searcher.FINISHED
        if not self.samples.is_ready(self.numbers[0]):
            return None if self._running else Searcher.FINISHED
        number = self.numbers.pop(0)
        self._running.add(trial_id)
        return {
            "number": number,
            "sample": dict(self.samples.sample(number)),
            "parent": self.samples.parent(number),
        }

    def on_trial_complete(
        self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False
    ) -> None:
        """Called by Ray Tune."""
        self._running.discard(trial_id)

    def save(self, checkpoint_path: str) -> None:
        """Called by Ray Tune; a search is resumed from its records instead."""

    def restore(self, checkpoint_path: str) -> None:
        """Never called: see `save`."""


class OptunaStudy(Samples):
    """Optuna's TPE over the dimensions of a space."""

    def __init__(
        self,
        dimensions: Mapping[str, Dimension],
        objective: Objective,
        ended: Sequence[EndedTrial],
        *,
        metrics_of: Callable[[int], Mapping[str, float]],
        seed: int,
        first: Mapping[str, Any] | None = None,
    ) -> None:
        """Learn from the trials that have ended.

        Args:
            metrics_of: the metrics of the model of a trial that has ended; none if it has none.
            first: the sample of trial 0; None: Optuna's.
        """
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._dimensions, self._objective, self._metrics_of = dimensions, objective, metrics_of
        n_objectives = len(objective.weights) if objective.is_pareto else 1
        direction = (
            StudyDirection.MINIMIZE if objective.direction == "min" else StudyDirection.MAXIMIZE
        )
        # a resumed study draws other random samples than it has drawn already
        sampler = optuna.samplers.TPESampler(
            seed=seed + len(ended), n_startup_trials=_STARTUP_TRIALS
        )
        self._study = optuna.create_study(directions=[direction] * n_objectives, sampler=sampler)
        self._asked: dict[int, optuna.Trial] = {}
        self._first = first
        for trial in ended:
            self._study.add_trial(self._frozen(trial))

    def sample(self, number: int) -> dict[str, Any]:
        """The sample of the next trial."""
        if number == 0 and self._first is not None:
            self._study.enqueue_trial(self._params(self._first))
        trial = self._asked[number] = self._study.ask()
        sample: dict[str, Any] = {}
        for name, dimension in self._dimensions.items():
            if not is_searched(dimension, sample):
                continue
            if dimension.kind == "same_as":
                sample[name] = dimension.tied(sample)
            else:
                sample[name] = _suggested(trial, name, dimension)
        return sample

    def tell(self, trial: EndedTrial) -> None:
        """Learn from a trial of `sample` that has ended."""
        asked = self._asked.pop(trial.number, None)
        if asked is None:
            return
        values = self._told(trial)
        state = TrialState.FAIL if values is None else TrialState.COMPLETE
        self._study.tell(asked, values, state=state)

    def _told(self, trial: EndedTrial) -> list[float] | None:
        """The objectives; None if one is not a number."""
        values = self._objective.told(trial.found(self._metrics_of(trial.number)))
        return values if all(map(math.isfinite, values)) else None

    def _params(self, sample: Mapping[str, Any]) -> dict[str, Any]:
        """A sample as Optuna knows it."""
        return {
            name: _to_optuna(dimension, sample[name])
            for name, dimension in self._dimensions.items()
            if name in sample and dimension.kind != "same_as"
        }

    def _frozen(self, trial: EndedTrial) -> FrozenTrial:
        params = self._params(trial.sample)
        given = {name: self._dimensions[name] for name in params}
        values = self._told(trial)
        return create_trial(
            params=params,
            distributions={n: _distribution(n, d) for n, d in given.items()},
            values=values,
            state=TrialState.FAIL if values is None else TrialState.COMPLETE,
        )


def _distribution(name: str, dimension: Dimension) -> BaseDistribution:
    values = dimension.values
    match dimension.kind:
        case "choice":
            return CategoricalDistribution(list(range(len(values))))
        case "uniform":
            return FloatDistribution(values[0], values[1])
        case "loguniform":
            return FloatDistribution(values[0], values[1], log=True)
        case "randint":
            return IntDistribution(values[0], values[1] - 1)
        case "grid":
            raise ConfigError(f"space.{name}: --method optuna has no grid; take choice")
        case "same_as":
            raise ValueError(name)
        case _:
            assert_never(dimension.kind)


def _suggested(trial: optuna.Trial, name: str, dimension: Dimension) -> Any:
    """The value that Optuna proposes for a dimension."""
    match _distribution(name, dimension):
        case CategoricalDistribution(choices=indices):
            return dimension.values[int(trial.suggest_categorical(name, indices))]  # type: ignore[arg-type]  # its stub has only one type of choices
        case IntDistribution(low=low, high=high):
            return trial.suggest_int(name, low, high)
        case FloatDistribution(low=least, high=most, log=log):
            return trial.suggest_float(name, least, most, log=log)
        case other:
            raise TypeError(other)


def _to_optuna(dimension: Dimension, value: Any) -> Any:
    return dimension.values.index(value) if dimension.kind == "choice" else value


def require_searchable(config: TuneConfig, dimensions: Mapping[str, Dimension]) -> None:
    """Check that the method can search the space, and that each sample that is known is valid.

    Raises:
        ConfigError: it cannot, or a sample is not.
    """
    match config.method:
        case "random":
            for number in range(n_planned(dimensions, config.trials)):
                train_config(config, draw(dimensions, seed=config.seed, number=number))
        case "optuna":
            for name, dimension in dimensions.items():
                if dimension.kind != "same_as":
                    _distribution(name, dimension)
        case "pbt":
            _require_heritable(train_config(config, {}), dimensions)
        case _:
            assert_never(config.method)


def _require_heritable(base: TrainConfig, dimensions: Mapping[str, Dimension]) -> None:
    """Check that a trial can go on from any other.

    Raises:
        ConfigError: it cannot.
    """
    for name, dimension in dimensions.items():
        if dimension.kind == "grid":
            raise ConfigError(f"space.{name}: --method pbt has no grid; take choice")
        if name.startswith("model.") or name in _OF_NETWORK:
            raise ConfigError(
                f"space.{name}: trials of --method pbt go on from one another's weights, so "
                "their networks are the same; take --method random or optuna"
            )
    if base.model.wise_ft < 1:
        raise ConfigError(
            "train.model.wise_ft: --method pbt would mix each generation with the one before; "
            "leave it out"
        )


def samples_of(
    config: TuneConfig,
    dimensions: Mapping[str, Dimension],
    objective: Objective,
    ended: Mapping[int, EndedTrial],
    metrics_of: Callable[[int], Mapping[str, Any]],
) -> Samples:
    """Where the samples come from.

    Args:
        ended: the trials that have ended; later ones are in it as soon as they have.
        metrics_of: the metrics of the model of a trial that is done, named as in a history.
    """
    first = base_sample(config, dimensions) if config.base_first else None
    at_random = RandomSamples(dimensions, config.seed, first)
    match config.method:
        case "random":
            return at_random
        case "optuna":
            return OptunaStudy(
                dimensions,
                objective,
                list(ended.values()),
                metrics_of=metrics_of,
                seed=config.seed,
                first=first,
            )
        case "pbt":
            return Population(
                dimensions,
                objective,
                ended,
                value_of=lambda number: objective.value(metrics_of(number)),
                size=config.population,
                first=at_random,
            )
        case _:
            assert_never(config.method)


@dataclass(frozen=True)
class _Ended:
    """A trial of an earlier run of the search, as Ray Tune's schedulers know one."""

    trial_id: str


def scheduler_of(
    config: TuneConfig, objective: Objective, n_steps: int, ended: Sequence[EndedTrial]
) -> TrialScheduler:
    """What ends trials early, and knows what the ended ones have reported.

    Args:
        n_steps: epochs of a trial, or its folds.
    """
    grace = min(config.grace_epochs, n_steps)
    common: dict[str, Any] = {"metric": OBJECTIVE, "mode": objective.direction}
    rows = {
        _Ended(f"ended-{one.number}"): [with_objective(row, objective) for row in one.history]
        for one in ended
    }
    match config.rule:
        case "none":
            return FIFOScheduler()
        case "asha":
            asha = ASHAScheduler(
                time_attr=EPOCH,
                max_t=n_steps + 1,  # what runs to its end ends by itself, with its model
                grace_period=grace,
                reduction_factor=config.reduction_factor,
                **common,
            )
            for trial, reports in rows.items():
                asha.on_trial_add(None, trial)
                for row in reports:
                    asha.on_trial_result(None, trial, row)
            return asha
        case "median":
            median = _Median(time_attr=EPOCH, grace_period=grace, min_time_slice=math.inf, **common)
            for trial, reports in rows.items():
                if reports:
                    median.add(trial, reports)
            return median
        case _:
            assert_never(config.stopping)


class _Median(MedianStoppingRule):  # type: ignore[misc]  # Ray is untyped here
    """The median rule, with what trials of an earlier run have reported."""

    def add(self, trial: Any, reports: Sequence[Mapping[str, Any]]) -> None:
        """What a trial has reported, epoch by epoch."""
        self._results[trial].extend(reports)

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: Any) -> None:
        """Called by Ray Tune; a trial that has failed, or is within a fold, has none."""
        if FAILED not in result and FOLD not in result:
            super().on_trial_complete(tune_controller, trial, result)
