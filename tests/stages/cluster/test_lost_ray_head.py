import os
import subprocess
import sys

import pytest

CODE = """
import os, signal, sys, time, ray
from ctc_ray.stages.cluster.connect import connect
connect()
(raylet,) = ray._private.worker._global_node.all_processes["raylet"]
os.kill(raylet.process.pid, signal.SIGKILL)
time.sleep(60)
"""


@pytest.mark.ray
def test_a_local_ray_that_was_killed_is_one_line() -> None:
    environment = {**os.environ, "RAY_ADDRESS": "local"}
    done = subprocess.run(
        [sys.executable, "-c", CODE], capture_output=True, text=True, env=environment, timeout=100
    )
    assert done.returncode == 1
    lines = [line for line in done.stderr.splitlines() if line.startswith("ctc: ")]
    assert len(lines) == 1
    assert lines[0].startswith("ctc: Ray's raylet was killed, ")
    assert "the same command resumes (logs: " in lines[0]
