"""What a trial does, in a process of its own: `ctc train` on its sample of the search space.

A process does one trial after the other. An error of the code or the data ends the trial, and is
reported as its reason; only a trial whose process is gone is begun again, from its checkpoint.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import ray.tune
from ray.exceptions import RayError
from ray.tune.integration.ray_train import TuneReportCallback

from ctc_ray.config.search import train_config
from ctc_ray.config.tuning import TuneConfig
from ctc_ray.errors import CtcError
from ctc_ray.runs.claim import end_claims_below
from ctc_ray.stages.cluster.connect import connect
from ctc_ray.stages.train import stage as train
from ctc_ray.stages.train.tracking import Nested
from ctc_ray.stages.tune.folds import EPOCHS, model_uris, rows_after_folds
from ctc_ray.stages.tune.objective import Objective
from ctc_ray.stages.tune.records import config_of, model_uri, name_of

FAILED = "failed"
"""Key of a report: why the trial has no model."""
OBJECTIVE = "objective"
"""Key of a report: what compares trials after as many epochs."""
EPOCH = "epoch"
"""Key of a report: after how many epochs, or with folds after how many folds."""
FOLD = "fold"
"""Key of a report within a fold, which compares no trials: the fold."""
CPU_OF_WAITING = 0.25
"""CPUs of a process that waits for the workers of its trial."""


def trial_function(
    config: TuneConfig, objective: Objective, *, is_here: bool, parent_run: str | None = None
) -> Callable[[Mapping[str, Any]], None]:
    """The function that Ray Tune calls with a trial's number and sample.

    Args:
        is_here: whether the training runs in the trial's own process, not in workers of Ray Train.
        parent_run: the run of the search on a tracking server.
    """
    n_trainings = min(config.concurrent_trials, config.trials)

    def trial(task: Mapping[str, Any]) -> None:
        output_uri = model_uri(config.output_uri, task["number"])
        tracked = Nested(parent_run, name_of(task["number"]), task["sample"])
        end_claims_below(output_uri)  # of a node that is lost: Ray Tune runs a trial once at a time
        connect()
        try:
            if config.folds:
                one = train.Trial(n_trainings)
                _train_folds(config, objective, task, one, tracked, is_here=is_here)
                return
            own = config_of(config, task["sample"], task["number"], parent=task["parent"])
            as_trial = _as_trial(objective, n_trainings=n_trainings, is_here=is_here)
            train.run(own, trial=replace(as_trial, tracked=tracked))
        except CtcError as error:
            if isinstance(error.__cause__, RayError):
                raise  # its workers are lost
            ray.tune.report({FAILED: str(error), **with_objective({}, objective)})
        except Exception as error:  # noqa: BLE001  # a mistake in one trial does not end the search
            reason = f"{type(error).__name__}: {error}"
            ray.tune.report({FAILED: reason, **with_objective({}, objective)})

    return trial


def _train_folds(
    config: TuneConfig,
    objective: Objective,
    task: Mapping[str, Any],
    trial: train.Trial,
    tracked: Nested,
    *,
    is_here: bool,
) -> None:
    """One training after the other; those that are finished already are left as they are.

    Raises:
        CtcError: a training cannot be done; the message names the fold.
    """

    def report_within(metrics: Mapping[str, float], _: bool) -> None:
        values = {name: metrics[name] for name in objective.weights if name in metrics}
        ray.tune.report({FOLD: fold, EPOCHS: metrics[EPOCH], **values})

    trial = replace(trial, report=report_within if is_here else None)
    uris = model_uris(config.output_uri, task["number"], config.folds)
    for n, (fold, uri) in enumerate(zip(config.folds, uris, strict=True), start=1):
        own = train_config(config, task["sample"], output_uri=uri, fold=fold)
        of_fold = replace(tracked, name=f"{tracked.name}/{fold}")
        try:
            train.run(own, trial=replace(trial, tracked=of_fold))
        except CtcError as error:
            if isinstance(error.__cause__, RayError):
                raise
            raise CtcError(f"{fold}: {error}") from error
        if n < len(config.folds):
            rows = rows_after_folds(config.output_uri, task["number"], config.folds[:n])
            ray.tune.report(with_objective(rows[-1], objective))


def with_objective(metrics: Mapping[str, float], objective: Objective) -> dict[str, float]:
    """The metrics of an epoch, and what compares trials; a value that is none is behind all."""
    value = objective.value(metrics)
    worst = math.inf if objective.direction == "min" else -math.inf
    return {**metrics, OBJECTIVE: value if math.isfinite(value) else worst}


class _ReportOfWorkers(TuneReportCallback):  # type: ignore[misc]  # Ray is untyped here
    """Reports each epoch but the last, as the first worker of Ray Train has."""

    def __init__(self, objective: Objective) -> None:
        super().__init__()
        self._objective = objective

    def after_report(self, run_context: Any, metrics: Any, checkpoint: Any) -> None:
        """Called by Ray Train when every worker has reported."""
        if not metrics[0][train.IS_LAST]:
            first = with_objective(metrics[0], self._objective)
            super().after_report(run_context, [first], checkpoint)


def _as_trial(objective: Objective, *, n_trainings: int, is_here: bool) -> train.Trial:
    def report_unless_last(metrics: Mapping[str, float], is_last: bool) -> None:
        """A trial whose training has ended ends by itself, with its model."""
        if not is_last:
            ray.tune.report(with_objective(metrics, objective))

    if is_here:
        return train.Trial(n_trainings, report=report_unless_last)
    return train.Trial(n_trainings, callbacks=(_ReportOfWorkers(objective),))
