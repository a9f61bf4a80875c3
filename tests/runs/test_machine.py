from pathlib import Path

import pyarrow as pa
import pytest

from ctc_ray.runs import machine


@pytest.fixture(autouse=True)
def eight_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_bound_cpus", lambda: 8)


def n_cpus(root: Path, files: dict[str, str]) -> int:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return machine.n_cpus(root=str(root))


V2, V1 = "sys/fs/cgroup", "sys/fs/cgroup/cpu"


@pytest.mark.parametrize(
    ("files", "n"),
    [
        ({}, 8),  # no Linux
        ({"proc/self/cgroup": "0::/\n", f"{V2}/cpu.max": "max 100000\n"}, 8),
        ({"proc/self/cgroup": "0::/\n", f"{V2}/cpu.max": "250000 100000\n"}, 2),
        ({"proc/self/cgroup": "0::/\n", f"{V2}/cpu.max": "50000 100000\n"}, 1),
        ({"proc/self/cgroup": "0::/\n", f"{V2}/cpu.max": "1600000 100000\n"}, 8),
        ({"proc/self/cgroup": "0::/a/b\n", f"{V2}/a/cpu.max": "300000 100000\n"}, 3),
        ({"proc/self/cgroup": "0::/../..\n", f"{V2}/cpu.max": "300000 100000\n"}, 3),
        (
            {
                "proc/self/cgroup": "3:cpu,cpuacct:/docker/1\n2:memory:/docker/1\n",
                f"{V1}/cpu.cfs_quota_us": "400000\n",
                f"{V1}/cpu.cfs_period_us": "100000\n",
            },
            4,
        ),
        (
            {
                "proc/self/cgroup": "3:cpu,cpuacct:/\n",
                f"{V1}/cpu.cfs_quota_us": "-1\n",
                f"{V1}/cpu.cfs_period_us": "100000\n",
            },
            8,
        ),
    ],
)
def test_a_quota_of_the_control_group_counts_as_whole_cpus(
    tmp_path: Path, files: dict[str, str], n: int
) -> None:
    assert n_cpus(tmp_path, files) == n


def test_the_smallest_quota_on_the_way_up_counts(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "0::/slice/job\n",
        f"{V2}/slice/cpu.max": "200000 100000\n",
        f"{V2}/slice/job/cpu.max": "600000 100000\n",
    }
    assert n_cpus(tmp_path, files) == 2


def test_cpus_that_a_process_is_bound_to_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda _: {3, 5, 7}, raising=False)
    assert machine.n_cpus(root=str(tmp_path)) == 3


@pytest.mark.parametrize(("own", "before", "after"), [(2, 8, 2), (8, 2, 2)])
def test_arrow_uses_no_more_threads_than_there_are_cpus_for(
    monkeypatch: pytest.MonkeyPatch, own: int, before: int, after: int
) -> None:
    """Where OMP_NUM_THREADS asks for fewer, these are enough."""
    monkeypatch.setattr(machine, "n_cpus", lambda: own)
    kept = pa.cpu_count()
    try:
        pa.set_cpu_count(before)
        machine.limit_arrow_threads()
        assert pa.cpu_count() == after
    finally:
        pa.set_cpu_count(kept)
