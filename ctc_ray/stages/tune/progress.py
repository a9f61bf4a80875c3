"""Follows a search: a line per epoch and per trial for the user, a record of each trial that ends.

Ray Tune calls it on the driver.
"""

import logging
import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ray.tune
from ray.exceptions import (
    NodeDiedError,
    OutOfMemoryError,
    RayActorError,
    RayTaskError,
    WorkerCrashedError,
)

from ctc_ray.config.choices import TrialState
from ctc_ray.config.search import train_config
from ctc_ray.config.tuning import TuneConfig
from ctc_ray.console.board import Board, columns
from ctc_ray.console.progress import clock
from ctc_ray.stages.train import stage as train
from ctc_ray.stages.tune.folds import EPOCHS, has_all_models, model_uris, n_images_of
from ctc_ray.stages.tune.objective import Objective
from ctc_ray.stages.tune.records import EndedTrial, name_of
from ctc_ray.stages.tune.table import kept_history, kept_metrics, shown, with_kept
from ctc_ray.stages.tune.trial import EPOCH, FAILED, FOLD

logger = logging.getLogger(__name__)

_BEHIND = "other trials were better after as many"
_LAST, _MOST_RUNNING = 4, 8  # rows on a terminal
STATES: dict[TrialState, str] = {"done": "done", "stopped": "stopped", "error": "failed"}
_OF_TRAINING = (EPOCH, "learning_rate", "train_", "val_")  # Ray Tune adds its own columns


