"""Which executor does the units."""

import pytest

from ctc_ray.runs.executor import Beside, InProcess
from ctc_ray.runs.units import Unit
from ctc_ray.stages.cluster import in_process_or_ray
from ctc_ray.stages.cluster.executor import RayExecutor


@pytest.mark.parametrize(
    ("n_units", "gpus", "keeps", "cpus", "on_cluster", "expected"),
    [
        (6, 0, True, 2, False, InProcess),
        (7, 0, True, 2, False, Beside),
        (7, 0, True, 8, False, Beside),
        (7, 0, True, 9, False, RayExecutor),
        (7, 0, True, 2, True, RayExecutor),
        (7, 1, True, 2, False, RayExecutor),
        (6, 1, True, 2, False, RayExecutor),
        (7, 0, False, 2, False, RayExecutor),
    ],
)
def test_small_jobs_and_small_machines_need_no_ray(
    monkeypatch: pytest.MonkeyPatch, n_units, gpus, keeps, cpus, on_cluster, expected
) -> None:
    monkeypatch.setattr(in_process_or_ray, "n_cpus", lambda: cpus)
    monkeypatch.setattr(in_process_or_ray, "is_on_cluster", lambda: on_cluster)
    units = [Unit(f"images/part-{i:05d}.parquet", "", i, 1) for i in range(n_units)]
    found = in_process_or_ray.choose_executor(units, gpus=gpus, keeps_workers=keeps)
    assert type(found) is expected
