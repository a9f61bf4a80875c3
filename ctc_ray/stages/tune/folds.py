"""The models of a trial: one, or one per fold; and what the folds say together."""

import csv
import io
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from ctc_ray.files import storage
from ctc_ray.models.bundle import HISTORY_FILE, read_provenance
from ctc_ray.runs.manifest import is_complete
from ctc_ray.stages.tune.records import model_uri

EPOCHS = "epochs"
"""Key of a row after a fold: the epochs of the fold's training."""


def model_uris(output_uri: str, number: int, folds: Sequence[str]) -> list[str]:
    """Where a trial writes its models: one per fold, or one if there are no folds."""
    uri = model_uri(output_uri, number)
    return [storage.join(uri, fold) for fold in folds] or [uri]


def has_all_models(output_uri: str, number: int, folds: Sequence[str]) -> bool:
    """Whether a trial has trained all its models to their end."""
    return all(is_complete(uri) for uri in model_uris(output_uri, number, folds))


def metrics_of_models(output_uri: str, number: int, folds: Sequence[str]) -> list[dict[str, float]]:
    """The metrics of each model of a trial, of the epoch that it keeps, named as in a history."""
    found = (read_provenance(uri).metrics for uri in model_uris(output_uri, number, folds))
    return [{f"val_{name}": value for name, value in metrics.items()} for metrics in found]


def mean_metrics(models: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each metric that all models have."""
    names = [name for name in models[0] if all(name in metrics for metrics in models)]
    return {name: fmean(metrics[name] for metrics in models) for name in names}


def history_of(uri: str) -> list[Mapping[str, float]]:
    """The metrics of each epoch of a model."""
    content = storage.read_bytes(storage.join(uri, HISTORY_FILE))
    return [
        {name: float(value) for name, value in row.items() if value}
        for row in csv.DictReader(io.StringIO(content.decode()))
    ]


def rows_after_folds(output_uri: str, number: int, folds: Sequence[str]) -> list[dict[str, Any]]:
    """What a trial reports after each of these folds: means over the folds until then.

    The key `epoch` has the number of folds, by which trials are compared.
    """
    models = metrics_of_models(output_uri, number, folds)
    uris = model_uris(output_uri, number, folds)
    return [
        {"epoch": n, EPOCHS: len(history_of(uri)), **mean_metrics(models[:n])}
        for n, uri in enumerate(uris, start=1)
    ]


def n_images_of(history: Sequence[Mapping[str, float]], n_items: Sequence[int]) -> int:
    """Images that a trial has learnt from.

    Args:
        history: of each epoch, or of each fold.
        n_items: images per epoch of each fold; one number without folds.
    """
    if len(n_items) == 1:
        return len(history) * n_items[0]
    return sum(int(row[EPOCHS]) * n for row, n in zip(history, n_items, strict=False))
