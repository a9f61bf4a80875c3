"""`ctc tune`: search for the fields of a train configuration that give the best model.

Every trial is `ctc train` on its own sample of the search space, stopped early by ASHA when it
falls behind.

in:  a dataset, a train configuration and a search space
out: trials.csv, best.yaml (for `ctc train --config`), trials/ with TensorBoard files per trial,
     models/ with the bundle of every trial that ran to its end, _manifest.json
"""

import csv
import io
import json
import logging
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, assert_never

import ray.tune
from ray.exceptions import (
    NodeDiedError,
    RayActorError,
    RayError,
    RayTaskError,
    WorkerCrashedError,
)
from ray.tune.integration.ray_train import TuneReportCallback
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search import BasicVariantGenerator

from ctc_ray.config.base import merge, to_yaml
from ctc_ray.config.choices import Direction
from ctc_ray.config.search import Dimension, parse_space, train_config
from ctc_ray.config.training import MONITORED
from ctc_ray.config.tuning import TuneConfig
from ctc_ray.errors import ConfigError, CtcError
from ctc_ray.files import storage
from ctc_ray.files.csv_text import csv_of_records
from ctc_ray.models.bundle import HISTORY_FILE, load_bundle
from ctc_ray.runs.claim import end_claims_below
from ctc_ray.runs.manifest import Manifest, is_complete
from ctc_ray.runs.output_folder import open_run
from ctc_ray.stages.cluster.connect import connect
from ctc_ray.stages.cluster.errors import ray_work
from ctc_ray.stages.cluster.in_process_or_ray import is_on_cluster
from ctc_ray.stages.train import stage as train

logger = logging.getLogger(__name__)

_TRIALS = "trials"
_MODELS = "models"
_ERRORS = "_work/errors"  # of trials, each with its own
_MAX_RESTARTS = 3  # of a trial whose node is lost; each resumes from its last checkpoint
_CPU_PER_TRIAL = 0.25  # of the process that waits for the workers
_OF_WORKERS = ("workers", "cpu_per_worker", "gpu_per_worker")


def run(config: TuneConfig) -> Manifest:
    """Run the trials that are not finished, write their table and the best configuration."""
    config = config.replaced(
        output_uri=storage.absolute(config.output_uri),
        train=_absolute_train(config),
    )
    dimensions = {name: _absolute(name, d) for name, d in parse_space(config).items()}
    dataset, inputs = _check_trials(config, dimensions)
    _check_metric(config, dimensions)
    fields = {**config.result_fields(), "inputs": inputs}
    with open_run(config.output_uri, "trials", fields, overwrite=config.overwrite) as run:
        if isinstance(run, Manifest):
            return run
        end_claims_below(storage.join(config.output_uri, _MODELS))  # of a search that was killed
        storage.delete_folder(storage.join(config.output_uri, _ERRORS))  # this one tries again
        with ray_work():
            connect(dashboard=True)
            results = _tuner(config, dimensions).fit()
        _require_all_ended(config, dimensions, results)
        _require_none_lost(config, results)
        return run.finish(_summarise(config, list(dimensions), results, dataset, inputs))


def _absolute_train(config: TuneConfig) -> dict[str, Any]:
    uri, model = config.train.get("dataset_uri"), config.train.get("model")
    if not isinstance(uri, str):
        raise ConfigError("train.dataset_uri is required")
    values = merge(config.train, {"dataset_uri": storage.absolute(uri)})
    if isinstance(old := config.train.get("continue_from"), str):
        values = merge(values, {"continue_from": storage.absolute(old)})
    if isinstance(model, Mapping) and "pretrained" in model:
        weights = train.absolute_weights(model["pretrained"])
        values = merge(values, {"model": {"pretrained": weights}})
    return values


def _absolute(name: str, dimension: Dimension) -> Dimension:
    if name != "model.pretrained":
        return dimension
    return replace(dimension, values=tuple(map(train.absolute_weights, dimension.values)))


def _check_trials(
    config: TuneConfig, dimensions: Mapping[str, Dimension]
) -> tuple[Manifest, dict[str, str]]:
    """Check the train configuration, and each value alone of what changes model or workers."""
    tried = [
        train_config(config, {name: value})
        for name, dimension in dimensions.items()
        if name.startswith("model.") or name in _OF_WORKERS
        for value in dimension.extremes()
    ]
    n_trials = min(config.concurrent_trials, config.trials)
    inputs: dict[str, str] = {}
    for trial in tried or [train_config(config, {})]:
        train.check_trial(trial)
        dataset = train.check_dataset(trial)
        on_gpus = train.with_gpus(trial, on_cluster=is_on_cluster())
        train.check_workers(on_gpus, more_cpus=n_trials * _CPU_PER_TRIAL)
        train.check_model(trial, dataset)
        inputs |= train.inputs_of(trial)
    return dataset, inputs


