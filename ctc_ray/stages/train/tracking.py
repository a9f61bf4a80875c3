"""What a training tells a tracking server while it runs: `--track mlflow`.

A server that fails never ends the training. It is asked again, less and less often, and once more
at the end.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, assert_never

from ctc_ray.config.training import TrainConfig
from ctc_ray.errors import ConfigError
from ctc_ray.files import storage
from ctc_ray.files.csv_text import numbers_of_csv
from ctc_ray.models.bundle import HISTORY_FILE, METRICS_FILE, read_provenance
from ctc_ray.stages.train.mlflow_run import MlflowRun, flat, import_mlflow
from ctc_ray.stages.train.report import PAGE_FILE, PNG_FILE
from ctc_ray.stages.train.speed import SPEED_FILE

_ARTIFACTS = (HISTORY_FILE, METRICS_FILE, SPEED_FILE, PAGE_FILE, PNG_FILE)


def check(config: TrainConfig, *, is_trial: bool = False) -> None:
    """Check that the training can be tracked.

    Args:
        is_trial: of a search, whose trials run in folders of Ray's own.

    Raises:
        ConfigError: the library is not installed, or trials have no server.
    """
    match config.track:
        case "none":
            return
        case "mlflow":
            import_mlflow()
            if is_trial and not os.environ.get("MLFLOW_TRACKING_URI"):
                raise ConfigError(
                    "train.track mlflow: trials need a server; set MLFLOW_TRACKING_URI, on every "
                    "node of a cluster"
                )
        case _:
            assert_never(config.track)


@dataclass(frozen=True)
class Nested:
    """A run that belongs to another one: a trial to its search."""

    parent_id: str | None
    """Run of the search on the server; None: it has none."""
    name: str
    """The trial, and its fold if it has some."""
    params: Mapping[str, Any]
    """What is its own: the sample."""


class Tracker:
    """Takes the metrics of each epoch; this one does nothing with them."""

    def add_epoch(self, metrics: Mapping[str, float]) -> None:
        """Log an epoch; see `TrainingJob.next_epoch` and `TrainingJob.speed`."""

    def finish(self) -> None:
        """Log what the finished training has written."""

    def stop(self, status: str) -> None:
        """End the run of a training that has not finished, as FAILED or KILLED."""


@contextmanager
def tracked(config: TrainConfig, nested: Nested | None = None) -> Iterator[Tracker]:
    """The tracker of a training, which learns how the training ends."""
    match config.track:
        case "none":
            tracker = Tracker()
        case "mlflow":
            tracker = MlflowTracker(config, nested)
        case _:
            assert_never(config.track)
    try:
        yield tracker
    except Exception:
        tracker.stop("FAILED")
        raise
    except BaseException:
        tracker.stop("KILLED")
        raise


class MlflowTracker(MlflowRun, Tracker):
    """The run of a training."""

    def __init__(self, config: TrainConfig, nested: Nested | None = None) -> None:
        """Begin a run, or go on with that of the output folder."""
        if nested is None:
            params = flat(config.model_dump(mode="json"))
            super().__init__(config.output_uri, params, what="training")
        else:
            super().__init__(
                config.output_uri,
                nested.params,
                what="training",
                name=nested.name,
                parent_id=nested.parent_id,
            )
        self._waiting: list[dict[str, float]] = []
        self.attempt(self._log_waiting)

    def add_epoch(self, metrics: Mapping[str, float]) -> None:
        """Log an epoch, and those that could not be logged before."""
        self._waiting.append(dict(metrics))
        if self.is_time():
            self.attempt(self._log_waiting)

    def finish(self) -> None:
        """Log what is missing of the history, the metrics of the model, and the files."""
        self.attempt(self._log_end)

    def _log_waiting(self) -> None:
        self.begin()
        for row in sorted(self._waiting, key=lambda row: row["epoch"]):
            epoch = int(row["epoch"])
            if epoch > self._n_logged:
                self._log_metrics({k: v for k, v in row.items() if k != "epoch"}, epoch)
                self._n_logged = epoch
                self._remember()
        self._waiting.clear()

    def _log_end(self) -> None:
        uri = self._output_uri
        known = {row["epoch"] for row in self._waiting}
        history = numbers_of_csv(storage.read_bytes(storage.join(uri, HISTORY_FILE)))
        self._waiting += [row for row in history if row["epoch"] not in known]
        self._log_waiting()
        final = read_provenance(uri).metrics
        kept = json.loads(storage.read_bytes(storage.join(uri, METRICS_FILE)))["epoch"]
        self._log_metrics({f"kept_val_{key}": value for key, value in final.items()}, kept)
        self._log_files(_ARTIFACTS)
        self._client.set_terminated(self.run_id)
