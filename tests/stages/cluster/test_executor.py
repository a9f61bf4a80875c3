import pytest

from ctc_ray.runs.executor import Job
from ctc_ray.stages.cluster.executor import cpus_of_worker, pool_sizes


def job(**fields: float | None) -> Job:
    return Job("out", None, lambda _: None, keeps_workers=True, **fields)


@pytest.mark.parametrize(
    ("fields", "n_units", "there", "sizes"),
    [
        ({}, 50, {"CPU": 4.0}, (1, 4, 50)),  # all CPUs now, and those that come
        ({}, 50, {}, (1, 1, 50)),  # a cluster that starts its nodes when they are needed
        ({}, 3, {"CPU": 16.0}, (1, 3, 3)),
        ({"n_workers": 2}, 50, {"CPU": 16.0}, (1, 2, 2)),
        ({"n_workers": 8}, 50, {}, (1, 1, 8)),
        ({"gpus_per_worker": 1}, 50, {"CPU": 16.0}, (1, 1, 50)),
        ({"gpus_per_worker": 0.5}, 50, {"CPU": 16.0, "GPU": 2.0}, (1, 4, 50)),
        ({"gpus_per_worker": 1, "n_workers": 4}, 50, {"CPU": 2.0, "GPU": 4.0}, (1, 2, 4)),
    ],
)
def test_as_many_workers_as_fit_now_and_more_when_the_cluster_has_grown(
    fields: dict[str, float], n_units: int, there: dict[str, float], sizes: tuple[int, int, int]
) -> None:
    found = pool_sizes(job(**fields), n_units, there)
    assert (found["min_size"], found["initial_size"], found["max_size"]) == sizes


@pytest.mark.parametrize(
    ("fields", "gpu_nodes", "cpus"),
    [
        ({}, [], 1),
        ({"cpus_per_worker": 3, "gpus_per_worker": 1}, [{"CPU": 16, "GPU": 1}], 3),
        ({"cpus_per_worker": None}, [{"CPU": 16, "GPU": 1}], 1),
        ({"cpus_per_worker": None, "gpus_per_worker": 1}, [], 1),  # nothing is known of its nodes
        ({"cpus_per_worker": None, "gpus_per_worker": 1}, [{"CPU": 16, "GPU": 1}], 15),
        ({"cpus_per_worker": None, "gpus_per_worker": 1}, [{"CPU": 16, "GPU": 4}], 3),
        ({"cpus_per_worker": None, "gpus_per_worker": 0.5}, [{"CPU": 16, "GPU": 1}], 7),
        ({"cpus_per_worker": None, "gpus_per_worker": 1}, [{"CPU": 1, "GPU": 1}], 1),
        (
            {"cpus_per_worker": None, "gpus_per_worker": 1},
            [{"CPU": 16, "GPU": 1}, {"CPU": 8, "GPU": 1}],
            7,
        ),
    ],
)
def test_a_worker_with_a_gpu_has_its_share_of_the_cpus(
    fields: dict[str, float | None], gpu_nodes: list[dict[str, float]], cpus: float
) -> None:
    assert cpus_of_worker(job(**fields), gpu_nodes) == cpus
