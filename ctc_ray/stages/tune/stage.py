"""`ctc tune`: search for the fields of a train configuration that give the best model.

Every trial is `ctc train` on its own sample of the search space; those that fall behind end early.

in:  a dataset, a train configuration and a search space
out: trials.html, trials.csv, trials.parquet, best.yaml (for `ctc train --config`), models/ with the
     bundle of every trial that ran to its end (with folds, of each fold) and TensorBoard files of
     each, _manifest.json
"""

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import ray.tune

from ctc_ray.config.base import merge
from ctc_ray.config.search import Dimension, n_planned, parse_space, train_config
from ctc_ray.config.training import TrainConfig
from ctc_ray.config.tuning import TuneConfig
from ctc_ray.console.board import board
from ctc_ray.errors import ConfigError, CtcError
from ctc_ray.files import storage
from ctc_ray.runs.claim import end_claims_below
from ctc_ray.runs.manifest import Manifest, read_manifest
from ctc_ray.runs.output_folder import open_run
from ctc_ray.stages.cluster.connect import connect
from ctc_ray.stages.cluster.errors import ray_work
from ctc_ray.stages.cluster.in_process_or_ray import is_on_cluster
from ctc_ray.stages.train import stage as train
from ctc_ray.stages.tune.objective import Objective, objective_of
from ctc_ray.stages.tune.progress import SearchProgress
from ctc_ray.stages.tune.records import MODELS, EndedTrial, read_ended
from ctc_ray.stages.tune.report import SearchPage
from ctc_ray.stages.tune.searching import (
    Planned,
    require_searchable,
    samples_of,
    scheduler_of,
)
from ctc_ray.stages.tune.table import metrics_of, summarise
from ctc_ray.stages.tune.trial import CPU_OF_WAITING, trial_function
from ctc_ray.stages.tune.watching import Watching, how_to_watch, watching
from ctc_ray.training.plans import list_row_groups

logger = logging.getLogger(__name__)

_RAY_TUNE = "_work/tune"
_MAX_RESTARTS = 3  # of a trial whose node is lost; each resumes from its last checkpoint
_OF_WORKERS = ("workers", "cpu_per_worker", "gpu_per_worker")


@dataclass(frozen=True)
class Search:
    """What a search is, after all has been checked."""

    config: TuneConfig
    dimensions: Mapping[str, Dimension]
    objective: Objective
    dataset: Manifest

    @property
    def base(self) -> TrainConfig:
        """The configuration that all trials share."""
        return train_config(self.config, {})

    @property
    def n_planned(self) -> int:
        """Trials of the whole search."""
        return n_planned(self.dimensions, self.config.trials)

    @property
    def is_here(self) -> bool:
        """Whether a trial trains in its own process, without workers of Ray Train."""
        return _is_here(self.config, self.dimensions)

    def left(self, ended: Mapping[int, EndedTrial]) -> list[int]:
        """Numbers of the trials that have not ended, ascending."""
        return [number for number in range(self.n_planned) if number not in ended]

    def is_spent(self, ended: Sequence[EndedTrial]) -> bool:
        """Whether the trials have taken all hours or images that they may take."""
        hours, images = self.config.max_hours, self.config.max_images
        return (hours is not None and sum(t.seconds for t in ended) >= hours * 3600) or (
            images is not None and sum(t.n_images for t in ended) >= images
        )


def _is_here(config: TuneConfig, dimensions: Mapping[str, Dimension]) -> bool:
    has_one_worker = train_config(config, {}).workers_range == (1, 1)
    return has_one_worker and not set(_OF_WORKERS) & set(dimensions)


def run(config: TuneConfig) -> Manifest:
    """Run the trials that have not ended; write their table and the best configuration."""
    config = config.replaced(
        output_uri=storage.absolute(config.output_uri),
        train=_absolute_train(config),
    )
    dimensions = {name: _absolute(name, d) for name, d in parse_space(config).items()}
    require_searchable(config, dimensions)
    objective = objective_of(config, dimensions)
    dataset, inputs = _check_trials(config, dimensions)
    search = Search(config, dimensions, objective, dataset)
    fields = {**config.result_fields(), "inputs": inputs}

    def has_more() -> bool:
        ended = read_ended(config.output_uri)
        return bool(search.left(ended)) and not search.is_spent(list(ended.values()))

    with open_run(
        config.output_uri, "trials", fields, overwrite=config.overwrite, has_more=has_more
    ) as run:
        if isinstance(run, Manifest):
            return run
        end_claims_below(storage.join(config.output_uri, MODELS))  # of a search that was killed
        page = SearchPage(config, dimensions, objective, search.n_planned)
        with watching(config, objective, page) as watched:
            if has_more():
                logger.info("to watch: %s", how_to_watch(config.output_uri))
                with ray_work():
                    connect(dashboard=not search.is_here)
                    _run_trials(search, watched)
            storage.delete_folder(storage.join(config.output_uri, _RAY_TUNE))
            ended = read_ended(config.output_uri)
            page.write(ended)
            _require_all_ended(search, ended)
            manifest = run.finish(
                summarise(config, dimensions, objective, list(ended.values()), dataset, inputs)
            )
            watched.finish()
        logger.info("%s", how_to_watch(config.output_uri))
        return manifest


