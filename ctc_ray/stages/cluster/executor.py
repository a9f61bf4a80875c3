"""Units of work on a Ray cluster: a task per unit, or workers that live as long as the job."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import ray.data

from ctc_ray.console import logs
from ctc_ray.runs.executor import Job, UnitResult, do_unit
from ctc_ray.runs.unit_worker import UNITS_AT_ONCE
from ctc_ray.runs.units import Unit
from ctc_ray.stages.cluster.connect import connect, gpu_nodes, there
from ctc_ray.stages.cluster.errors import ray_work

_MAX_BLOCKS = 4096  # of a pipeline over units; more only slow its start

Row = dict[str, Any]


class RayExecutor:
    """Does the units on the cluster of this job, or on a local Ray that is started."""

    def run(self, units: Sequence[Unit], job: Job) -> Iterator[UnitResult]:
        """Do every unit once and yield its result as soon as it is there, in any order."""
        with ray_work():
            connect()
            nodes = gpu_nodes() if job.gpus_per_worker else []
            job = replace(job, cpus_per_worker=cpus_of_worker(job, nodes))
            rows = [asdict(unit) for unit in units]
            dataset = ray.data.from_items(rows, override_num_blocks=min(len(rows), _MAX_BLOCKS))
            resources = {"num_cpus": job.cpus_per_worker, "num_gpus": job.gpus_per_worker}
            if not job.keeps_workers:
                results = dataset.map(_task(job), **resources)
            else:
                results = dataset.map(
                    _Worker,
                    fn_constructor_args=(job,),
                    compute=ray.data.ActorPoolStrategy(
                        **pool_sizes(job, len(units), there()),
                        max_concurrent_calls_per_actor=UNITS_AT_ONCE,
                        enable_true_multi_threading=True,
                    ),
                    **resources,
                )
            for row in results.iter_rows():
                yield UnitResult(**row)


def cpus_of_worker(job: Job, gpu_nodes: Sequence[Mapping[str, float]]) -> float:
    """The CPUs of a worker: those that the job says, or its GPUs' share of the CPUs of a node.

    A CPU of each node stays free, e.g. for the driver.

    Args:
        gpu_nodes: CPUs and GPUs of each node that has GPUs.
    """
    if job.cpus_per_worker is not None:
        return job.cpus_per_worker
    if not job.gpus_per_worker or not gpu_nodes:
        return 1
    share = min((node.get("CPU", 0) - 1) / node["GPU"] for node in gpu_nodes)
    return max(1, int(share * job.gpus_per_worker))


def pool_sizes(job: Job, n_units: int, there: Mapping[str, float]) -> dict[str, int]:
    """How many workers are kept: as many as fit now, and more when the cluster has grown.

    A pool as large as the cluster of the moment would stay at one worker on a cluster that starts
    its nodes when they are needed.

    Args:
        there: CPUs and GPUs of the cluster.
    """
    most = min(job.n_workers or n_units, n_units)
    needs = (("CPU", job.cpus_per_worker or 1), ("GPU", job.gpus_per_worker))
    fit = min(int(there.get(name, 0) / need) for name, need in needs if need)
    return {"min_size": 1, "initial_size": min(max(1, fit), most), "max_size": most}


def _task(job: Job) -> Callable[[Row], Row]:
    def task(row: Row) -> Row:
        logs.set_up()
        n_threads = _n_threads(job)
        return asdict(do_unit(Unit(**row), job, job.make_worker(n_threads), n_threads=n_threads))

    return task


class _Worker:
    """A worker in an actor."""

    def __init__(self, job: Job) -> None:
        logs.set_up()
        self._n_threads = _n_threads(job)
        self._job, self._worker = job, job.make_worker(self._n_threads)

    def __call__(self, row: Row) -> Row:
        unit = Unit(**row)
        return asdict(do_unit(unit, self._job, self._worker, n_threads=self._n_threads))


def _n_threads(job: Job) -> int:
    return max(1, int(job.cpus_per_worker or 1))