def _check_metric(config: TuneConfig, dimensions: Mapping[str, Dimension]) -> None:
    heads = train_config(config, {}).heads
    known = ["val_loss", *(f"val_{name}_{head}" for head in heads for name in MONITORED)]
    if config.metric not in known:
        raise ConfigError(f"metric: {config.metric!r} is not known; metrics are {', '.join(known)}")
    weights = [name for name in dimensions if name.startswith("loss_weights")]
    if config.metric == "val_loss" and weights:
        raise ConfigError(
            f"metric: val_loss is weighted by {', '.join(weights)} of the search space, so it does "
            f"not compare trials; take another, e.g. val_macro_f1_{heads[0]}"
        )


def _tuner(config: TuneConfig, dimensions: Mapping[str, Dimension]) -> ray.tune.Tuner:
    trial = ray.tune.with_resources(_trial(config), {"cpu": _CPU_PER_TRIAL})
    experiment_uri = storage.join(config.output_uri, _TRIALS)
    if ray.tune.Tuner.can_restore(experiment_uri):
        logger.info("going on with the trials of %s", experiment_uri)
        return ray.tune.Tuner.restore(experiment_uri, trial, restart_errored=True)
    base = train_config(config, {})
    return ray.tune.Tuner(
        trial,
        param_space={name: _domain(dimension) for name, dimension in dimensions.items()},
        tune_config=ray.tune.TuneConfig(
            num_samples=config.trials,
            search_alg=BasicVariantGenerator(
                random_state=config.seed, max_concurrent=config.concurrent_trials
            ),
            scheduler=ASHAScheduler(
                time_attr="epoch",
                metric=config.metric,
                mode=config.mode,
                max_t=base.max_epochs + 1,  # what runs to its end ends by itself, with its model
                grace_period=min(config.grace_epochs, base.max_epochs),
                reduction_factor=config.reduction_factor,
            ),
        ),
        run_config=ray.tune.RunConfig(
            name=_TRIALS,
            storage_path=config.output_uri,
            verbose=0,
            failure_config=ray.tune.FailureConfig(max_failures=_MAX_RESTARTS),
            callbacks=[_TellProgress(config.metric)],
        ),
    )


class _TellProgress(ray.tune.Callback):  # type: ignore[misc]  # Ray is untyped here
    """A line per epoch of every trial, on the driver."""

    def __init__(self, metric: str) -> None:
        self._metric = metric

    def on_trial_result(self, **event: Any) -> None:
        """Called by Ray Tune after each epoch."""
        trial, result = event["trial"], event["result"]
        sample = ", ".join(f"{name}={value}" for name, value in trial.config.items())
        logger.info(
            "trial %s, epoch %s: %s %.4g (%s)",
            trial.trial_id,
            result.get("epoch"),
            self._metric,
            result.get(self._metric, float("nan")),
            sample,
        )


def _trial(config: TuneConfig) -> Any:
    def trial(sample: dict[str, Any]) -> None:
        name = ray.tune.get_context().get_trial_id()
        output_uri = storage.join(config.output_uri, _MODELS, name)
        end_claims_below(output_uri)  # of a node that is lost: Ray Tune runs a trial once at a time
        connect()
        own = train_config(config, sample, output_uri=output_uri)
        with _final_error(storage.join(config.output_uri, _ERRORS, f"{name}.json")):
            train.run(
                own,
                callbacks=[TuneReportCallback()],
                n_trainings=min(config.concurrent_trials, config.trials),
            )

    return trial


@contextmanager
def _final_error(uri: str) -> Iterator[None]:
    """Let a trial raise its own error again, without any work, when Ray Tune starts it again.

    Ray Tune tries a trial again whatever has ended it. Only a lost node is worth it.
    """
    if storage.is_file(uri):
        raise CtcError(json.loads(storage.read_bytes(uri))["error"])
    try:
        yield
    except CtcError as error:
        if not isinstance(error.__cause__, RayError):
            storage.write_json(uri, {"error": str(error)})
        raise
    except Exception as error:
        storage.write_json(uri, {"error": f"{type(error).__name__}: {error}"})
        raise


def _domain(dimension: Dimension) -> Any:
    values = dimension.values
    match dimension.kind:
        case "choice":
            return ray.tune.choice(list(values))
        case "grid":
            return ray.tune.grid_search(list(values))
        case "uniform":
            return ray.tune.uniform(*values)
        case "loguniform":
            return ray.tune.loguniform(*values)
        case "randint":
            return ray.tune.randint(*values)
        case _:
            assert_never(dimension.kind)


def _best(direction: Direction) -> Callable[..., Any]:
    """The function that finds the best of several values."""
    match direction:
        case "min":
            return min
        case "max":
            return max
        case _:
            assert_never(direction)


