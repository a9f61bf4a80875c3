"""Training workers on Ray Train: on one or many nodes, with or without GPUs."""

import logging
import pickle
import re
from typing import Any

import ray
import ray.train
from ray.exceptions import RayError
from ray.train.torch import TorchTrainer, get_device, prepare_model

from ctc_ray.config.training import TrainConfig
from ctc_ray.console import logs
from ctc_ray.errors import CtcError
from ctc_ray.files import storage
from ctc_ray.files.retries import UnusableStoreError
from ctc_ray.runs.claim import Claim
from ctc_ray.runs.crashes import picklable
from ctc_ray.runs.layout import WORK_FOLDER
from ctc_ray.runs.manifest import Manifest
from ctc_ray.stages.cluster.connect import connect
from ctc_ray.stages.cluster.errors import as_error, ray_work
from ctc_ray.stages.cluster.messages import WorkerLogRelay
from ctc_ray.stages.train.computing import repeatable
from ctc_ray.stages.train.tracking import Tracker
from ctc_ray.stages.train.worker import IS_LAST, Session, Trial, train_worker

logger = logging.getLogger(__name__)

_LOST_PEER = re.compile(
    "gloo|nccl|connection|closed by peer|socket|timed? ?out|process group", re.IGNORECASE
)
_OF_CODE_OR_DATA = (
    CtcError,
    FileNotFoundError,
    PermissionError,
    IsADirectoryError,
    NotADirectoryError,
    UnusableStoreError,
)
# After a worker or an unannounced node is lost; each resumes from the last checkpoint. Ray counts
# nodes that are taken away after a notice by themselves (max_preemption_failures), without limit.
_MAX_RESTARTS = 3


def train_on_ray(
    config: TrainConfig,
    dataset: Manifest,
    claim: Claim,
    trial: Trial | None,
    *,
    tracker: Tracker,
) -> None:
    """Train with the workers that the configuration asks for; the bundle is written at the end.

    A lost worker or node is replaced, and training goes on from the last checkpoint. An error of
    the code or the data would come again: the workers that Ray starts anew do nothing, and it ends
    the training.

    Args:
        trial: of a search.
        tracker: gets the metrics of each epoch, on the driver.

    Raises:
        CtcError: what a worker raised for the user.
    """
    with ray_work():
        connect()
        try:
            with WorkerLogRelay(logger, take_metrics=tracker.add_epoch) as relay:
                _trainer(config, dataset, claim, relay, trial).fit()
                if (failure := relay.failure()) is not None:
                    raise failure
        except ray.train.WorkerGroupError as error:
            failures = error.worker_failures.values()
            for failure in sorted(failures, key=lambda f: not isinstance(f, CtcError)):
                raise as_error(failure) from error  # those of the others may follow from it
            raise


def _trainer(
    config: TrainConfig,
    dataset: Manifest,
    claim: Claim,
    relay: WorkerLogRelay,
    trial: Trial | None,
) -> TorchTrainer:
    least, most = config.workers_range
    resources = {"CPU": config.cpu_per_worker}
    if config.gpus:
        resources["GPU"] = config.gpus
    return TorchTrainer(
        _work,
        train_loop_config={
            "config": config.model_dump(mode="json"),
            "dataset": dataset.model_dump(mode="json"),
            "claim": claim,
            "mailbox": relay.mailbox,
            "n_trainings": 1 if trial is None else trial.n_trainings,
            "keeps_last": trial is None,
        },
        scaling_config=ray.train.ScalingConfig(
            num_workers=most if least == most else (least, most),
            use_gpu=config.gpus > 0,
            resources_per_worker=resources,
        ),
        run_config=ray.train.RunConfig(
            name="run",
            storage_path=storage.join(config.output_uri, WORK_FOLDER),
            failure_config=ray.train.FailureConfig(max_failures=_MAX_RESTARTS),
            callbacks=[] if trial is None else list(trial.callbacks),
        ),
    )


def _work(settings: dict[str, Any]) -> None:
    """Run by every worker."""
    logs.set_up()
    context = ray.train.get_context()
    mailbox = settings["mailbox"]

    def report(metrics: dict[str, float], is_last: bool) -> None:
        if context.get_world_rank() == 0:
            mailbox.put.remote(metrics)
        ray.train.report({**metrics, IS_LAST: float(is_last)})

    session = Session(
        rank=context.get_world_rank(),
        n_workers=context.get_world_size(),
        n_workers_here=context.get_local_world_size(),
        n_trainings=settings["n_trainings"],
        device=get_device(),
        wrap=prepare_model,
        report=report,
        show=lambda line: mailbox.put.remote(line),
        keeps_last=settings["keeps_last"],
        is_leaving=lambda: ray.train.get_preemption_info() is not None,
    )
    config = TrainConfig.model_validate(settings["config"])
    dataset = Manifest.model_validate(settings["dataset"])
    if ray.get(mailbox.failure.remote()) is not None:
        return
    try:
        with repeatable(is_on=config.deterministic):
            train_worker(config, dataset, settings["claim"], session)
    except Exception as error:
        if _would_come_again(error):
            ray.get(mailbox.fail.remote(pickle.dumps(picklable(error))))
        raise


def _would_come_again(error: Exception) -> bool:
    """Whether this is an error of the code or the data, not of a lost worker, node or store."""
    if isinstance(error, _OF_CODE_OR_DATA):
        return True
    if isinstance(error, OSError | RayError):
        return False
    return not (isinstance(error, RuntimeError) and _LOST_PEER.search(str(error)))
