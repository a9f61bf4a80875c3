"""Connecting to Ray, quietly, and what this machine or the cluster has."""

import logging
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType

import ray
import ray.data
from ray._private import services
from ray._private.node import Node
from ray._private.resource_and_label_spec import ResourceAndLabelSpec
from ray.data._internal.logging import configure_logging

from ctc_ray.console import logs
from ctc_ray.errors import ConfigError, CtcError
from ctc_ray.runs import machine
from ctc_ray.stages.cluster.errors import logs_of_ray, reason
from ctc_ray.stages.cluster.lost_ray_head import watch_head
from ctc_ray.stages.cluster.node_types import node_types, why_impossible
from ctc_ray.stages.cluster.reach import answers

logger = logging.getLogger(__name__)

_PAUSE_S = 3.0
_ADDRESS = "RAY_ADDRESS"


def connect(*, dashboard: bool = False) -> None:
    """Connect to the cluster that Ray finds, or start a local Ray; nothing happens if that is done.

    Ray's own lines go to files of its session, not to the user's terminal.

    Args:
        dashboard: Ray Tune needs it, where Ray is local: a trial that is stopped frees its CPUs
            only where the State API can be asked.

    Raises:
        CtcError: Ray did not start, or did not answer, twice.
    """
    logs.keep_noise_in_output()
    if dashboard and _lacks_dashboard():
        ray.shutdown()  # ours, and no stage is at work: this one is just beginning
    if not ray.is_initialized():
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # asks for it in a warning
        os.environ.setdefault("RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS", "0")
        os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # the new one cannot be switched off
        _start(cluster_address(), dashboard=dashboard)
        if (node := _node()) is not None:
            watch_head(node)
    _quiet()


def _start(address: str | None, *, dashboard: bool) -> None:
    """Start or connect, and try once more: a busy machine misses Ray's time limits."""
    for is_last in (False, True):
        try:
            with _sigterm_kept():
                ray.init(
                    # None: Ray finds the address as `cluster_address` has, and the token for it
                    address="local" if address is None else None,
                    num_cpus=machine.n_cpus() if address is None else None,
                    logging_level=logging.ERROR,
                    log_to_driver=False,
                    include_dashboard=dashboard if address is None else None,
                )
        except Exception as error:  # Ray raises Exception itself, for time limits
            _clear_away(error)
            if is_last:
                raise CtcError(_not_started(address, error)) from error
            logger.warning("Ray did not start (%s); trying once more", reason(error))
            time.sleep(_PAUSE_S)
        else:
            return


def _not_started(address: str | None, error: Exception) -> str:
    way_out = (
        "if the machine is busy, run the same command again later"
        if address is None
        else f"it was looked for at {address}; set {_ADDRESS}=local to use this machine alone"
    )
    return f"Ray did not start, twice: {reason(error)}; {way_out} ({logs_of_ray()})"


def _clear_away(error: Exception) -> None:
    """End the processes of a start that failed: Ray leaves them, and they slow the next down."""
    traceback: TracebackType | None = error.__traceback__
    while traceback is not None:
        node = traceback.tb_frame.f_locals.get("self")
        if isinstance(node, Node):
            node.kill_all_processes(check_alive=False, allow_graceful=False)
            break
        traceback = traceback.tb_next
    ray.shutdown()


@contextmanager
def _sigterm_kept() -> Iterator[None]:
    """Ray's handler makes of a SIGTERM an exit like any other; the command line has its own."""
    former = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if callable(former) and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, former)


