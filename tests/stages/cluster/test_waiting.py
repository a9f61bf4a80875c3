import logging
import threading

import pytest
import ray
from ray.autoscaler.v2.schema import (
    ClusterStatus,
    LaunchRequest,
    NodeInfo,
    RayTaskActorDemand,
    ResourceDemandSummary,
    ResourceRequestByCount,
    ResourceUsage,
)

from ctc_ray.stages.cluster import waiting

HEAD = NodeInfo("m7i", "head", "i-1", "10.0.0.1")


def status(needed: list[tuple[dict[str, float], int]], **fields: object) -> ClusterStatus:
    bundles = [ResourceRequestByCount(bundle, count) for bundle, count in needed]
    demand = ResourceDemandSummary(ray_task_actor_demand=[RayTaskActorDemand(bundles)])
    return ClusterStatus(active_nodes=[HEAD], resource_demands=demand, **fields)


def failed(details: str) -> LaunchRequest:
    state = LaunchRequest.Status.FAILED
    return LaunchRequest("g6.2xlarge", "gpu", 1, state, 0, failed_ts_s=1, details=details)


def test_nothing_is_said_where_nothing_waits() -> None:
    assert waiting.as_waiting(status([]), {}) is None
    assert waiting.as_waiting(status([({"node:__internal_head__": 1}, 1)]), {}) is None


def test_the_line_says_what_is_needed_there_asked_for_and_why_it_does_not_come() -> None:
    launches = [LaunchRequest("g6.2xlarge", "gpu", 2, LaunchRequest.Status.PENDING, 0)]
    found = waiting.as_waiting(
        status(
            [({"CPU": 1, "GPU": 1}, 4), ({"CPU": 1}, 2)],
            pending_launches=launches,
            pending_nodes=[NodeInfo("g6.2xlarge", "gpu", "i-2", "")],
            failed_launches=[failed("InsufficientInstanceCapacity\n in us-east-1a")],
            cluster_resource_usage=[ResourceUsage("CPU", 16, 16), ResourceUsage("memory", 1e9, 0)],
        ),
        {},
    )
    assert str(found) == (
        "waiting for nodes: needed 4 x 1 CPU and 1 GPU, 2 x 1 CPU; there 16 CPUs on 1 node; asked "
        "for 3 x gpu; not coming: gpu: InsufficientInstanceCapacity in us-east-1a"
    )


def test_the_older_autoscaler_is_understood_too() -> None:
    """The one that `ray up` starts: it writes a report of its own."""
    report = {
        "pending_launches": {"gpu": 1},
        "pending_nodes": [["10.0.0.2", "gpu", "waiting-for-ssh"]],
        "failed_nodes": [],
        "node_availability_summary": {
            "node_availabilities": {
                "gpu": {
                    "is_available": False,
                    "unavailable_node_information": {
                        "category": "VcpuLimitExceeded",
                        "description": "0 vCPUs for G",
                    },
                },
                "cpu": {"is_available": True, "unavailable_node_information": None},
            }
        },
    }
    found = waiting.as_waiting(status([({"GPU": 1}, 1)]), {"autoscaler_report": report})
    assert str(found).endswith(
        "asked for 2 x gpu; not coming: gpu: VcpuLimitExceeded, 0 vCPUs for G"
    )


def test_that_nothing_was_asked_for_is_said() -> None:
    line = str(waiting.as_waiting(status([({"CPU": 4}, 1)]), {}))
    assert "asked for no node: the cluster has as many nodes as its configuration allows" in line


def nothing() -> None:
    pass


@pytest.mark.ray
def test_work_that_waits_is_told_again_and_again(
    local_ray: None, caplog: pytest.LogCaptureFixture
) -> None:
    """With Ray's own answer, where nothing can grow."""
    more = int(ray.cluster_resources()["CPU"]) + 1
    with caplog.at_level(logging.INFO), waiting.told_while_waiting(every_s=0.2):
        task = ray.remote(num_cpus=more)(nothing).remote()
        told = threading.Event()
        for _ in range(100):
            lines = [m for m in caplog.messages if f"needed 1 x {more} CPUs; there" in m]
            if len(lines) >= 2 or told.wait(0.1):
                break
        ray.cancel(task, force=True)
    assert len(lines) >= 2
