"""What one training worker does, in this process or on Ray: epochs, checkpoints, the bundle.

Each worker reads its own share of the shards as a function of (seed, epoch, rank): with the same
number of workers on CPUs, the weights are equal whether the run was killed or not.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ctc_ray.config.training import TrainConfig
from ctc_ray.files import storage
from ctc_ray.runs.claim import Claim
from ctc_ray.runs.machine import n_cpus
from ctc_ray.runs.manifest import Manifest
from ctc_ray.stages.train.checkpoints import LAST_FILE, Checkpoints, read_checkpoint
from ctc_ray.stages.train.job import TrainingJob
from ctc_ray.stages.train.speed import add_epoch
from ctc_ray.stages.train.tensorboard import EVENTS_FILE, IMAGES_EVENTS_FILE, events_of
from ctc_ray.stages.train.tracking import Nested

IS_LAST = "is_last"
"""Key of what a worker reports to Ray Train: whether training ends with this epoch."""


@dataclass(frozen=True)
class Session:
    """One worker among those of a training, and how it reaches the others."""

    rank: int
    n_workers: int
    n_workers_here: int
    """Workers on this machine."""
    n_trainings: int
    """Trainings that may run on this machine at the same time: trials of a search."""
    device: torch.device | str
    wrap: Callable[[nn.Module], nn.Module]
    """Makes a model whose gradients are averaged over the workers."""
    report: Callable[[dict[str, float], bool], None]
    """Called by every worker with the metrics of an epoch, and whether training ends with it; waits
    for all of them."""
    show: Callable[[str], None]
    """Shows a line to the user."""
    report_resumed: Callable[[Mapping[str, float], bool], None] = lambda *_: None
    """Called likewise with each epoch that a resumed training has behind it."""
    keeps_last: bool = True
    """Whether the state after the last epoch is kept, so that more epochs may follow."""
    is_leaving: Callable[[], bool] = lambda: False
    """Whether a node is about to be taken away; every worker asks after the same updates."""


@dataclass(frozen=True)
class Trial:
    """What a training has to know that is one of several of a search."""

    n_trainings: int
    """How many run at the same time, this one included; they share the CPUs."""
    report: Callable[[Mapping[str, float], bool], None] | None = None
    """Called with the metrics of each epoch, also of those before the training was resumed, and
    whether training ends with it. With it, the training runs in this process."""
    callbacks: Sequence[Any] = ()
    """Callbacks of Ray Train, which report from its workers."""
    tracked: Nested | None = None
    """How a tracking server shows it; None: as a training of its own."""


def train_worker(config: TrainConfig, dataset: Manifest, claim: Claim, session: Session) -> None:
    """Do this worker's share of every epoch, until the last or until nothing improves.

    Raises:
        OutputInUseError: another command has taken over the output.
    """
    storage.set_owner(claim.token)
    if not config.gpus:
        torch.set_num_threads(n_threads(config, session))
    job = TrainingJob(
        config,
        dataset,
        rank=session.rank,
        n_workers=session.n_workers,
        device=session.device,
    )
    show = session.show if session.rank == 0 else lambda _: None
    for line in (job.about(), *job.told):
        show(line)
    _resume(job, config.output_uri, session, show)
    job.wrap(session.wrap)
    _write_samples(config.output_uri, job, session)
    with Checkpoints(config.output_uri, claim, minutes=config.checkpoint_minutes) as checkpoints:
        while not job.is_done:
            _do_epoch(job, checkpoints, session, show)
    show(job.ending())
    if session.rank == 0 and session.keeps_last:
        storage.write_bytes(storage.join(config.output_uri, LAST_FILE), job.state())
    final = job.end()
    if session.rank == 0:
        claim.require_owner()
        _write_curves(config.output_uri, job)  # a run may have been killed just before
        job.write_bundle(final)


def _resume(
    job: TrainingJob, output_uri: str, session: Session, show: Callable[[str], None]
) -> None:
    """Load the last checkpoint, if there is one."""
    if (state := read_checkpoint(output_uri)) is not None:
        job.load_state(state)
    if job.n_epochs or job.n_updates:
        show(f"resuming {job.place()}")
        for n, metrics in enumerate(job.history, start=1):
            session.report_resumed(metrics, job.is_done and n == job.n_epochs)


def _do_epoch(
    job: TrainingJob, checkpoints: Checkpoints, session: Session, show: Callable[[str], None]
) -> None:
    def is_wanted() -> bool:
        return session.is_leaving() or checkpoints.is_due()

    began = time.perf_counter()
    metrics = job.next_epoch(show, is_wanted=is_wanted, save=checkpoints.save)
    speed = job.speed(time.perf_counter() - began)
    metrics |= speed
    show(job.line(metrics))
    if session.rank == 0:
        add_epoch(checkpoints.output_uri, job.n_epochs, speed)
        checkpoints.save(job)
        checkpoints.wait()
        _write_curves(checkpoints.output_uri, job)
    session.report(metrics, job.is_done)


def n_threads(config: TrainConfig, session: Session) -> int:
    """Threads of a worker that computes on CPUs: those it has asked for, or its share of them.

    The share is of the CPUs that this process may use (affinity, limits of a container), among the
    workers on this machine and the trainings that run at the same time.
    """
    if config.cpu_per_worker > 1:
        return min(int(config.cpu_per_worker), n_cpus())
    return max(1, n_cpus() // (session.n_workers_here * session.n_trainings))


def _write_curves(output_uri: str, job: TrainingJob) -> None:
    storage.write_bytes(storage.join(output_uri, EVENTS_FILE), events_of(job.history))


def _write_samples(output_uri: str, job: TrainingJob, session: Session) -> None:
    """Once in a training, by its first worker."""
    is_there = storage.is_file(storage.join(output_uri, IMAGES_EVENTS_FILE))
    if session.rank == 0 and not is_there:
        job.write_samples()
