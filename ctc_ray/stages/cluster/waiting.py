"""What a command waits for, while its cluster starts nodes: one line a minute."""

import json
import logging
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import ray
from ray._private.ray_constants import DEBUG_AUTOSCALING_STATUS
from ray.autoscaler.v2.schema import ClusterStatus, LaunchRequest
from ray.autoscaler.v2.sdk import get_cluster_status
from ray.exceptions import RayError

from ctc_ray.stages.cluster.node_types import as_text

logger = logging.getLogger(__name__)

EVERY_S = 60.0


@dataclass(frozen=True)
class Waiting:
    """Work that the nodes of the moment have no room for."""

    needed: Mapping[str, int]
    """Resources in words -> how many times they wait."""
    present: Mapping[str, float]
    n_nodes: int
    asked_for: Mapping[str, int] = field(default_factory=dict)
    """Node type -> nodes that are asked for, or start."""
    reasons: tuple[str, ...] = ()
    """Why nodes do not come, as the cluster's provider says it."""

    def __str__(self) -> str:
        needed = ", ".join(f"{n} x {what}" for what, n in self.needed.items())
        nodes = f"{self.n_nodes} node{'' if self.n_nodes == 1 else 's'}"
        asked = ", ".join(f"{n} x {name}" for name, n in self.asked_for.items()) or "no node"
        line = (
            f"waiting for nodes: needed {needed}; there {as_text(self.present)} on {nodes}; asked "
            f"for {asked}"
        )
        if self.reasons:
            return f"{line}; not coming: {'; '.join(self.reasons)}"
        if not self.asked_for:
            return (
                f"{line}: the cluster has as many nodes as its configuration allows, or has no "
                "autoscaler"
            )
        return line


@contextmanager
def told_while_waiting(every_s: float = EVERY_S) -> Iterator[None]:
    """Log what is waited for, once a minute, as long as work has waited since the last look."""
    stopped = threading.Event()
    thread = threading.Thread(target=_watch, args=(stopped, every_s), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()


def _watch(stopped: threading.Event, every_s: float) -> None:
    while not stopped.wait(every_s):
        try:
            waiting = look()
        except (RayError, RuntimeError, OSError, ValueError, AttributeError) as error:
            logger.debug("the cluster's state cannot be read: %s", error)
            continue
        if waiting is not None and not stopped.is_set():
            logger.info("%s", waiting)


def look() -> Waiting | None:
    """What the cluster lacks now; None if nothing waits, or Ray is not connected."""
    node = ray._private.worker._global_node if ray.is_initialized() else None
    if node is None:
        return None
    status = get_cluster_status(node.gcs_address)
    content = ray.experimental.internal_kv._internal_kv_get(DEBUG_AUTOSCALING_STATUS)
    return as_waiting(status, json.loads(content) if content else {})


def as_waiting(status: ClusterStatus, legacy: Mapping[str, Any]) -> Waiting | None:
    """What the cluster lacks, by the state that it gives.

    Args:
        legacy: what Ray's older autoscaler, which `ray up` starts, writes of itself.
    """
    needed = _needed(status)
    if not needed:
        return None
    report = legacy.get("autoscaler_report") or {}
    return Waiting(
        needed,
        status.total_resources(),
        len(status.active_nodes) + len(status.idle_nodes),
        _asked_for(status, report),
        _reasons(status, report),
    )


def _needed(status: ClusterStatus) -> dict[str, int]:
    demands = status.resource_demands
    waiting: Counter[str] = Counter()
    for demand in [*demands.ray_task_actor_demand, *demands.placement_group_demand]:
        for request in demand.bundles_by_count:
            bundle = {name: request.bundle.get(name, 0.0) for name in ("CPU", "GPU")}
            if any(bundle.values()):
                waiting[as_text(bundle)] += request.count
    return dict(waiting)


def _asked_for(status: ClusterStatus, report: Mapping[str, Any]) -> dict[str, int]:
    asked: Counter[str] = Counter()
    for launch in status.pending_launches:
        asked[launch.ray_node_type_name] += launch.count
    for node in status.pending_nodes:
        asked[node.ray_node_type_name] += 1
    for name, count in (report.get("pending_launches") or {}).items():
        asked[name] += count
    for _, name, _ in report.get("pending_nodes") or ():
        asked[name] += 1
    return dict(asked)


def _reasons(status: ClusterStatus, report: Mapping[str, Any]) -> tuple[str, ...]:
    reasons = [_of_launch(launch) for launch in status.failed_launches]
    availability = (report.get("node_availability_summary") or {}).get("node_availabilities") or {}
    for name, found in availability.items():
        information = found.get("unavailable_node_information") or {}
        if not found.get("is_available", True):
            words = (information.get(key) for key in ("category", "description"))
            reasons.append(f"{name}: {', '.join(filter(None, words)) or 'not available'}")
    return tuple(dict.fromkeys(reasons))


def _of_launch(launch: LaunchRequest) -> str:
    text = " ".join((launch.details or "the provider gave none").split())
    return f"{launch.ray_node_type_name}: {text}"
