"""The jobs, submitted for real: to a Ray of its own on this machine, with token authentication."""

import contextlib
import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

CHECKOUT = Path(__file__).resolve().parents[2]
RAY = Path(sys.executable).with_name("ray")  # of this environment, not one of PATH

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]


@dataclass(frozen=True)
class Cluster:
    """A Ray head that this test started."""

    url: str
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
    }


def wait_until_up(cluster: Cluster, head: subprocess.Popen[bytes], log: Path) -> None:
    """Wait for both: the dashboard answers before the node is registered."""
    deadline = time.monotonic() + 120
    while (
        "Ray runtime started" not in log.read_text()
        or cluster.status("/api/version", cluster.token) != 200
    ):
        if head.poll() is not None or time.monotonic() > deadline:
            pytest.fail(f"the head did not start:\n{log.read_text()[-2000:]}")
        time.sleep(0.2)


def stop(head: subprocess.Popen[bytes]) -> None:
    """End the head and its processes. Not by `ray stop`, which ends every Ray of the machine."""
    head.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        head.wait(5)  # it would drain actors of finished jobs for 30 s
    with contextlib.suppress(ProcessLookupError):
        os.killpg(head.pid, signal.SIGKILL)  # what is left of its process group


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    # Not in tmp_path: Ray's sockets lie here, and their paths may have 107 characters at most.
    with tempfile.TemporaryDirectory(prefix="ctc-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        token = secrets.token_hex(32)
        (folder / "token").write_text(token)
        gcs, dashboard, agent, client = free_ports(4)
        url = f"http://127.0.0.1:{dashboard}"
        cluster = Cluster(url, token, ray_environment(folder / "token", url))
        command = [
            *(RAY, "start", "--head", "--block", "--num-cpus=4", "--disable-usage-stats"),
            *(f"--port={gcs}", f"--ray-client-server-port={client}"),
            *("--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}"),
            *(f"--dashboard-agent-listen-port={agent}", f"--temp-dir={folder / 'ray'}"),
            "--object-store-memory=300000000",
        ]
        with (folder / "log").open("wb") as log:
            head = subprocess.Popen(
                command,
                env=cluster.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            wait_until_up(cluster, head, folder / "log")
            yield cluster
        finally:
            stop(head)


def write_source(root: Path) -> None:
    """Twelve events of one image each, light antelopes and dark buffalos, in three splits."""
    (root / "images").mkdir()
    lines = ["event,image,species,split"]
    for number in range(12):
        species, shade = (("antelope", 200), ("buffalo", 40))[number % 2]
        Image.new("RGB", (48, 40), (shade, shade + number, shade)).save(
            root / "images" / f"{number}.jpg"
        )
        split = "train" if number < 8 else "val" if number < 10 else "test"
        lines.append(f"e{number},{number}.jpg,{species},{split}")
    (root / "source.csv").write_text("\n".join(lines) + "\n")


def stage_configs(root: Path) -> dict[str, dict[str, Any]]:
    """The YAML of every stage, in the order of the data; the output folder has the stage's name."""
    images = str(root / "images")
    train = {
        "dataset_uri": str(root / "create_dataset"),
        "heads": ["species"],
        "model": {"backbone": "small_cnn", "image_size": 32},
        "batch_size": 4,
        "max_epochs": 1,
    }
    stages: dict[str, dict[str, Any]] = {
        "create_inventory": {
            "source_uri": str(root / "source.csv"),
            "event_column": "event",
            "image_columns": ["image"],
            "head_columns": ["species"],
            "meta_columns": ["split"],
        },
        "create_dataset": {
            "inventory_uri": str(root / "create_inventory"),
            "image_root_uri": images,
            "heads": ["species"],
            "resize": {"smallest_side": 40},
            "split": {"by": "meta:split"},
        },
        "train": train,
        "tune": {
            "train": train,
            "space": {"optimizer.learning_rate": {"loguniform": [0.001, 0.1]}},
            "trials": 2,
        },
        "predict": {"bundle_uri": str(root / "train"), "images_uri": images},
        "export": {"bundle_uri": str(root / "train")},
    }
    return {name: {"output_uri": str(root / name), **config} for name, config in stages.items()}


@pytest.mark.parametrize(
    "also_tune", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["without tune", "all"]
)
def test_every_stage_runs_as_a_job_and_finishes_its_folder(
    cluster: Cluster, tmp_path: Path, also_tune: bool
) -> None:
    write_source(tmp_path)
    for stage, config in stage_configs(tmp_path).items():
        if stage == "tune" and not also_tune:
            continue
        path = tmp_path / f"{stage}.yaml"
        path.write_text(yaml.safe_dump(config))
        job = cluster.submit(f"jobs/{stage}.py", "--config", str(path))
        assert job.returncode == 0, f"{stage}\n{job.stdout[-4000:]}\n{job.stderr[-2000:]}"
        manifest = json.loads((tmp_path / stage / "_manifest.json").read_text())
        assert manifest["kind"]


def test_a_failing_job_hands_on_that_it_failed(cluster: Cluster, tmp_path: Path) -> None:
    path = tmp_path / "train.yaml"
    path.write_text(yaml.safe_dump(stage_configs(tmp_path)["train"] | {"max_epoch": 1}))
    job = cluster.submit("jobs/train.py", "--config", str(path))
    assert job.returncode == 1
    assert "max_epoch is not a setting; did you mean max_epochs?" in job.stdout


def test_a_job_runs_the_uploaded_code_with_the_python_of_this_environment(
    cluster: Cluster,
) -> None:
    code = "import sys, ctc_ray; print('RAN', sys.executable, ctc_ray.__file__)"
    job = cluster.submit("-c", code)
    ran = re.search(r"^RAN (\S+) (\S+)$", job.stdout, re.MULTILINE)
    assert ran is not None, job.stdout
    assert ran[1] == sys.executable
    assert "working_dir_files" in ran[2]


def test_without_the_token_the_cluster_takes_no_job(cluster: Cluster) -> None:
    assert cluster.status("/api/jobs/", None) == 401
    assert cluster.status("/api/jobs/", "not the token") in (401, 403)
    assert cluster.status("/api/jobs/", cluster.token) == 200