def _absolute_train(config: TuneConfig) -> dict[str, Any]:
    uri, model = config.train.get("dataset_uri"), config.train.get("model")
    if not isinstance(uri, str):
        raise ConfigError("--dataset-uri is required")
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
    """Check what all trials share, and each value of what changes model or workers.

    Returns:
        The dataset's manifest, and the inputs with their fingerprints.
    """
    tried = [
        train_config(config, {name: value})
        for name, dimension in dimensions.items()
        if name.startswith("model.") or name in _OF_WORKERS
        for value in dimension.extremes()
    ]
    n_waiting = 0 if _is_here(config, dimensions) else min(config.concurrent_trials, config.trials)
    inputs: dict[str, str] = {}
    _check_folds(config)
    for trial in tried or [train_config(config, {})]:
        train.check_trial(trial)
        dataset = train.check_dataset(trial)
        on_gpus = train.with_gpus(trial, on_cluster=is_on_cluster())
        train.check_workers(on_gpus, more_cpus=n_waiting * CPU_OF_WAITING)
        train.check_model(trial, dataset)
        inputs |= train.inputs_of(trial)
    return dataset, inputs


def _check_folds(config: TuneConfig) -> None:
    """Check that the dataset has the folds, and that each can measure what the others teach.

    Raises:
        ConfigError: it cannot.
    """
    if not config.folds:
        return
    uri = train_config(config, {}).dataset_uri
    splits = sorted({shard.split for shard in read_manifest(uri, "dataset").shards})
    if unknown := [name for name in config.folds if name not in splits]:
        raise ConfigError(
            f"folds: {uri} has no split {unknown[0]!r}; splits are {', '.join(splits)} (make folds "
            "with --split.folds of create-dataset, or name the splits)"
        )
    for fold in config.folds:
        train.check_dataset(train_config(config, {}, fold=fold))
    if unused := [name for name in splits if name not in config.folds]:
        logger.info("splits that no fold learns from or measures: %s", ", ".join(unused))


def _run_trials(search: Search, watched: Watching) -> None:
    """Let Ray Tune run the trials that are left; each that ends leaves its record."""
    config, output_uri = search.config, search.config.output_uri
    ended = read_ended(output_uri)
    if ended:
        logger.info("resuming: %d trials have ended", len(ended))
    progress = SearchProgress(
        config, search.objective, ended, n_planned=search.n_planned, n_items=_n_items(search)
    )
    samples = samples_of(
        config,
        search.dimensions,
        search.objective,
        progress.ended,
        lambda number: metrics_of(output_uri, progress.ended[number]),
    )

    def on_end(one: EndedTrial) -> None:
        samples.tell(one)
        watched.add(one, progress.ended)

    progress.on_end = on_end
    left = search.left(ended)
    planned = Planned(left, samples, is_spent=lambda: search.is_spent([*progress.ended.values()]))
    storage.delete_folder(storage.join(output_uri, _RAY_TUNE))
    # our records outlive the search; those of Ray Tune would be a second copy of them
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    # a trial of one epoch, and one that has failed, ends without a report of the objective
    os.environ["TUNE_DISABLE_STRICT_METRIC_CHECKING"] = "1"
    trial = trial_function(
        config, search.objective, is_here=search.is_here, parent_run=watched.parent_run
    )
    tuner = ray.tune.Tuner(
        ray.tune.with_resources(trial, _resources(search)),
        tune_config=ray.tune.TuneConfig(
            num_samples=len(left),
            search_alg=planned,
            max_concurrent_trials=config.concurrent_trials,
            scheduler=scheduler_of(
                config,
                search.objective,
                len(config.folds) or search.base.max_epochs,
                list(ended.values()),
            ),
            reuse_actors=search.is_here,
        ),
        run_config=ray.tune.RunConfig(
            name="tune",
            storage_path=storage.join(output_uri, "_work"),
            verbose=0,
            failure_config=ray.tune.FailureConfig(max_failures=_MAX_RESTARTS),
            callbacks=[progress],
        ),
    )
    with board() as progress.board:
        tuner.fit()


def _resources(search: Search) -> dict[str, float]:
    """What Ray reserves for the process of a trial."""
    if not search.is_here:
        return {"cpu": CPU_OF_WAITING}
    base = train.with_gpus(search.base, on_cluster=is_on_cluster())
    gpus = search.config.gpus_per_trial
    return {"cpu": base.cpu_per_worker, "gpu": base.gpus if gpus is None else gpus}


def _n_items(search: Search) -> list[int]:
    """Images per epoch; of each fold, if there are folds."""
    found = []
    for one in [train_config(search.config, {}, fold=f) for f in search.config.folds or [None]]:
        groups = list_row_groups(one.dataset_uri, search.dataset.shards, *one.train_splits)
        found.append(sum(group.n_items(one.image_choice) for group in groups))
    return found


def _require_all_ended(search: Search, ended: Mapping[int, EndedTrial]) -> None:
    """Count the trials: that Ray Tune returns does not say that it has run them all.

    Raises:
        CtcError: some have not ended.
    """
    left = search.left(ended)
    if left and not search.is_spent(list(ended.values())):
        raise CtcError(
            f"{search.config.output_uri}: {search.n_planned - len(left)} of {search.n_planned} "
            "trials have ended; what is done is kept, and the same command resumes"
        )
