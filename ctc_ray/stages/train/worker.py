"""What one training worker does, in this process or on Ray: epochs, checkpoints, the bundle.

Every epoch ends in a checkpoint below `_work/`, so a killed run resumes with the next epoch. Each
worker reads its own share of the shards as a function of (seed, epoch, rank): on one CPU worker the
weights are equal whether the run was killed or not.
"""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from ctc_ray.config.training import TrainConfig
from ctc_ray.files import storage
from ctc_ray.runs.claim import Claim
from ctc_ray.runs.layout import WORK_FOLDER
from ctc_ray.runs.machine import n_cpus
from ctc_ray.runs.manifest import Manifest
from ctc_ray.stages.train.job import TrainingJob
from ctc_ray.stages.train.tensorboard import EVENTS_FILE, events_of

_CHECKPOINTS = "checkpoints"
_CHECKPOINT = re.compile(r"epoch-([0-9]+)[.]pt")


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
    report: Callable[[dict[str, float]], None]
    """Called by every worker with the metrics of an epoch; waits for all of them."""
    show: Callable[[str], None]
    """Shows a line to the user."""


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
    _load_checkpoint(config.output_uri, job)
    if job.n_epochs:
        show(f"resuming after epoch {job.n_epochs}")
    job.wrap(session.wrap)
    while not job.is_done:
        began = time.perf_counter()
        metrics = job.next_epoch(show)
        metrics["seconds"] = round(time.perf_counter() - began, 2)
        if session.rank == 0:
            claim.require_owner()
            session.show(job.line(metrics))
            _write_checkpoint(config.output_uri, job)
        session.report(metrics)
    show(job.ending())
    final = job.end()
    if session.rank == 0:
        claim.require_owner()
        _write_curves(config.output_uri, job)  # a run may have been killed just before
        job.write_bundle(final)


def n_threads(config: TrainConfig, session: Session) -> int:
    """Threads of a worker that computes on CPUs: those it has asked for, or its share of them.

    The share is of the CPUs that this process may use (affinity, limits of a container), among the
    workers on this machine and the trainings that run at the same time.
    """
    if config.cpu_per_worker > 1:
        return min(int(config.cpu_per_worker), n_cpus())
    return max(1, n_cpus() // (session.n_workers_here * session.n_trainings))


def _write_checkpoint(output_uri: str, job: TrainingJob) -> None:
    """Write the state after this epoch and the curves; delete the states after earlier ones."""
    folder = storage.join(output_uri, WORK_FOLDER, _CHECKPOINTS)
    uri = storage.join(folder, f"epoch-{job.n_epochs:05d}.pt")
    storage.write_bytes(uri, job.state())
    _write_curves(output_uri, job)
    for _, other in _checkpoints(output_uri)[:-1]:
        storage.delete_file(other)


def _write_curves(output_uri: str, job: TrainingJob) -> None:
    storage.write_bytes(storage.join(output_uri, EVENTS_FILE), events_of(job.history))


def _load_checkpoint(output_uri: str, job: TrainingJob) -> None:
    found = _checkpoints(output_uri)
    if found:
        job.load_state(storage.read_bytes(found[-1][1]))


def _checkpoints(output_uri: str) -> list[tuple[int, str]]:
    """Finished epochs and the URI of the state after them, ascending."""
    folder = storage.join(output_uri, WORK_FOLDER, _CHECKPOINTS)
    uris = storage.list_files(folder) if storage.is_folder(folder) else ()
    found = [(_CHECKPOINT.fullmatch(uri.rpartition("/")[2]), uri) for uri in uris]
    return sorted((int(match[1]), uri) for match, uri in found if match is not None)
