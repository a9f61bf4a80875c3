"""A lost head becomes one line.

When Ray's head has been gone for a minute, or the processes of a local Ray have been killed, Ray's
C++ core ends this process: no exception, no line.
"""

import atexit
import os
import sys
import threading
import time
from typing import NoReturn

import ray
from ray._private.node import Node

from ctc_ray.stages.cluster.errors import logs_of_ray
from ctc_ray.stages.cluster.reach import answers

_EVERY_S = 3.0
_SHUTDOWN_S = 2.0
_BEFORE_RAY_S = 20.0  # sooner than Ray itself, which measures less evenly
_PATIENCE = "RAY_gcs_rpc_server_reconnect_timeout_s"  # Ray's own setting
_VITAL = ("gcs_server", "raylet")


def watch_head(node: Node) -> None:
    """End this process with a line when Ray's head is lost for good, as Ray does without one."""
    ended = threading.Event()
    atexit.register(ended.set)  # runs before Ray's own, which was registered earlier
    threading.Thread(target=_watch, args=(node, ended), daemon=True).start()


def _watch(node: Node, ended: threading.Event) -> None:
    patience_s = float(os.environ.get(_PATIENCE, "60")) - _BEFORE_RAY_S
    lost_since = None
    while not ended.wait(_EVERY_S):
        died = [name for name, _ in node.dead_processes() if name in _VITAL]
        reached = answers(node.gcs_address)
        if died:  # by Ray's own shutdown, which ends in this time?
            ended.wait(_SHUTDOWN_S)
        if ended.is_set() or ray._private.worker._global_node is not node:
            return
        if died:
            _leave(f"Ray's {died[0]} was killed, perhaps for lack of memory; the same command")
        lost_since = None if reached else lost_since or time.monotonic()
        if lost_since is not None and time.monotonic() - lost_since > patience_s:
            where = node.gcs_address
            _leave(f"Ray's head at {where} is lost; when it is there again, the same command")


def _leave(what: str) -> NoReturn:
    sys.stderr.write(f"ctc: {what} resumes ({logs_of_ray()})\n")
    sys.stderr.flush()
    os._exit(1)
