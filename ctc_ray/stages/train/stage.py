"""`ctc train`: learn a model with one output per head, on one or many workers.

in:  SHARD of a finished dataset
out: a bundle (weights, labels, pre-processing, provenance, card), history.csv, metrics.json,
     training.html, training.png, TensorBoard files, _manifest.json
"""

import logging
import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from ctc_ray.config.training import TrainConfig
from ctc_ray.errors import ConfigError, LabelError
from ctc_ray.files import storage
from ctc_ray.labels import LabelSpace
from ctc_ray.models.bundle import load_bundle, read_provenance
from ctc_ray.models.low_rank import add_low_rank
from ctc_ray.models.starting_weights import backbone_to_begin_with, weights_files
from ctc_ray.runs.claim import Claim
from ctc_ray.runs.manifest import Manifest, fingerprint, manifest_fingerprint, read_manifest
from ctc_ray.runs.output_folder import Run, open_run
from ctc_ray.runs.records import BundleRecord
from ctc_ray.stages.cluster.in_process_or_ray import is_on_cluster
from ctc_ray.stages.train import report, telling, tracking
from ctc_ray.stages.train.checkpoints import LAST_FILE
from ctc_ray.stages.train.computing import repeatable
from ctc_ray.stages.train.mapped_classes import with_classes
from ctc_ray.stages.train.speed import seconds_of as seconds_of
from ctc_ray.stages.train.stacks import require_short_events
from ctc_ray.stages.train.worker import IS_LAST as IS_LAST
from ctc_ray.stages.train.worker import Session, train_worker
from ctc_ray.stages.train.worker import Trial as Trial  # of a search
from ctc_ray.training.plans import list_row_groups

logger = logging.getLogger(__name__)

_SPLIT_OTHERWISE = "set split.by and split.fractions of create-dataset, or"
_WAYS_OUT = {  # for each part of a training whose images or labels are missing
    "train": "name others with --train-splits",
    "val": "name others with --val-splits",
    "test": "train without --test-split",
}


def run(config: TrainConfig, *, trial: Trial | None = None) -> Manifest:
    """Train, or resume a killed run; the manifest comes last.

    Args:
        trial: of a search, which has checked workers and model already.
    """
    config = config.replaced(
        dataset_uri=storage.absolute(config.dataset_uri),
        output_uri=storage.absolute(config.output_uri),
        mapping_uri=None if config.mapping_uri is None else storage.absolute(config.mapping_uri),
        model=config.model.model_copy(
            update={"pretrained": absolute_weights(config.model.pretrained)}
        ),
    )
    tracking.check(config, is_trial=trial is not None)
    dataset = check_dataset(config)
    inputs = inputs_of(config)
    fields = {**config.result_fields(), "inputs": inputs}
    if trial is None:
        on_cluster = is_on_cluster()
        is_here = config.workers_range == (1, 1) and not (config.gpus or on_cluster)
        config = with_gpus(config, on_cluster=on_cluster)
        if not is_here:
            check_workers(config)
        check_model(config, dataset)
    else:
        is_here = trial.report is not None
    with open_run(
        config.output_uri,
        "bundle",
        fields,
        overwrite=config.overwrite,
        has_more=partial(_has_more, config),
    ) as run:
        if isinstance(run, Manifest):
            return run
        with tracking.tracked(config, None if trial is None else trial.tracked) as tracker:
            if is_here:
                _train_here(config, dataset, run.claim, tracker, trial)
            else:
                from ctc_ray.stages.train.on_ray import train_on_ray  # Ray takes seconds to import

                train_on_ray(config, dataset, run.claim, trial, tracker=tracker)
            if trial is None:  # a search reports its trials together
                report.write(config.output_uri)
            manifest = _finish(config, run, fields)
            tracker.finish()
        if trial is None:
            logger.info("%s", telling.how_to_view(config.output_uri))
        return manifest


def _has_more(config: TrainConfig) -> bool:
    """Whether a finished training shall go on: with more epochs, or with more patience.

    Raises:
        ConfigError: it shall, and its last state is not there any more.
    """
    done = read_provenance(config.output_uri).config
    patience, old = config.early_stopping_patience, done["early_stopping_patience"]
    is_more = config.max_epochs > done["max_epochs"] or (patience or math.inf) > (old or math.inf)
    if is_more and not storage.is_file(storage.join(config.output_uri, LAST_FILE)):
        raise ConfigError(
            f"{config.output_uri}: {LAST_FILE} is not there, so the finished training cannot go "
            "on; begin a new one from it with --model.pretrained, in another --output-uri"
        )
    return is_more


