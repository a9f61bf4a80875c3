"""Connecting to Ray, quietly, and what this machine or the cluster has."""

import logging
import os

import ray
import ray.data
from ray._private.resource_and_label_spec import ResourceAndLabelSpec
from ray.data._internal.logging import configure_logging

from ctc_ray.errors import ConfigError

logger = logging.getLogger(__name__)


def connect() -> None:
    """Connect to the cluster of this job, or start a local Ray; nothing happens if that is done.

    Ray's own lines go to files of its session, not to the user's terminal.
    """
    if not ray.is_initialized():
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # asks for it in a warning
        os.environ.setdefault("RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS", "0")
        os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # the new one cannot be switched off
        ray.init(
            logging_level=logging.ERROR,
            log_to_driver=False,
            # a trial that Ray Tune stops frees its CPUs only where the State API can be asked
            include_dashboard=_is_local() or None,
        )
    _quiet()


def _is_local() -> bool:
    return os.environ.get("RAY_ADDRESS", "local") == "local"


def _quiet() -> None:
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    configure_logging()  # now, so that what follows is not undone by the first dataset
    for name in ("ray", "ray.data", "ray.train", "ray.tune"):
        for handler in logging.getLogger(name).handlers:
            if isinstance(handler, logging.StreamHandler):
                handler.setLevel(logging.ERROR)


def require(what: str, *, cpus: float, gpus: float = 0) -> None:
    """Check that the CPUs and GPUs are there that work needs all at once, before it is begun.

    Ray itself waits without end. A cluster may still grow: there a message tells what is lacking.

    Args:
        what: the options that ask for them, as the user may change them.

    Raises:
        ConfigError: this machine has fewer.
    """
    can_grow = not _is_local()
    if can_grow:
        connect()
    there = _resources()
    lacking = [
        f"{need:g} {name}s, {{}} {there.get(name, 0):g}"
        for name, need in (("CPU", cpus), ("GPU", gpus))
        if need > there.get(name, 0)
    ]
    if lacking and can_grow:
        text = ", ".join(lacking).format(*["the cluster now has"] * len(lacking))
        logger.warning("%s: needs %s; waiting until its autoscaler has added nodes", what, text)
    elif lacking:
        text = ", ".join(lacking).format(*["this machine has"] * len(lacking))
        raise ConfigError(f"{what}: needs {text}")


def _resources() -> dict[str, float]:
    """CPUs and GPUs of the cluster, or those that a local Ray will find when it is started."""
    if ray.is_initialized():
        resources: dict[str, float] = ray.cluster_resources()
        return resources
    machine = _machine()
    return {"CPU": machine.num_cpus or 0, "GPU": machine.num_gpus or 0}


def _machine() -> ResourceAndLabelSpec:
    machine = ResourceAndLabelSpec()
    machine.resolve(is_head=True)
    return machine


def machine_cpus() -> int:
    """CPUs of this machine that a local Ray uses, or would use; of a container, its own."""
    return max(1, int(_machine().num_cpus or 1))


def n_cpus() -> int:
    """CPUs of the cluster as it is now, at least 1."""
    return max(1, int(ray.cluster_resources().get("CPU", 1)))