def _require_all_ended(
    config: TuneConfig, dimensions: Mapping[str, Dimension], results: ray.tune.ResultGrid
) -> None:
    """Count the trials: that Ray Tune returns does not say that it has run them all.

    Raises:
        CtcError: some have not ended.
    """
    grids = [len(d.values) for d in dimensions.values() if d.kind == "grid"]
    n_planned = config.trials * math.prod(grids)
    n_ended = results.num_terminated + results.num_errors
    if n_ended != n_planned or n_ended != len(results):
        raise CtcError(
            f"{config.output_uri}: {n_ended} of {n_planned} trials have ended; what is done is "
            "kept, and the same command resumes"
        )


def _require_none_lost(config: TuneConfig, results: Iterable[ray.tune.Result]) -> None:
    """A trial that was lost with its node says nothing of its sample.

    Raises:
        CtcError: there is such a trial.
    """
    n_lost = sum(is_lost(result.error) for result in results)
    if n_lost:
        raise CtcError(
            f"{config.output_uri}: {n_lost} trials were lost with their nodes, each "
            f"{_MAX_RESTARTS + 1} times; what is done is kept, and the same command resumes them"
        )


def is_lost(error: Exception | None) -> bool:
    """Whether the process of a trial is gone, as with a lost node, and has raised no error."""
    while isinstance(error, RayTaskError):
        error = error.cause
    return isinstance(error, RayActorError | NodeDiedError | WorkerCrashedError)


def _summarise(
    config: TuneConfig,
    names: list[str],
    results: ray.tune.ResultGrid,
    dataset: Manifest,
    inputs: dict[str, str],
) -> Manifest:
    rows = [_row(config, names, result) for result in results]
    storage.write_bytes(storage.join(config.output_uri, "trials.csv"), csv_of_records(rows))
    done = [row for row in rows if row["state"] == "done"]
    if not done:
        reasons = sorted({str(row["reason"]) for row in rows if row["reason"]})
        raise ConfigError(f"no trial ended with a model: {'; '.join(reasons)} (see trials.csv)")
    best = _best(config.mode)(done, key=lambda row: row[config.metric])
    sample = {name: best[name] for name in names}
    chosen = train_config(config, sample, output_uri=storage.join(config.output_uri, "best-model"))
    text = to_yaml(chosen.model_dump(mode="json"))
    storage.write_bytes(storage.join(config.output_uri, "best.yaml"), text.encode())
    return Manifest(
        kind="trials",
        config=config.result_fields(),
        inputs=inputs,
        classes={head: dataset.classes[head] for head in chosen.heads},
        summary={
            "best trial": best["trial"],
            "best.yaml": storage.join(config.output_uri, "best.yaml"),
            "trials": rows,
        },
    )


def _row(config: TuneConfig, names: list[str], result: ray.tune.Result) -> dict[str, Any]:
    """One trial: its sample, its value, epochs, seconds, how it ended and why.

    The value is that of the epoch whose weights the trial has kept. A trial without a sound model
    has none, and is not ranked.
    """
    metrics = result.metrics or {}
    trial = metrics.get("trial_id", "")
    value, n_epochs = _kept(config, trial)
    is_sound = value is not None and math.isfinite(value)
    if is_sound:
        state, reason = "done", ""
    elif result.error:
        state, reason = "error", _last_line(result.error)
    elif value is not None:
        state, reason = "error", f"{config.metric} of the model is not a number"
    else:
        state, reason = "stopped", "other trials were better after as many epochs"
    return {
        "trial": trial,
        **{name: (result.config or {}).get(name) for name in names},
        config.metric: value if is_sound else None,
        "epochs": n_epochs or metrics.get("epoch", 0),
        "seconds": round(metrics.get("time_total_s", 0.0), 1),
        "state": state,
        "reason": reason,
    }


def _kept(config: TuneConfig, trial: str) -> tuple[float | None, int]:
    """The metric of the model that a trial has written, and its epochs; None and 0 without one."""
    uri = storage.join(config.output_uri, _MODELS, trial)
    if not trial or not is_complete(uri):
        return None, 0
    metrics = load_bundle(uri).provenance.metrics
    rows = csv.DictReader(io.StringIO(storage.read_bytes(storage.join(uri, HISTORY_FILE)).decode()))
    return metrics.get(config.metric.removeprefix("val_"), math.nan), len(list(rows))


def _last_line(error: object) -> str:
    """The line of an error that says what was wrong, without the classes that Ray wraps it in."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    last = lines[-1] if lines else type(error).__name__
    return re.sub(r"^(?:[\w.]+(?:Error|Exception)(?:\([\w.]+\))?: )+", "", last)
