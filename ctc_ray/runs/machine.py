"""What this machine has for a command: the CPUs, in a container those of the container."""

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pyarrow as pa


def n_cpus(*, root: str = "/") -> int:
    """CPUs that this process may use, at least 1.

    A process may be bound to some CPUs (taskset, Slurm), and its control group may have a quota of
    CPU time (Docker, Kubernetes); a quota of 2.5 CPUs counts as 2.

    Args:
        root: the folder that holds `proc` and `sys`.
    """
    n_bound = _bound_cpus()
    return max(1, min([n_bound, *(int(quota) for quota in _quotas(Path(root)))]))


def limit_arrow_threads() -> None:
    """Let Arrow use no more threads than there are CPUs for; it does not know of quotas.

    Fewer stay fewer, e.g. those of OMP_NUM_THREADS.
    """
    pa.set_cpu_count(min(pa.cpu_count(), n_cpus()))


def _bound_cpus() -> int:
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _quotas(root: Path) -> Iterator[float]:
    """CPUs of every quota on the way from the process's control groups to the top."""
    for controllers, group in _control_groups(root):
        if controllers == "":  # version 2
            mount = root / "sys/fs/cgroup"
        elif "cpu" in controllers.split(","):  # version 1
            mount = root / "sys/fs/cgroup/cpu"
        else:
            continue
        # In a container, the group's name may be that of the host: then only the top exists.
        for folder in {mount / part for part in _ancestors(group)} | {mount}:
            yield from _quota(folder)


def _control_groups(root: Path) -> list[tuple[str, str]]:
    """Controllers (empty in version 2) and path of each control group of the process."""
    text = _read(root / "proc/self/cgroup")
    parts = [line.split(":", 2) for line in text.splitlines()]
    return [(part[1], part[2]) for part in parts if len(part) == 3]


def _ancestors(group: str) -> list[str]:
    path = PurePosixPath(group.strip("/"))
    return [str(part) for part in (path, *path.parents) if ".." not in part.parts]


def _quota(folder: Path) -> Iterator[float]:
    quota, _, period = _read(folder / "cpu.max").partition(" ")
    if not quota:
        quota = _read(folder / "cpu.cfs_quota_us")
        period = _read(folder / "cpu.cfs_period_us")
    quota, period = quota.strip(), period.strip()
    if quota.isdecimal() and period.isdecimal() and int(period) > 0:  # not "max", not -1
        yield int(quota) / int(period)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:  # another system, or a file that only root may read
        return ""