def with_gpus(config: TrainConfig, *, on_cluster: bool) -> TrainConfig:
    """The configuration with one GPU per worker, if it leaves that open and so many are there.

    A cluster that would start nodes with GPUs when they are asked for has none yet: ask for them.

    Raises:
        ConfigError: images shall be decoded on GPUs, and there is none for each worker.
    """
    if config.gpu_per_worker is None:
        config = config.replaced(gpu_per_worker=_gpus_for(config, on_cluster=on_cluster))
    if config.decode_on == "gpu" and not config.gpus:
        raise ConfigError(
            f"--decode-on gpu: no GPU for each of --workers {config.workers}; use --decode-on cpu, "
            "or --gpu-per-worker 1 on a cluster that starts nodes with GPUs"
        )
    return config


def _gpus_for(config: TrainConfig, *, on_cluster: bool) -> float:
    """GPUs per worker: 1, if so many are there; otherwise 0."""
    n_gpus = float(torch.cuda.device_count())
    if on_cluster:
        from ctc_ray.stages.cluster.connect import connect, there  # Ray takes seconds to import

        connect()
        n_gpus = there().get("GPU", 0)
    return 1 if n_gpus >= config.workers_range[0] else 0


def _train_here(
    config: TrainConfig,
    dataset: Manifest,
    claim: Claim,
    tracker: tracking.Tracker,
    trial: Trial | None,
) -> None:
    """Train with one worker in this process, on its CPUs or its GPU."""
    report_resumed = None if trial is None else trial.report

    def report_epoch(metrics: Mapping[str, float], is_last: bool) -> None:
        tracker.add_epoch(metrics)
        if report_resumed is not None:
            report_resumed(metrics, is_last)

    session = Session(
        rank=0,
        n_workers=1,
        n_workers_here=1,
        n_trainings=1 if trial is None else trial.n_trainings,
        device="cuda" if config.gpus else "cpu",
        wrap=lambda model: model,
        report=report_epoch,
        report_resumed=report_resumed or (lambda *_: None),
        show=lambda line: logger.info("%s", line),
        keeps_last=trial is None,
    )
    with repeatable(is_on=config.deterministic):
        train_worker(config, dataset, claim, session)


def check_trial(config: TrainConfig) -> None:
    """Check what a trial of a search needs beside the dataset and the machines.

    Raises:
        ConfigError: it cannot be tracked as it shall be.
    """
    tracking.check(config, is_trial=True)


def check_dataset(config: TrainConfig) -> Manifest:
    """The dataset's manifest, with the classes that are learnt, if they can be.

    Raises:
        ConfigError: a split has no usable image, or the weights' file is not there.
        LabelError: a head is not in the dataset, or has no class.
    """
    dataset = read_manifest(config.dataset_uri, "dataset")
    for head in config.heads:
        if head not in dataset.classes:
            known = ", ".join(dataset.classes)
            raise LabelError(f"heads: {head!r} is no head of the dataset; its heads are {known}")
    dataset = with_classes(dataset, config)
    LabelSpace.from_json(dataset.classes).select(config.heads)
    _check_images(config, dataset)
    _check_labels(config, dataset)
    if config.is_stack and not config.stack_first_3:
        require_short_events(config.dataset_uri, dataset, config.splits)
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
    if config.mapping_uri is not None:
        inputs[config.mapping_uri] = storage.digest(config.mapping_uri)
    weights = config.model.pretrained
    if isinstance(weights, str):
        files = weights_files(weights)
        digests = [storage.digest(uri) for uri in files]
        inputs[weights] = digests[0] if len(digests) == 1 else fingerprint(digests)
    return inputs


def check_workers(config: TrainConfig, *, more_cpus: float = 0) -> None:
    """Check that all workers fit into the machine, together with `more_cpus`.

    Raises:
        ConfigError: they do not, so training would wait without end.
    """
    from ctc_ray.stages.cluster.connect import require  # Ray takes seconds to import

    least = config.workers_range[0]
    require(
        f"--workers {config.workers}, --cpu-per-worker {config.cpu_per_worker:g}, "
        f"--gpu-per-worker {config.gpus:g}",
        cpus=least * config.cpu_per_worker,
        gpus=least * config.gpus,
        n_workers=least,
        more_cpus=more_cpus,
    )


