"""`ctc train`: learn a model with one output per head, on one or many workers.

in:  SHARD of a finished dataset
out: a bundle (weights, labels, pre-processing, provenance, card), history.csv, _manifest.json
"""

import logging
from collections.abc import Sequence
from typing import Any

from ctc_ray.config.training import TrainConfig
from ctc_ray.errors import ConfigError, LabelError
from ctc_ray.files import storage
from ctc_ray.labels import LabelSpace
from ctc_ray.models.backbones import make_backbone
from ctc_ray.models.bundle import load_bundle
from ctc_ray.runs.claim import Claim
from ctc_ray.runs.manifest import Manifest, manifest_fingerprint, read_manifest
from ctc_ray.runs.output_folder import Run, open_run
from ctc_ray.runs.records import BundleRecord
from ctc_ray.stages.cluster.in_process_or_ray import is_on_cluster
from ctc_ray.stages.train.worker import Session, train_worker

logger = logging.getLogger(__name__)


def run(config: TrainConfig, *, callbacks: Sequence[Any] = ()) -> Manifest:
    """Train, or resume a killed run; the manifest comes last.

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
    is_local = config.workers == 1 and not (config.gpu_per_worker or callbacks or is_on_cluster())
    if not is_local:
        check_workers(config)
    fields = {**config.result_fields(), "inputs": inputs}
    with open_run(config.output_uri, "bundle", fields, overwrite=config.overwrite) as run:
        if isinstance(run, Manifest):
            return run
        if is_local:
            _train_here(config, dataset, run.claim)
        else:
            from ctc_ray.stages.train.on_ray import train_on_ray  # Ray takes seconds to import

            train_on_ray(config, dataset, run.claim, callbacks)
        return _finish(config, run, inputs)


def _train_here(config: TrainConfig, dataset: Manifest, claim: Claim) -> None:
    """Train with one worker on the CPUs of this process."""
    session = Session(
        rank=0,
        n_workers=1,
        n_workers_here=1,
        device="cpu",
        wrap=lambda model: model,
        report=lambda _: None,
        show=lambda line: logger.info("%s", line),
    )
    train_worker(config, dataset, claim, session)


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
        if not any(s.split == split and s.n_images > s.n_failed for s in dataset.shards):
            splits = sorted({shard.split for shard in dataset.shards})
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
    from ctc_ray.stages.cluster.connect import require  # Ray takes seconds to import

    require(
        f"--workers {config.workers}, --cpu-per-worker {config.cpu_per_worker:g}, "
        f"--gpu-per-worker {config.gpu_per_worker:g}",
        cpus=config.workers * config.cpu_per_worker,
        gpus=config.workers * config.gpu_per_worker,
        n_workers=config.workers,
        more_cpus=more_cpus,
    )


def check_model(config: TrainConfig) -> None:
    """Make the backbone once, here: a wrong name or wrong weights are an error before any work.

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


def _finish(config: TrainConfig, run: Run, inputs: dict[str, str]) -> Manifest:
    bundle = load_bundle(config.output_uri)
    metrics = bundle.provenance.metrics
    heads = bundle.label_space.heads
    manifest = Manifest(
        kind="bundle",
        config=config.result_fields(),
        inputs=inputs,
        classes=bundle.label_space.to_json(),
        bundle=BundleRecord(image_size=bundle.image_size, keep_aspect=bundle.keep_aspect),
        summary={
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
    run.finish(manifest)
    logger.info("wrote the model to %s", config.output_uri)
    return manifest
