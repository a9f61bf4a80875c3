"""What is known of each trial that has ended, as files that outlive the search."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, assert_never

from ctc_ray.config.choices import TrialState
from ctc_ray.config.search import train_config
from ctc_ray.config.training import TrainConfig
from ctc_ray.config.tuning import TuneConfig
from ctc_ray.files import storage

_FOLDER = "trials"
MODELS = "models"


def name_of(number: int) -> str:
    """The name of the trial's folder; names sort as numbers do."""
    return f"{number:05d}"


def model_uri(output_uri: str, number: int) -> str:
    """Where a trial writes its model."""
    return storage.join(output_uri, MODELS, name_of(number))


def config_of(
    config: TuneConfig, sample: Mapping[str, Any], number: int, *, parent: int | None
) -> TrainConfig:
    """The train configuration of a trial, which writes its model into the trial's folder.

    Args:
        parent: the trial whose weights it begins with.
    """
    parent_uri = None if parent is None else model_uri(config.output_uri, parent)
    return train_config(
        config, sample, output_uri=model_uri(config.output_uri, number), parent_uri=parent_uri
    )


@dataclass(frozen=True)
class EndedTrial:
    """A trial that will not go on."""

    number: int
    sample: Mapping[str, Any]
    """Dotted field -> its value."""
    history: tuple[Mapping[str, float], ...]
    """The metrics of each epoch."""
    state: TrialState
    reason: str
    """Why it has no model; empty if it has."""
    seconds: float
    n_images: int
    """Images that it has learnt from, each as often as it was seen."""
    parent: int | None = None
    """The trial whose weights it began with; None: those that all trials begin with."""
    kept: Mapping[str, float] | None = None
    """The metrics of the epoch whose weights the model has, named as in a history; None: there is
    no model, or an earlier version has written the record."""

    def found(self, of_model: Mapping[str, float]) -> Mapping[str, float]:
        """The metrics that stand for it: of its model, or of the last epoch if it was stopped.

        Args:
            of_model: the metrics of its model; of none, if it has none.
        """
        match self.state:
            case "done":
                return of_model
            case "stopped":
                return self.history[-1] if self.history else {}
            case "error":
                return {}
            case _:
                assert_never(self.state)

    def write(self, output_uri: str) -> None:
        """Keep it; numbers that are not finite are kept as text."""
        uri = storage.join(output_uri, _FOLDER, f"{name_of(self.number)}.json")
        rows = [{k: _as_json(v) for k, v in row.items()} for row in self.history]
        kept = None if self.kept is None else {k: _as_json(v) for k, v in self.kept.items()}
        storage.write_json(uri, {**asdict(self), "history": rows, "kept": kept})


def read_ended(output_uri: str) -> dict[int, EndedTrial]:
    """By number, ascending."""
    found = {}
    folder = storage.join(output_uri, _FOLDER)
    for uri in sorted(storage.list_files(folder)) if storage.is_folder(folder) else ():
        values = json.loads(storage.read_bytes(uri))
        values["history"] = tuple(map(_as_numbers, values["history"]))
        if values.get("kept") is not None:
            values["kept"] = _as_numbers(values["kept"])
        one = EndedTrial(**values)
        found[one.number] = one
    return found


def _as_numbers(row: Mapping[str, float | str]) -> dict[str, float]:
    return {name: float(value) for name, value in row.items()}


def _as_json(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)
