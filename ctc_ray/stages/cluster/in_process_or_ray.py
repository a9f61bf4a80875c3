"""Whether units run in this process or on Ray; a few units do not wait for Ray to start.

This module does not import Ray.
"""

import os
import sys
import tempfile
from collections.abc import Sequence

from ctc_ray.runs.executor import Beside, Executor, InProcess
from ctc_ray.runs.machine import n_cpus
from ctc_ray.runs.units import Unit

FEW_UNITS = 6
"""Units that this process finishes sooner than a Ray that must first start.

Measured by tests/benchmarks/bench_small_jobs.py on 2 cores: 6 units of 1,000 photographs of about
3 megapixels take 31 s in this process, and 37 s on a Ray that must start.
"""

FEW_CPUS = 8
"""CPUs of a machine on which the threads of one process do the work. Chosen, not measured: it was
tried on 2."""


def choose_executor(
    units: Sequence[Unit], *, gpus: float = 0, keeps_workers: bool = False
) -> Executor:
    """The executor that finishes these units soonest; GPUs are Ray's to give.

    Args:
        keeps_workers: whether a worker holds something expensive, of which a small machine should
            hold one.
    """
    if len(units) <= FEW_UNITS and gpus == 0:
        return InProcess()
    if keeps_workers and gpus == 0 and n_cpus() <= FEW_CPUS and not is_on_cluster():
        return Beside()
    from ctc_ray.stages.cluster.executor import RayExecutor  # Ray takes seconds to import

    return RayExecutor()


def is_on_cluster() -> bool:
    """Whether Ray is connected, or would connect, to a cluster that runs already.

    Ray itself is asked only where there is a sign of a cluster: importing it takes seconds.
    """
    is_given = "ray" in sys.modules or os.environ.get("RAY_ADDRESS")
    if not is_given and not os.path.exists(last_cluster_file()):
        return False
    from ctc_ray.stages.cluster.connect import is_local

    return not is_local()


def last_cluster_file() -> str:
    """Where `ray start` notes the address of the cluster that it has begun on this machine."""
    is_linux, is_mac = sys.platform.startswith("linux"), sys.platform == "darwin"
    folder = (
        os.environ.get("RAY_TMPDIR")
        or (is_linux and os.environ.get("TMPDIR"))
        or ("/tmp" if is_linux or is_mac else tempfile.gettempdir())
    )
    return os.path.join(folder, "ray", "ray_current_cluster")


def require_gpus(per_worker: float, *, cpus: int) -> None:
    """Check that there is a GPU before anything is written.

    Args:
        cpus: that each worker needs beside it.

    Raises:
        ConfigError: neither this machine nor the cluster has them, or can grow to have them.
    """
    from ctc_ray.stages.cluster.connect import require  # Ray takes seconds to import

    require(f"--gpu-per-worker {per_worker:g}", cpus=cpus, gpus=per_worker)
