"""`ctc train`: learn a model with one output per head, on one or many workers.

in:  SHARD of a finished dataset
out: a bundle (weights, labels, pre-processing, provenance, card), history.csv, manifest.json

Every epoch ends in a checkpoint below `_work/`, so a killed run goes on with the next epoch. Each
worker reads its own share of the shards as a function of (seed, epoch, rank): on one CPU worker the
weights are the same whether the run was killed or not.
"""

import logging
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray.train
import torch
from ray.train.torch import TorchTrainer, get_device, prepare_model

from ctc_ray.config.training import TrainConfig
from ctc_ray.console import logs
from ctc_ray.errors import ConfigError, CtcError, LabelError
from ctc_ray.files import storage
from ctc_ray.labels import LabelSpace
from ctc_ray.models.backbones import make_backbone
from ctc_ray.models.bundle import load_bundle
from ctc_ray.runs.layout import WORK_FOLDER
from ctc_ray.runs.manifest import Manifest, manifest_fingerprint, read_manifest
from ctc_ray.runs.output_folder import begin_work, finish_work
from ctc_ray.stages.cluster.connect import connect, require
from ctc_ray.stages.cluster.messages import WorkerLogRelay
from ctc_ray.stages.train.job import TrainingJob

logger = logging.getLogger(__name__)

_SHOWN = ("accuracy", "macro_f1", "top5", "n")
_MAX_RESTARTS = 3  # after a lost node or worker; each begins at the last checkpoint


def run(config: TrainConfig, *, callbacks: Sequence[Any] = ()) -> Manifest:
    """Train, or go on with a killed run; the manifest comes last.

    Args:
        callbacks: of Ray Train, e.g. to report to Ray Tune.
    """
    config = config.replaced(
        dataset_uri=storage.absolute(config.dataset_uri),
        output_uri=storage.absolute(config.output_uri),
        model=config.model.model_copy(
            update={"pretrained": absolute_weights(config.model.pretrained)}
        ),
    )
    dataset = check_dataset(config)
    check_model(config)
    inputs = inputs_of(config)
    check_workers(config)
    work = {**config.work(), "inputs": inputs}
    if begin_work(config.output_uri, "bundle", work, overwrite=config.overwrite):
        logger.info("%s is complete already", config.output_uri)
        return read_manifest(config.output_uri, "bundle")
    connect()
    try:
        with WorkerLogRelay(logger) as listener:
            _fit(config, dataset, listener, callbacks)
    except ray.train.WorkerGroupError as error:
        for failure in error.worker_failures.values():
            if isinstance(failure, CtcError):  # for the user, not a fault of the code
                raise failure from None
        raise
    return _finish(config, inputs)


def check_dataset(config: TrainConfig) -> Manifest:
    """The dataset's manifest, if this configuration can be trained on it.

    Raises:
        ConfigError: a split has no usable image, or the weights' file is not there.
        LabelError: a head is not in the dataset, or has no class.
    """
    dataset = read_manifest(config.dataset_uri, "dataset")
    for head in config.heads:
        if head not in dataset.classes:
            known = ", ".join(dataset.classes)
            raise LabelError(f"heads: {head!r} is no head of the dataset; its heads are {known}")
    LabelSpace.from_json(dataset.classes).select(config.heads)
    for split in ("train", "val"):
        if not any(s["split"] == split and s["n_images"] > s["n_failed"] for s in dataset.shards):
            splits = sorted({shard["split"] for shard in dataset.shards})
            raise ConfigError(
                f"{config.dataset_uri}: no usable image in split {split!r}; splits are "
                f"{', '.join(splits)} (set split.by and split.fractions of create-dataset)"
            )
    _check_labels(config, dataset)
    weights = config.model.pretrained
    if isinstance(weights, str) and not storage.exists(weights):
        raise ConfigError(f"model.pretrained: {weights}: no such file")
    return dataset


def absolute_weights(pretrained: str | bool) -> str | bool:
    """`model.pretrained` as every process of the cluster may use it."""
    return storage.absolute(pretrained) if isinstance(pretrained, str) else pretrained


def inputs_of(config: TrainConfig) -> dict[str, str]:
    """What the model is made of -> a fingerprint that changes with its content."""
    inputs = {config.dataset_uri: manifest_fingerprint(config.dataset_uri)}
    weights = config.model.pretrained
    return inputs | ({weights: storage.digest(weights)} if isinstance(weights, str) else {})


