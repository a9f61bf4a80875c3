"""Units that take their time, and the nodes where they are done; a module that workers import."""

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pyarrow as pa
import ray
from deadly import WrappedWorker
from ray.util.state import list_actors

from ctc_ray.config.prediction import PredictConfig
from ctc_ray.runs.executor import Executor, Job, UnitResult
from ctc_ray.runs.unit_worker import UnitWorker
from ctc_ray.runs.units import Unit
from ctc_ray.stages.cluster.executor import RayExecutor
from ctc_ray.stages.predict import stage as predict


@dataclass(frozen=True)
class SlowWorker(WrappedWorker):
    """A worker that waits a second before each unit, and five while no other one has worked.

    Ray Data asks for nodes by the rate of the units that are done: none may wait for long.
    """

    marks: Path

    def read(self, unit: Unit) -> pa.Table:
        (self.marks / str(os.getpid())).touch()
        latest = time.monotonic() + 5
        time.sleep(1)
        while len(list(self.marks.iterdir())) < 2 and time.monotonic() < latest:
            time.sleep(0.2)
        return self.worker.read(unit)


@dataclass(frozen=True)
class WithSlowUnits:
    """An executor whose workers are slow; each leaves its mark in a folder."""

    executor: Executor
    marks: Path

    def run(self, units: Sequence[Unit], job: Job) -> Iterator[UnitResult]:
        make_worker = partial(self._make_worker, job.make_worker)
        return self.executor.run(units, replace(job, make_worker=make_worker))

    def _make_worker(self, make: Callable[[int], UnitWorker], n_threads: int) -> UnitWorker:
        return SlowWorker(make(n_threads), self.marks)


def main(bundle: str, images: str, output: str, marks: str) -> None:
    """Predict, and print how many workers were at work at a time, and on how many nodes."""
    most = {"workers": 0, "nodes": 0}
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.5):
            if ray.is_initialized():
                actors = [a for a in list_actors(timeout=10) if a.state == "ALIVE" and is_worker(a)]
                most["workers"] = max(most["workers"], len(actors))
                most["nodes"] = max(most["nodes"], len({actor.node_id for actor in actors}))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    config = PredictConfig(
        bundle_uri=bundle, output_uri=output, images_uri=images, images_per_unit=1
    )
    made = predict.run(config, executor=WithSlowUnits(RayExecutor(), Path(marks)))
    ended.set()
    watcher.join()
    sys.stdout.write(json.dumps({**most, "rows": made.rows_out}) + "\n")


def is_worker(actor: object) -> bool:
    return "MapWorker" in getattr(actor, "class_name", "")


if __name__ == "__main__":
    main(*(str(Path(name).resolve()) for name in sys.argv[1:]))
