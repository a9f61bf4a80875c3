"""The results of a search: a row per trial, the best configuration."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import stdev
from typing import Any

import pyarrow as pa

from ctc_ray.config.base import to_yaml
from ctc_ray.config.search import Dimension
from ctc_ray.config.tuning import TuneConfig
from ctc_ray.errors import ConfigError
from ctc_ray.files import parquet, storage
from ctc_ray.files.csv_text import csv_of_records
from ctc_ray.runs.manifest import Manifest
from ctc_ray.stages.tune.folds import (
    EPOCHS,
    history_of,
    mean_metrics,
    metrics_of_models,
    rows_after_folds,
)
from ctc_ray.stages.tune.objective import Objective
from ctc_ray.stages.tune.records import EndedTrial, config_of, model_uri, name_of

TRIALS_CSV, TRIALS_PARQUET, BEST_YAML = "trials.csv", "trials.parquet", "best.yaml"


def kept_metrics(output_uri: str, objective: Objective, number: int) -> dict[str, float]:
    """The metrics of the model that a trial has written, or their means over its folds."""
    return mean_metrics(metrics_of_models(output_uri, number, objective.folds))


def metrics_of(output_uri: str, one: EndedTrial) -> Mapping[str, float]:
    """The metrics of the model of a trial that has ended; none if it has no model."""
    if one.state != "done":
        return {}
    if one.kept is None:  # of a version that had no folds
        return mean_metrics(metrics_of_models(output_uri, one.number, ()))
    return one.kept


def kept_history(
    output_uri: str, objective: Objective, number: int
) -> Sequence[Mapping[str, float]]:
    """The metrics of a trial that is done, after each epoch, or after each fold."""
    if objective.folds:
        return rows_after_folds(output_uri, number, objective.folds)
    return history_of(model_uri(output_uri, number))


def with_kept(output_uri: str, one: EndedTrial) -> EndedTrial:
    """The record with the metrics of its model, which those of earlier versions lack."""
    return replace(one, kept=metrics_of(output_uri, one)) if one.state == "done" else one


def words_of(value: Any) -> str:
    """A value of a setting as YAML has it."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case _:
            return str(value)


def shown(sample: Mapping[str, Any]) -> str:
    """A sample in words."""
    parts = (
        f"{value:.4g}" if isinstance(value, float) else str(value) for value in sample.values()
    )
    return ", ".join(f"{name}={value}" for name, value in zip(sample, parts, strict=True))


def summarise(
    config: TuneConfig,
    dimensions: Mapping[str, Dimension],
    objective: Objective,
    ended: Sequence[EndedTrial],
    dataset: Manifest,
    inputs: Mapping[str, str],
) -> Manifest:
    """Write the table and the best configuration.

    Raises:
        ConfigError: no trial has ended with a model.
    """
    rows = [_row(config.output_uri, list(dimensions), objective, one) for one in ended]
    if objective.is_pareto:
        rows = _with_front(rows, objective)
    storage.write_bytes(storage.join(config.output_uri, TRIALS_CSV), csv_of_records(rows))
    names = dict.fromkeys(name for row in rows for name in row)
    columns = {name: _column([row.get(name) for row in rows]) for name in names}
    parquet.write_table(storage.join(config.output_uri, TRIALS_PARQUET), pa.table(columns))
    done = [row for row in rows if row["state"] == "done"]
    if not done:
        reasons = sorted({str(row["reason"]) for row in rows if row["reason"]})
        raise ConfigError(f"no trial ended with a model: {'; '.join(reasons)} (see {TRIALS_CSV})")
    best = objective.best(done, key=lambda row: row[objective.name])
    one = next(one for one in ended if name_of(one.number) == best["trial"])
    chosen = config_of(config, one.sample, one.number, parent=one.parent).replaced(
        output_uri=storage.join(config.output_uri, "best-model")
    )
    text = to_yaml(chosen.model_dump(mode="json"))
    storage.write_bytes(storage.join(config.output_uri, BEST_YAML), text.encode())
    return Manifest(
        kind="trials",
        config=config.result_fields(),
        inputs=dict(inputs),
        classes={head: dataset.classes[head] for head in chosen.heads},
        summary={
            "best trial": best["trial"],
            "best.yaml": storage.join(config.output_uri, BEST_YAML),
            "trials": rows,
        },
    )


def _row(
    output_uri: str, names: Sequence[str], objective: Objective, one: EndedTrial
) -> dict[str, Any]:
    """One trial: its sample, its value, epochs, seconds, how it ended and why.

    The value is that of the epoch whose weights the trial has kept; with folds, the mean over
    their models, beside it its standard deviation and the value of each fold. A trial without a
    sound model has none, and is not ranked.
    """
    folds = objective.folds
    metrics = metrics_of(output_uri, one)
    columns = [name for name in objective.weights if name != objective.name]
    parent = {} if one.parent is None else {"parent": name_of(one.parent)}
    return {
        "trial": name_of(one.number),
        **{name: one.sample.get(name) for name in names},
        objective.name: objective.value(metrics) if metrics else None,
        **(_spread(output_uri, objective, one) if folds else {}),
        **{name: metrics.get(name) for name in columns},
        **({"folds": len(one.history)} if folds else {}),
        "epochs": int(sum(row[EPOCHS] for row in one.history)) if folds else len(one.history),
        "seconds": one.seconds,
        "state": one.state,
        "reason": one.reason,
        **parent,
    }


def _spread(output_uri: str, objective: Objective, one: EndedTrial) -> dict[str, Any]:
    """Standard deviation (of a sample) over the folds, and the value of each that is finished."""
    finished = objective.folds[: len(one.history)]
    models = metrics_of_models(output_uri, one.number, finished) if finished else []
    values = [objective.value(metrics) for metrics in models]
    of_fold: dict[str, float | None] = dict.fromkeys(objective.folds)
    of_fold |= zip(finished, values, strict=True)
    return {
        f"{objective.name}_std": stdev(values) if one.state == "done" else None,
        **{f"{objective.name}_{fold}": value for fold, value in of_fold.items()},
    }


def _with_front(rows: Sequence[dict[str, Any]], objective: Objective) -> list[dict[str, Any]]:
    done = [row for row in rows if row["state"] == "done"]
    front = objective.front([objective.values(row) for row in done])
    best = {row["trial"] for row, is_best in zip(done, front, strict=True) if is_best}
    return [{**row, "pareto": row["trial"] in best} for row in rows]


def _column(values: Sequence[Any]) -> pa.Array:
    """Numbers, texts or truths as they are; other values, and mixed ones, as text."""
    numbers = [isinstance(v, int | float) and not isinstance(v, bool) for v in values]
    kinds = {
        float if is_number else type(value)
        for value, is_number in zip(values, numbers, strict=True)
        if value is not None
    }
    if kinds == {float}:
        return pa.array([None if v is None else float(v) for v in values], pa.float64())
    if kinds <= {str} or kinds == {bool}:
        return pa.array(values)
    return pa.array([None if v is None else str(v) for v in values], pa.string())