def check_workers(config: TrainConfig, *, more_cpus: float = 0) -> None:
    """Check that all workers fit into the machine, together with `more_cpus`.

    Raises:
        ConfigError: they do not, so training would wait without end.
    """
    require(
        f"--workers {config.workers}, --cpu-per-worker {config.cpu_per_worker:g}, "
        f"--gpu-per-worker {config.gpu_per_worker:g}",
        cpus=config.workers * config.cpu_per_worker + more_cpus,
        gpus=config.workers * config.gpu_per_worker,
    )


def check_model(config: TrainConfig) -> None:
    """Make the backbone once, here: a wrong name or wrong weights are told before Ray starts.

    Raises:
        ConfigError: there is no such backbone, or its weights or image size do not fit it.
    """
    model = config.model
    make_backbone(model.backbone, pretrained=model.pretrained, image_size=model.image_size)


def _check_labels(config: TrainConfig, dataset: Manifest) -> None:
    for split in ("train", "val"):
        for head in config.heads:
            if not any(dataset.labels[split][head].values()):
                raise ConfigError(
                    f"{config.dataset_uri}: no usable image of split {split!r} has a label of head "
                    f"{head!r}; leave the head out, or split otherwise"
                )


def _fit(
    config: TrainConfig, dataset: Manifest, listener: WorkerLogRelay, callbacks: Sequence[Any]
) -> None:
    """Train on the cluster that is connected; the bundle is written, its manifest is not."""
    resources = {"CPU": config.cpu_per_worker}
    if config.gpu_per_worker:
        resources["GPU"] = config.gpu_per_worker
    trainer = TorchTrainer(
        train_worker,
        train_loop_config={
            "config": config.model_dump(mode="json"),
            "dataset": dataset.model_dump(mode="json"),
            "mailbox": listener.mailbox,
        },
        scaling_config=ray.train.ScalingConfig(
            num_workers=config.workers,
            use_gpu=config.gpu_per_worker > 0,
            resources_per_worker=resources,
        ),
        run_config=ray.train.RunConfig(
            name="run",
            storage_path=storage.join(config.output_uri, WORK_FOLDER),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=1),
            failure_config=ray.train.FailureConfig(max_failures=_MAX_RESTARTS),
            callbacks=list(callbacks),
        ),
    )
    trainer.fit()


def train_worker(settings: dict[str, Any]) -> None:
    """What one worker does: its share of every epoch, until the last or until nothing improves."""
    logs.set_up()
    config = TrainConfig.model_validate(settings["config"])
    dataset = Manifest.model_validate(settings["dataset"])
    context = ray.train.get_context()
    rank, n_workers = context.get_world_rank(), context.get_world_size()
    if not config.gpu_per_worker:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // context.get_local_world_size()))
    job = TrainingJob(config, dataset, rank=rank, n_workers=n_workers, device=get_device())
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is not None:
        with checkpoint.as_directory() as folder:
            job.load(Path(folder))
    job.wrap(prepare_model)
    while not job.is_done:
        began = time.perf_counter()
        metrics = job.next_epoch()
        metrics["seconds"] = round(time.perf_counter() - began, 2)
        if rank == 0:
            settings["mailbox"].put.remote(job.line(metrics))
        with tempfile.TemporaryDirectory() as folder:
            if rank == 0:
                job.save(Path(folder))
            ray.train.report(
                metrics,
                checkpoint=ray.train.Checkpoint.from_directory(folder) if rank == 0 else None,
            )
    if rank == 0:
        job.write_bundle()


def _finish(config: TrainConfig, inputs: dict[str, str]) -> Manifest:
    bundle = load_bundle(config.output_uri)
    metrics = bundle.provenance.metrics
    heads = bundle.label_space.heads
    manifest = Manifest(
        kind="bundle",
        config=config.work(),
        inputs=inputs,
        classes=bundle.label_space.to_json(),
        counts={
            "image_size": bundle.image_size,
            "keep_aspect": bundle.keep_aspect,
            "val_loss": metrics["loss"],
            "on the validation split": [
                {
                    "head": head,
                    **{
                        k: metrics.get(f"{k}_{head}") for k in ("accuracy", "macro_f1", "top5", "n")
                    },
                }
                for head in heads
            ],
        },
    )
    finish_work(config.output_uri, manifest)
    logger.info("wrote the model to %s", config.output_uri)
    return manifest
