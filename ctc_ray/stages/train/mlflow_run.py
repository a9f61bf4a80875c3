"""A run on an MLflow server that belongs to an output folder.

A server that fails never ends the work. It is asked again, less and less often, and once more at
the end.
"""

import importlib
import json
import logging
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ctc_ray.errors import ConfigError
from ctc_ray.files import storage
from ctc_ray.runs.layout import WORK_FOLDER
from ctc_ray.runs.manifest import fingerprint

logger = logging.getLogger(__name__)

_RUN_FILE = "mlflow.json"
_DEFAULTS = {  # a server that does not answer must not keep the work waiting
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_ALLOW_FILE_STORE": "true",  # ./mlruns; the library has no other store without a server
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
_LONGEST_PARAM, _MOST_PARAMS, _MOST_METRICS = 500, 100, 1000  # of servers, old ones included
_LONGEST_PAUSE = 64  # calls
_PARENT = "mlflow.parentRunId"


def import_mlflow() -> Any:
    """The library.

    Raises:
        ConfigError: it is not installed.
    """
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    try:
        return importlib.import_module("mlflow")
    except ImportError:
        raise ConfigError(
            "--track mlflow: the library is not installed; pip install 'ctc-ray[mlflow]'"
        ) from None


class MlflowRun:
    """Logs to MLFLOW_TRACKING_URI, or to ./mlruns. Work that is resumed goes on with its run."""

    def __init__(
        self,
        output_uri: str,
        params: Mapping[str, Any],
        *,
        what: str,
        name: str | None = None,
        parent_id: str | None = None,
    ) -> None:
        """The run of an output folder, which `begin` creates if there is none.

        Args:
            params: what the work is, by dotted names.
            what: the work in a word, for warnings.
            name: of the run; None: MLFLOW_RUN_NAME, or the folder's name.
            parent_id: the run that this one belongs to.
        """
        self._mlflow, self._output_uri, self._params = import_mlflow(), output_uri, params
        self._what, self._parent_id = what, parent_id
        folder = output_uri.rstrip("/").rpartition("/")[2]
        self._name = name or os.environ.get("MLFLOW_RUN_NAME", folder)
        self._uri = os.environ.get("MLFLOW_TRACKING_URI") or Path("mlruns").absolute().as_uri()
        self._server = fingerprint(self._uri)  # the URI may hold a password
        self.run_id, self._n_logged = self._known_run(output_uri)
        self._is_running = False
        self._pause = self._n_passed = 0

    def begin(self) -> None:
        """Create the run, or say that it is running again."""
        if self.run_id is None:
            self._create_run()
        elif not self._is_running:
            self._client.update_run(self.run_id, status="RUNNING")
        self._is_running = True

    def stop(self, status: str) -> None:
        """End the run as FAILED or KILLED."""
        if self.run_id is not None:
            self.attempt(lambda: self._client.set_terminated(self.run_id, status))

    @cached_property
    def _client(self) -> Any:
        return self._mlflow.MlflowClient(tracking_uri=self._uri)

    def is_time(self) -> bool:
        """Whether the server, which may have failed, shall be asked this time."""
        self._n_passed += 1
        return self._n_passed > self._pause

    def attempt(self, call: Callable[[], None]) -> None:
        """Ask the server; that it fails is a warning."""
        self._n_passed = 0
        try:
            call()
        except Exception as error:  # noqa: BLE001  # of a server, and no reason to end the work
            self._pause = min(2 * self._pause + 1, _LONGEST_PAUSE)
            reason = re.sub("//[^/@ ]+@", "//", str(error).strip().partition("\n")[0])
            logger.warning("--track mlflow: %s; the %s goes on without", reason, self._what)
        else:
            self._pause = 0

    def _known_run(self, output_uri: str) -> tuple[str | None, int]:
        """The run of a folder and the epochs that it has; None: there is none on this server."""
        uri = storage.join(output_uri, WORK_FOLDER, _RUN_FILE)
        if not storage.is_file(uri):
            return None, 0
        found = json.loads(storage.read_bytes(uri))
        return (found["run_id"], found["epochs"]) if found["server"] == self._server else (None, 0)

    def _remember(self) -> None:
        value = {"run_id": self.run_id, "epochs": self._n_logged, "server": self._server}
        storage.write_json(storage.join(self._output_uri, WORK_FOLDER, _RUN_FILE), value)

    def _create_run(self) -> None:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or "ctc_ray"
        found = self._client.get_experiment_by_name(name)
        experiment = found.experiment_id if found else self._client.create_experiment(name)
        tags = {} if self._parent_id is None else {_PARENT: self._parent_id}
        run = self._client.create_run(experiment, run_name=self._name, tags=tags)
        self.run_id = run.info.run_id
        self._remember()
        params = [
            self._mlflow.entities.Param(_name(key), str(value)[:_LONGEST_PARAM])
            for key, value in self._params.items()
        ]
        for some in _parts(params, _MOST_PARAMS):
            self._client.log_batch(self.run_id, params=some)

    def _log_metrics(self, values: Mapping[str, float], step: int) -> None:
        now = int(1000 * time.time())
        metrics = [
            self._mlflow.entities.Metric(_name(key), value, now, step)
            for key, value in values.items()
        ]
        for some in _parts(metrics, _MOST_METRICS):
            self._client.log_batch(self.run_id, metrics=some)

    def _log_files(self, names: Sequence[str]) -> None:
        """Those of the folder that are there."""
        with TemporaryDirectory() as folder:
            for name in names:
                uri = storage.join(self._output_uri, name)
                if storage.is_file(uri):
                    path = Path(folder) / name
                    path.write_bytes(storage.read_bytes(uri))
                    self._client.log_artifact(self.run_id, str(path))


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
