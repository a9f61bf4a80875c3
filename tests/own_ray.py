"""A Ray of its own for a test: `ray start --head` with a token, ended with its processes."""

import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray._private import services

CHECKOUT = Path(__file__).resolve().parents[1]
RAY = Path(sys.executable).with_name("ray")  # of this environment, not one of PATH


@dataclass(frozen=True)
class Cluster:
    """A Ray head that this test started."""

    url: str
    address: str
    token: str
    environment: dict[str, str]

    def submit(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command as a job, with the checkout as its working directory."""
        return subprocess.run(
            [RAY, "job", "submit", "--working-dir", CHECKOUT, "--", sys.executable, *command],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )

    def status(self, path: str, token: str | None) -> int | None:
        """The HTTP status of a request; None as long as nobody answers."""
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        request = urllib.request.Request(f"{self.url}{path}", headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=5) as response:
                return int(response.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return None


def free_ports(n: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(n)]
    ports = [listener.getsockname()[1] for listener in sockets]
    for listener in sockets:
        listener.close()
    return ports


def ray_environment(token_path: Path, url: str) -> dict[str, str]:
    """The environment without what it says of other clusters, with the token of this one."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return inherited | {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token_path),
        "RAY_API_SERVER_ADDRESS": url,
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": "0",  # see conftest.py
    }


def wait_until_up(cluster: Cluster, head: subprocess.Popen[bytes], log: Path) -> None:
    """Wait for both: the dashboard answers before the node is registered."""
    deadline = time.monotonic() + 120
    while (
        "Ray runtime started" not in log.read_text()
        or cluster.status("/api/version", cluster.token) != 200
    ):
        if head.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"the head did not start:\n{log.read_text()[-2000:]}")
        time.sleep(0.2)


def stop(head: subprocess.Popen[bytes]) -> None:
    """End the head and its processes. Not by `ray stop`, which ends every Ray of the machine."""
    head.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        head.wait(5)  # it would drain actors of finished jobs for 30 s
    with contextlib.suppress(ProcessLookupError):
        os.killpg(head.pid, signal.SIGKILL)  # what is left of its process group


@contextlib.contextmanager
def own_ray(
    *options: str,
    autoscaling: Callable[[str], Mapping[str, Any]] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Cluster]:
    """Start a Ray head, and end it.

    Args:
        options: further ones of `ray start --head`.
        autoscaling: makes the configuration of its autoscaler, given the head's address.
        environment: further variables of the head.
    """
    # Not in tmp_path: Ray's sockets lie here, and their paths may have 107 characters at most.
    with tempfile.TemporaryDirectory(prefix="ctc-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        token = secrets.token_hex(32)
        (folder / "token").write_text(token)
        gcs, dashboard, agent, client = free_ports(4)
        url = f"http://127.0.0.1:{dashboard}"
        own = ray_environment(folder / "token", url)
        cluster = Cluster(url, f"{services.get_node_ip_address()}:{gcs}", token, own)
        command = [
            *(RAY, "start", "--head", "--block", "--disable-usage-stats"),
            *(f"--port={gcs}", f"--ray-client-server-port={client}"),
            *("--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}"),
            *(f"--dashboard-agent-listen-port={agent}", f"--temp-dir={folder / 'ray'}"),
            *("--object-store-memory=300000000", *options),
        ]
        if autoscaling is not None:
            (folder / "cluster.yaml").write_text(json.dumps(autoscaling(cluster.address)))
            command.append(f"--autoscaling-config={folder / 'cluster.yaml'}")
        with (folder / "log").open("wb") as log:
            head = subprocess.Popen(
                command,
                env=own | dict(environment or {}),
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            wait_until_up(cluster, head, folder / "log")
            yield cluster
        finally:
            stop(head)