def check_model(config: TrainConfig, dataset: Manifest) -> None:
    """Make the backbone once, here: a wrong name or wrong weights are an error before any work.

    Raises:
        ConfigError: there is no such backbone, its weights or image size do not fit it, or it
            cannot learn because a batch holds one image.
    """
    model = config.model
    backbone, _ = backbone_to_begin_with(
        model.backbone, pretrained=model.pretrained, image_size=model.image_size
    )
    if model.lora_rank:
        add_low_rank(backbone.network, model.lora_rank, name=backbone.name)
    modules = () if model.freeze_backbone else backbone.network.modules()
    cause = _why_one_image(config, dataset)
    if cause and any(isinstance(m, _BatchNorm) for m in modules):
        raise ConfigError(
            f"{cause}: {model.backbone} normalises over the images of a batch, and learns nothing "
            "from one; take at least 2, a backbone without batch norm, or --model.freeze-backbone"
        )


def _why_one_image(config: TrainConfig, dataset: Manifest) -> str:
    """Why the batches of a worker hold one image; empty if they hold more."""
    if config.batch_size == 1:
        return "batch_size 1"
    groups = list_row_groups(config.dataset_uri, dataset.shards, *config.train_splits)
    n_items = sum(group.n_items(config.image_choice) for group in groups)
    if n_items > config.workers_range[1]:
        return ""
    what = "training images" if config.image_choice == "all" else "events with a training image"
    return f"{n_items} {what} on {config.workers} workers give 1 per batch"


def _check_images(config: TrainConfig, dataset: Manifest) -> None:
    for part, splits in config.parts.items():
        for split in splits:
            if not any(s.split == split and s.n_images > s.n_failed for s in dataset.shards):
                known = sorted({shard.split for shard in dataset.shards})
                raise ConfigError(
                    f"{config.dataset_uri}: no usable image in split {split!r}; splits are "
                    f"{', '.join(known)} ({_SPLIT_OTHERWISE} {_WAYS_OUT[part]})"
                )


def _check_labels(config: TrainConfig, dataset: Manifest) -> None:
    for part, splits in config.parts.items():
        labels = dataset.labels_of(splits)
        for head in config.heads:
            if not any(labels[head].values()):
                names = ", ".join(map(repr, splits))
                raise ConfigError(
                    f"{config.dataset_uri}: no usable image of split {names} has a label of head "
                    f"{head!r}; leave the head out, split otherwise, or {_WAYS_OUT[part]}"
                )
    for head in config.heads:
        counts = dataset.labels_of(config.train_splits)[head]
        unseen = [name for name in dataset.classes[head] if not counts.get(name)]
        if len(dataset.classes[head]) == 1:
            logger.warning("head %s has one class only: its accuracy of 1 says nothing", head)
        elif unseen:
            logger.warning(
                "head %s: no training image of %s; the model cannot learn these classes",
                head,
                ", ".join(unseen),
            )


def _finish(config: TrainConfig, run: Run, fields: dict[str, Any]) -> Manifest:
    bundle = load_bundle(config.output_uri)
    about = bundle.provenance
    measured = {"validation": about.metrics, "test": about.test_metrics}
    manifest = Manifest(
        kind="bundle",
        config={name: value for name, value in fields.items() if name != "inputs"},
        inputs=fields["inputs"],
        classes=bundle.label_space.to_json(),
        bundle=BundleRecord(
            image_size=bundle.image_size,
            keep_aspect=bundle.keep_aspect,
            is_stack=bundle.is_stack,
        ),
        summary={
            "image_size": bundle.image_size,
            "keep_aspect": bundle.keep_aspect,
            "val_loss": about.metrics["loss"],
            **{
                f"on the {split} split": [_row(head, found) for head in bundle.label_space.heads]
                for split, found in measured.items()
                if found
            },
        },
    )
    run.finish(manifest)
    logger.info("wrote the model to %s", config.output_uri)
    return manifest


def _row(head: str, metrics: Mapping[str, float]) -> dict[str, str | float | None]:
    names = ("accuracy", "macro_f1", "top5", "n", "event_accuracy", "event_macro_f1", "event_n")
    return {"head": head, **{name: metrics.get(f"{name}_{head}") for name in names}}
