"""What a training tells a tracking server while it runs: `--track mlflow`.

A server that fails never ends the training. It is asked again, less and less often, and once more
at the end.
"""

import importlib
import json
import logging
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, assert_never

from ctc_ray.config.training import TrainConfig
from ctc_ray.errors import ConfigError
from ctc_ray.files import storage
from ctc_ray.files.csv_text import numbers_of_csv
from ctc_ray.models.bundle import HISTORY_FILE, METRICS_FILE, read_provenance
from ctc_ray.runs.layout import WORK_FOLDER
from ctc_ray.runs.manifest import fingerprint
from ctc_ray.stages.train.report import PAGE_FILE, PNG_FILE
from ctc_ray.stages.train.speed import SPEED_FILE

logger = logging.getLogger(__name__)

_RUN_FILE = "mlflow.json"
_ARTIFACTS = (HISTORY_FILE, METRICS_FILE, SPEED_FILE, PAGE_FILE, PNG_FILE)
_DEFAULTS = {  # a server that does not answer must not keep the training waiting
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_ALLOW_FILE_STORE": "true",  # ./mlruns; the library has no other store without a server
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
_LONGEST_PARAM, _MOST_PARAMS, _MOST_METRICS = 500, 100, 1000  # of servers, old ones included
_LONGEST_PAUSE = 64  # epochs


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
            _import_mlflow()
            if is_trial and not os.environ.get("MLFLOW_TRACKING_URI"):
                raise ConfigError(
                    "train.track mlflow: trials need a server; set MLFLOW_TRACKING_URI, on every "
                    "node of a cluster"
                )
        case _:
            assert_never(config.track)


def _import_mlflow() -> Any:
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    try:
        return importlib.import_module("mlflow")
    except ImportError:
        raise ConfigError(
            "--track mlflow: the library is not installed; pip install 'ctc-ray[mlflow]'"
        ) from None


class Tracker:
    """Takes the metrics of each epoch; this one does nothing with them."""

    def add_epoch(self, metrics: Mapping[str, float]) -> None:
        """Log an epoch; see `TrainingJob.next_epoch` and `TrainingJob.speed`."""

    def finish(self) -> None:
        """Log what the finished training has written."""

    def stop(self, status: str) -> None:
        """End the run of a training that has not finished, as FAILED or KILLED."""


@contextmanager
def tracked(config: TrainConfig) -> Iterator[Tracker]:
    """The tracker of a training, which learns how the training ends."""
    match config.track:
        case "none":
            tracker = Tracker()
        case "mlflow":
            tracker = MlflowTracker(config)
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


class MlflowTracker(Tracker):
    """Logs to MLFLOW_TRACKING_URI, or to ./mlruns. A resumed training goes on with its run."""

    def __init__(self, config: TrainConfig) -> None:
        """Begin a run, or go on with that of the output folder."""
        self._mlflow, self._config = _import_mlflow(), config
        self._uri = os.environ.get("MLFLOW_TRACKING_URI") or Path("mlruns").absolute().as_uri()
        self._server = fingerprint(self._uri)  # the URI may hold a password
        self._run_uri = storage.join(config.output_uri, WORK_FOLDER, _RUN_FILE)
        self._run_id, self._n_logged = self._known_run()
        self._is_running = False
        self._waiting: list[dict[str, float]] = []
        self._pause = self._n_passed = 0
        self._try(self._log_waiting)

    def add_epoch(self, metrics: Mapping[str, float]) -> None:
        """Log an epoch, and those that could not be logged before."""
        self._waiting.append(dict(metrics))
        self._n_passed += 1
        if self._n_passed > self._pause:
            self._try(self._log_waiting)

    def finish(self) -> None:
        """Log what is missing of the history, the metrics of the model, and the files."""
        self._try(self._log_end)

    def stop(self, status: str) -> None:
        """End the run as FAILED or KILLED."""
        if self._run_id is not None:
            self._try(lambda: self._client.set_terminated(self._run_id, status))

    @cached_property
    def _client(self) -> Any:
        return self._mlflow.MlflowClient(tracking_uri=self._uri)

    def _try(self, call: Callable[[], None]) -> None:
        self._n_passed = 0
        try:
            call()
        except Exception as error:  # noqa: BLE001  # of a server, and no reason to end a training
            self._pause = min(2 * self._pause + 1, _LONGEST_PAUSE)
            reason = re.sub("//[^/@ ]+@", "//", str(error).strip().partition("\n")[0])
            logger.warning("--track mlflow: %s; the training goes on without", reason)
        else:
            self._pause = 0

    def _known_run(self) -> tuple[str | None, int]:
        """The run of the output folder and the epochs that it has; None: there is none here."""
        if not storage.is_file(self._run_uri):
            return None, 0
        found = json.loads(storage.read_bytes(self._run_uri))
        return (found["run_id"], found["epochs"]) if found["server"] == self._server else (None, 0)

    def _remember(self) -> None:
        value = {"run_id": self._run_id, "epochs": self._n_logged, "server": self._server}
        storage.write_json(self._run_uri, value)

    def _log_waiting(self) -> None:
        if self._run_id is None:
            self._create_run()
        elif not self._is_running:
            self._client.update_run(self._run_id, status="RUNNING")
        self._is_running = True
        for row in sorted(self._waiting, key=lambda row: row["epoch"]):
            epoch = int(row["epoch"])
            if epoch > self._n_logged:
                self._log_metrics({k: v for k, v in row.items() if k != "epoch"}, epoch)
                self._n_logged = epoch
                self._remember()
        self._waiting.clear()

    def _create_run(self) -> None:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or "ctc_ray"
        found = self._client.get_experiment_by_name(name)
        experiment = found.experiment_id if found else self._client.create_experiment(name)
        folder = self._config.output_uri.rstrip("/").rpartition("/")[2]
        run = self._client.create_run(
            experiment, run_name=os.environ.get("MLFLOW_RUN_NAME", folder)
        )
        self._run_id = run.info.run_id
        self._remember()
        params = [
            self._mlflow.entities.Param(_name(key), str(value)[:_LONGEST_PARAM])
            for key, value in flat(self._config.model_dump(mode="json")).items()
        ]
        for some in _parts(params, _MOST_PARAMS):
            self._client.log_batch(self._run_id, params=some)

    def _log_metrics(self, values: Mapping[str, float], epoch: int) -> None:
        now = int(1000 * time.time())
        metrics = [
            self._mlflow.entities.Metric(_name(key), value, now, epoch)
            for key, value in values.items()
        ]
        for some in _parts(metrics, _MOST_METRICS):
            self._client.log_batch(self._run_id, metrics=some)

    def _log_end(self) -> None:
        uri = self._config.output_uri
        known = {row["epoch"] for row in self._waiting}
        history = numbers_of_csv(storage.read_bytes(storage.join(uri, HISTORY_FILE)))
        self._waiting += [row for row in history if row["epoch"] not in known]
        self._log_waiting()
        final = read_provenance(uri).metrics
        kept = json.loads(storage.read_bytes(storage.join(uri, METRICS_FILE)))["epoch"]
        self._log_metrics({f"kept_val_{key}": value for key, value in final.items()}, kept)
        with TemporaryDirectory() as folder:
            for name in _ARTIFACTS:
                if storage.is_file(storage.join(uri, name)):
                    path = Path(folder) / name
                    path.write_bytes(storage.read_bytes(storage.join(uri, name)))
                    self._client.log_artifact(self._run_id, str(path))
        self._client.set_terminated(self._run_id)


def _parts(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    return (items[first : first + size] for first in range(0, len(items), size))


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Values of mappings in mappings by their dotted names."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= (
            flat(value, f"{prefix}{name}.")
            if isinstance(value, Mapping)
            else {prefix + name: value}
        )
    return found


def _name(name: str) -> str:
    """The name with what MLflow allows in names: a head may be called anything."""
    return re.sub(r"[^\w\-. :/]", "_", name)