def cluster_address() -> str | None:
    """The cluster that Ray connects to when it is asked now, as host:port; None: it starts its own.

    That is `RAY_ADDRESS`, or else the cluster that `ray start` has begun on this machine, e.g. on
    the head where `ray attach` leads.

    Raises:
        CtcError: `RAY_ADDRESS` names a cluster that does not answer.
    """
    given = os.environ.get(_ADDRESS, "")
    if given == "local":
        return None
    try:
        address: str | None = (
            given if "://" in given else services.canonicalize_bootstrap_address(None)
        )
    except (ConnectionError, ValueError, OSError) as error:  # e.g. `auto`, and there is none
        raise CtcError(f"{_ADDRESS}={given}: {reason(error)}") from error
    if address is None or answers(address):
        return address
    time.sleep(_PAUSE_S)  # its head may be starting again
    if answers(address):
        return address
    if not given:  # left behind by a cluster that was killed; Ray would wait for it for minutes
        logger.warning("the cluster at %s answers no longer: this machine works alone", address)
        return None
    raise CtcError(
        f"{_ADDRESS}={given}: nothing answers there; start the cluster, or set {_ADDRESS}=local to "
        "use this machine alone"
    )


def _node() -> Node | None:
    """Ray's node object of this process; None if it is not connected, or by a client (`ray://`)."""
    return ray._private.worker._global_node


def is_local() -> bool:
    """Whether Ray is this process's own, or will be; not in a worker."""
    if ray.is_initialized():
        return (node := _node()) is not None and bool(node.is_head())
    return cluster_address() is None


def _lacks_dashboard() -> bool:
    return (node := _node()) is not None and node.is_head() and not node.webui_url


def _quiet() -> None:
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    configure_logging()  # now, so that what follows is not undone by the first dataset
    for name in ("ray", "ray.data", "ray.train", "ray.tune"):
        for handler in logging.getLogger(name).handlers:
            if isinstance(handler, logging.StreamHandler):
                handler.setLevel(logging.ERROR)


def require(
    what: str, *, cpus: float, gpus: float = 0, n_workers: int = 1, more_cpus: float = 0
) -> None:
    """Check that the CPUs and GPUs are there that work needs all at once, before it begins.

    Ray itself waits without end. A cluster may still grow: there a warning says what is missing.

    Args:
        what: the options that ask for them, as the user may change them.
        n_workers: who share them evenly; what one needs must be on one node.
        more_cpus: CPUs that are needed beside the workers, on any node.

    Raises:
        ConfigError: this machine has fewer, or no growth of the cluster can give them.
    """
    can_grow = not is_local()
    if can_grow:
        connect()
    present = there()
    lacking = [
        f"{need:g} {name}s, {{}} {present.get(name, 0):g}"
        for name, need in (("CPU", cpus + more_cpus), ("GPU", gpus))
        if need > present.get(name, 0)
    ]
    if lacking and can_grow:
        _require_possible(what, {"CPU": cpus / n_workers, "GPU": gpus / n_workers}, n_workers)
        text = ", ".join(lacking).format(*["the cluster now has"] * len(lacking))
        logger.warning("%s: needs %s; waiting until its autoscaler has added nodes", what, text)
    elif lacking:
        text = ", ".join(lacking).format(*["this machine has"] * len(lacking))
        raise ConfigError(f"{what}: needs {text}")


def _require_possible(what: str, bundle: dict[str, float], n_workers: int) -> None:
    node = _node()
    types = None if node is None else node_types(node.gcs_address)
    if types is not None and (reason := why_impossible(types, bundle, n=n_workers)) is not None:
        raise ConfigError(f"{what}: the cluster can never give that: {reason}")


def there() -> dict[str, float]:
    """CPUs and GPUs of the cluster, or those that a local Ray will find when it is started."""
    if ray.is_initialized():
        resources: dict[str, float] = ray.cluster_resources()
        return resources
    own = ResourceAndLabelSpec(num_cpus=machine.n_cpus())  # Ray knows of no affinity
    own.resolve(is_head=True)
    return {"CPU": own.num_cpus or 0, "GPU": own.num_gpus or 0}


def gpu_nodes() -> list[Mapping[str, float]]:
    """The CPUs and GPUs of each node that has GPUs, and of each type of nodes that may be added."""
    node = _node()
    known = [one["Resources"] for one in ray.nodes() if one["Alive"]]
    types = None if node is None else node_types(node.gcs_address)
    known += [kind.resources for kind in types or () if kind.most]
    return [resources for resources in known if resources.get("GPU", 0) > 0]
