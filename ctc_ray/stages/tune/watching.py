"""What shows a search while it runs: the report, TensorBoard files, a tracking server."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import assert_never

from ctc_ray.config.search import train_config
from ctc_ray.config.tuning import TuneConfig
from ctc_ray.files import storage
from ctc_ray.reports.attempt import attempt
from ctc_ray.runs.manifest import is_complete
from ctc_ray.stages.train.mlflow_run import MlflowRun, flat
from ctc_ray.stages.train.telling import tensorboard_command
from ctc_ray.stages.train.tensorboard import HPARAMS_EVENTS_FILE, events_of_trial
from ctc_ray.stages.tune.folds import model_uris
from ctc_ray.stages.tune.objective import Objective
from ctc_ray.stages.tune.records import MODELS, EndedTrial, model_uri
from ctc_ray.stages.tune.report import PAGE_FILE, SearchPage
from ctc_ray.stages.tune.table import BEST_YAML, TRIALS_CSV, metrics_of


class SearchRun(MlflowRun):
    """The run of a search; those of its trials are nested in it."""

    def __init__(self, config: TuneConfig, objective: Objective) -> None:
        """Begin a run, or go on with that of the output folder."""
        params = flat(config.model_dump(mode="json"))
        super().__init__(config.output_uri, params, what="search")
        self._objective = objective
        self.attempt(self.begin)

    def add(self, one: EndedTrial, *, best: float | None, n_ended: int) -> None:
        """Log the best value so far, and end the run of a trial that could not do so itself."""

        def log() -> None:
            self.begin()
            if best is not None:
                self._log_metrics({f"best_{self._objective.name}": best}, n_ended)
            match one.state:
                case "done":
                    return
                case "stopped":
                    self._end_runs(one.number, "KILLED")
                case "error":
                    self._end_runs(one.number, "FAILED")
                case _:
                    assert_never(one.state)

        if self.is_time():
            self.attempt(log)

    def _end_runs(self, number: int, status: str) -> None:
        """End those of the trainings of a trial that have not finished."""
        for uri in model_uris(self._output_uri, number, self._objective.folds):
            run_id, _ = self._known_run(uri)
            if run_id is not None and not is_complete(uri):
                self._client.set_terminated(run_id, status)

    def finish(self) -> None:
        """Log the files of the search."""

        def log() -> None:
            self.begin()
            self._log_files((TRIALS_CSV, BEST_YAML, PAGE_FILE))
            self._client.set_terminated(self.run_id)

        self.attempt(log)


class Watching:
    """Shows the trials of a search as they end."""

    def __init__(
        self, config: TuneConfig, objective: Objective, page: SearchPage, run: SearchRun | None
    ) -> None:
        """Nothing has ended yet.

        Args:
            run: on a tracking server, if there is one.
        """
        self._config, self._objective, self._page, self._run = config, objective, page, run

    @property
    def parent_run(self) -> str | None:
        """The run that those of the trials belong to, on the tracking server."""
        return None if self._run is None else self._run.run_id

    def add(self, one: EndedTrial, ended: Mapping[int, EndedTrial]) -> None:
        """Show a trial that has ended.

        Args:
            ended: all that have, with this one.
        """
        self._write_hparams(one)
        if self._run is not None:
            self._run.add(
                one, best=best_of(self._config, self._objective, ended), n_ended=len(ended)
            )
        self._page.write_if_due(ended)

    def _write_hparams(self, one: EndedTrial) -> None:
        metrics = metrics_of(self._config.output_uri, one) or (one.history or ({},))[-1]
        objective = self._objective
        final = {objective.name: objective.value(metrics)} | {
            name: metrics[name] for name in objective.weights if name in metrics
        }
        final = {name: value for name, value in final.items() if math.isfinite(value)}
        uri = storage.join(model_uri(self._config.output_uri, one.number), HPARAMS_EVENTS_FILE)
        with attempt(uri):
            events = events_of_trial(
                one.sample, final, epoch=len(one.history), is_sound=one.state != "error"
            )
            storage.write_bytes(uri, events)

    def finish(self) -> None:
        """Show that the search has ended."""
        if self._run is not None:
            self._run.finish()


def best_of(
    config: TuneConfig, objective: Objective, ended: Mapping[int, EndedTrial]
) -> float | None:
    """The best value so far."""
    values = [
        objective.value(metrics_of(config.output_uri, one))
        for one in ended.values()
        if one.state == "done"
    ]
    return objective.best(values) if values else None


@contextmanager
def watching(config: TuneConfig, objective: Objective, page: SearchPage) -> Iterator[Watching]:
    """What shows a search, and learns how it ends."""
    run: SearchRun | None
    match train_config(config, {}).track:
        case "none":
            run = None
        case "mlflow":
            run = SearchRun(config, objective)
        case other:
            assert_never(other)
    try:
        yield Watching(config, objective, page, run)
    except Exception:
        if run is not None:
            run.stop("FAILED")
        raise
    except BaseException:
        if run is not None:
            run.stop("KILLED")
        raise


def how_to_watch(output_uri: str) -> str:
    """Where the report of a search is, and the command that shows its TensorBoard files."""
    page = storage.join(output_uri, PAGE_FILE)
    return f"see {page}, or run: {tensorboard_command(output_uri, MODELS, is_only_events=False)}"
