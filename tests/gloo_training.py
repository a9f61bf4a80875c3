"""Trainings of several workers that stop within an epoch and go on, maybe as another number.

A module of its own, because a new process must be able to import it.
"""

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.nn.parallel import DistributedDataParallel

from ctc_ray.config.training import TrainConfig
from ctc_ray.runs.manifest import read_manifest
from ctc_ray.stages.train import data, pauses
from ctc_ray.stages.train.job import TrainingJob
from ctc_ray.training.batches import Batch, read_parts


@dataclass(frozen=True)
class Part:
    """A training by so many workers, up to its end or to a checkpoint."""

    n_workers: int
    stops_after: int | None
    """Number of the checkpoint, from 1, after which it is killed; None: it is not."""


_AGREE = pauses.Pauses.agree


class _KilledError(Exception):
    pass


def trained(folder: Path, fields: dict[str, Any], parts: list[Part]) -> dict[str, Any]:
    """What the parts, one after the other, have read and learnt.

    Returns:
        weights: the bytes of the last state; state; history; final: metrics of the model that is
        kept; read: epoch -> image ids that were learnt from, of updates that a checkpoint or the
        end has kept.
    """
    folder.mkdir()
    (folder / "fields.json").write_text(json.dumps(fields))
    read: dict[str, list[str]] = {}
    for number, part in enumerate(parts):
        store = folder / f"store-{number}"
        mp.spawn(_work, (folder, store, part), nprocs=part.n_workers)
        for rank in range(part.n_workers):
            for epoch, names in json.loads((folder / f"read-{rank}.json").read_text()).items():
                read.setdefault(epoch, []).extend(names)
    found = torch.load(folder / "done-0.pt", weights_only=True)
    finals = [json.loads(path.read_text()) for path in sorted(folder.glob("final-*.json"))]
    assert all(final == finals[0] for final in finals)  # every worker knows them
    return {**found, "final": finals[0], "read": read}


def _work(rank: int, folder: Path, store: Path, part: Part) -> None:
    torch.set_num_threads(1)
    pauses._FIRST_AFTER, pauses._EVERY_S = 1, 0
    n = part.n_workers
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=n)
    config = TrainConfig.model_validate(json.loads((folder / "fields.json").read_text()))
    manifest = read_manifest(config.dataset_uri, "dataset")
    job = TrainingJob(config, manifest, rank=rank, n_workers=n, device="cpu")
    if (folder / "state.pt").exists():
        job.load_state((folder / "state.pt").read_bytes())
    job.wrap(DistributedDataParallel)
    read = _train(job, folder / "state.pt", part)
    (folder / f"read-{rank}.json").write_text(json.dumps(read))
    dist.barrier()
    if job.is_done:
        done = {"weights": job._model.state_dict(), "history": job._history, "state": job.state()}
        torch.save(done, folder / f"done-{rank}.pt")
        final = job.end()
        metrics = final.for_file(job._model.label_space, monitor=config.monitor)
        (folder / f"final-{rank}.json").write_text(json.dumps(metrics))
    dist.destroy_process_group()


def _train(job: TrainingJob, state: Path, part: Part) -> dict[int, list[str]]:
    """Train until the part is killed; epoch -> the images that were learnt from."""
    read: dict[int, list[str]] = {}
    kill = _Kill(part.stops_after)
    with (
        mock.patch.object(data, "read_parts", kill.remember),
        mock.patch.object(pauses.Pauses, "agree", kill.agree),
        contextlib.suppress(_KilledError),
    ):
        while not job.is_done:
            kill.learnt = read.setdefault(job.n_epochs, [])
            job.next_epoch(is_wanted=kill.is_wanted, save=lambda at: _write(state, at.state()))
    return read


def _write(state: Path, content: bytes) -> None:
    state.write_bytes(content)


class _Kill:
    """Ends a training at the first batch after a checkpoint, on every worker."""

    def __init__(self, stops_after: int | None) -> None:
        self._stops_after = stops_after
        self._n_asked = 0
        self._is_over = False
        self.learnt: list[str] = []

    def remember(self, *args: Any, **settings: Any) -> Iterator[Batch]:
        for batch in read_parts(*args, **settings):
            yield batch
            self.learnt.extend(batch.image_ids)  # it is learnt when the next one is asked for
            if self._is_over:
                raise _KilledError

    def is_wanted(self) -> bool:
        self._n_asked += 1
        return self._n_asked == self._stops_after

    @property
    def agree(self) -> Callable[[pauses.Pauses, Callable[[], bool]], bool]:
        def agree(at: pauses.Pauses, wanted: Callable[[], bool]) -> bool:
            self._is_over = _AGREE(at, wanted)
            return self._is_over

        return agree