class SearchProgress(ray.tune.Callback):  # type: ignore[misc]  # Ray is untyped here
    """What the trials of a search have reported, and how they have ended."""

    def __init__(
        self,
        config: TuneConfig,
        objective: Objective,
        ended: Mapping[int, EndedTrial],
        *,
        n_planned: int,
        n_items: Sequence[int],
    ) -> None:
        """A search of which some trials may have ended before.

        Args:
            n_planned: trials of the whole search.
            n_items: images that a trial learns from in an epoch, of each fold if there are folds.
        """
        self._config, self._objective = config, objective
        self._n_planned, self._n_items = n_planned, n_items
        self.ended = {number: with_kept(config.output_uri, one) for number, one in ended.items()}
        self.board: Board | None = None
        """A table on the terminal; with it, epochs are not logged line by line."""
        self._last: list[EndedTrial] = []
        self._samples: dict[int, Mapping[str, Any]] = {}
        self.on_end: Callable[[EndedTrial], object] = lambda _: None
        self._reports: dict[int, dict[int, dict[str, float]]] = {}
        self._failed: dict[int, str] = {}
        self._began: dict[int, float] = {}
        self._begun_at, self._n_before = time.perf_counter(), len(ended)

    def on_trial_start(self, **event: Any) -> None:
        """Called by Ray Tune when a trial begins, or begins again."""
        number = _number(event["trial"])
        self._began.setdefault(number, time.perf_counter())
        self._samples[number] = event["trial"].config["sample"]
        self._show()

    def on_trial_result(self, **event: Any) -> None:
        """Called by Ray Tune after each report."""
        number, result = _number(event["trial"]), event["result"]
        if FAILED in result:
            self._failed[number] = str(result[FAILED])
        elif FOLD in result:
            self._tell_epoch_of_fold(number, result)
        elif EPOCH in result:
            metrics = {k: float(v) for k, v in result.items() if k.startswith(_OF_TRAINING)}
            self._reports.setdefault(number, {})[int(result[EPOCH])] = metrics
            self._show()
            logger.log(
                self._level,
                "trial %s, %s %s: %s %.4g",
                name_of(number),
                self._objective.step,
                result[EPOCH],
                self._objective.name,
                self._objective.value(result),
            )

    def _tell_epoch_of_fold(self, number: int, result: Mapping[str, Any]) -> None:
        logger.log(
            self._level,
            "trial %s, %s, epoch %s: %s %.4g",
            name_of(number),
            result[FOLD],
            result[EPOCHS],
            self._objective.name,
            self._objective.value(result),
        )

    def on_trial_complete(self, **event: Any) -> None:
        """Called by Ray Tune when a trial has ended without an error of Ray's."""
        number = _number(event["trial"])
        if number in self._failed:
            self._end(event["trial"], "error", self._failed[number])
        elif not has_all_models(self._config.output_uri, number, self._objective.folds):
            self._end(event["trial"], "stopped", f"{_BEHIND} {self._objective.step}s")
        elif math.isfinite(self._objective.value(self._kept(number))):
            self._end(event["trial"], "done", "")
        else:
            reason = f"{self._objective.name} of the model is not a number"
            self._end(event["trial"], "error", reason)

    def on_trial_error(self, **event: Any) -> None:
        """Called by Ray Tune when it does not begin a trial again.

        A trial that was lost with its node says nothing of its sample: it has not ended.
        """
        trial = event["trial"]
        error = trial.get_pickled_error() or RuntimeError(trial.get_error() or "unknown")
        if is_lost(error):
            logger.warning("trial %s was lost with its process", name_of(_number(trial)))
        else:
            self._end(trial, "error", reason_of(error))

    def _end(self, trial: Any, state: TrialState, reason: str) -> None:
        number = _number(trial)
        reports = self._reports.pop(number, {})
        history: list[Mapping[str, float]] = [reports[epoch] for epoch in sorted(reports)]
        if state == "done":
            history = [*kept_history(self._config.output_uri, self._objective, number)]
        one = EndedTrial(
            number,
            trial.config["sample"],
            tuple(history),
            state,
            reason,
            round(self._seconds(number), 1),
            n_images_of(history, self._n_items),
            trial.config["parent"],
            self._kept(number) if state == "done" else None,
        )
        one.write(self._config.output_uri)
        self.ended[number] = one
        self._samples.pop(number, None)
        self._last = [one, *self._last][:_LAST]
        self.on_end(one)
        self._tell(one)
        self._show()

    def _seconds(self, number: int) -> float:
        """Since it has begun in this run; or of all its epochs, if some were in earlier runs."""
        uris = model_uris(self._config.output_uri, number, self._objective.folds)
        here = time.perf_counter() - self._began.pop(number, time.perf_counter())
        return max(here, sum(map(train.seconds_of, uris)))

    def _tell(self, one: EndedTrial) -> None:
        what = STATES[one.state]
        value = ""
        if one.state == "done":
            value = f", {self._objective.name} {self._value(one):.4g}"
        why = f": {one.reason}" if one.reason else ""
        logger.info(
            "trial %s %s after %d %ss%s (%s)%s",
            name_of(one.number),
            what,
            len(one.history),
            self._objective.step,
            value,
            shown(one.sample),
            why,
        )
        if self.board is None:
            logger.info("%s", self.line())

    def _kept(self, number: int) -> dict[str, float]:
        """The metrics of the model that a trial has written."""
        return kept_metrics(self._config.output_uri, self._objective, number)

    @property
    def _level(self) -> int:
        """The logging level of lines whose content is in the table, if there is one."""
        return logging.INFO if self.board is None else logging.DEBUG

    def _value(self, one: EndedTrial) -> float:
        """The objective of the model of a trial that is done."""
        return self._objective.value(one.kept or {})

    def _best(self) -> EndedTrial | None:
        done = [one for one in self.ended.values() if one.state == "done"]
        best: EndedTrial | None = self._objective.best(done, key=self._value) if done else None
        return best

    def line(self) -> str:
        """How far the search is."""
        states = [one.state for one in self.ended.values()]
        best = ""
        if (one := self._best()) is not None:
            best = (
                f"; best {name_of(one.number)} with {self._objective.name} {self._value(one):.4g}"
            )
        n_new = len(self.ended) - self._n_before
        seconds = time.perf_counter() - self._begun_at
        left = (self._n_planned - len(self.ended)) * seconds / n_new if n_new else 0
        return (
            f"{len(states)} of {self._n_planned} trials have ended: {states.count('done')} done, "
            f"{states.count('stopped')} stopped, {states.count('error')} failed, "
            f"{len(self._began)} running{best}; {clock(left)} to go"
        )

    def _show(self) -> None:
        if self.board is not None:
            self.board.show(self.lines())

    def lines(self) -> list[str]:
        """How far the search is, the best trial, those that run, and those that ended last."""
        rows = [
            [
                "trial",
                "state",
                self._objective.step,
                self._objective.name,
                "settings, or why it ended",
            ]
        ]
        if (best := self._best()) is not None:
            epochs, value = str(len(best.history)), f"{self._value(best):.4g}"
            rows.append([name_of(best.number), "best", epochs, value, shown(best.sample)])
        running = sorted(self._samples)
        rows += [self._running_row(number) for number in running[:_MOST_RUNNING]]
        rows += [
            [name_of(one.number), STATES[one.state], str(len(one.history)), "", one.reason]
            for one in self._last
            if one.state != "done"
        ]
        more = len(running) - _MOST_RUNNING
        return [self.line(), *columns(rows), *([f"and {more} more running"] if more > 0 else [])]

    def _running_row(self, number: int) -> list[str]:
        reports, sample = self._reports.get(number, {}), self._samples[number]
        epoch = max(reports, default=0)
        value = f"{self._objective.value(reports[epoch]):.4g}" if reports else ""
        of = len(self._config.folds) or train_config(self._config, sample).max_epochs
        return [name_of(number), "running", f"{epoch}/{of}", value, shown(sample)]


def _number(trial: Any) -> int:
    return int(trial.config["number"])


def is_lost(error: Exception | None) -> bool:
    """Whether the process of a trial is gone, as with a lost node, and has raised no error."""
    while isinstance(error, RayTaskError):
        error = error.cause
    if isinstance(error, OutOfMemoryError):
        return False
    return isinstance(error, RayActorError | NodeDiedError | WorkerCrashedError)


def reason_of(error: object) -> str:
    """The line of an error that says what was wrong, without the classes that Ray wraps it in."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    last = lines[-1] if lines else type(error).__name__
    return re.sub(r"^(?:[\w.]+(?:Error|Exception)(?:\([\w.]+\))?: )+", "", last)
