"""A training with `--workers 1:2` on a cluster that loses a node: it goes on with one worker."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from own_ray import CHECKOUT, RAY, Cluster, free_ports, own_ray

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(500)]

N_EPOCHS = 12


@contextlib.contextmanager
def node(cluster: Cluster, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A further node of one CPU, in a process group of its own."""
    agent, metrics = free_ports(2)
    command = [
        *(RAY, "start", "--block", f"--address={cluster.address}", "--num-cpus=1"),
        *(f"--dashboard-agent-listen-port={agent}", f"--metrics-export-port={metrics}"),
        *("--disable-usage-stats", "--object-store-memory=100000000"),
    ]
    environment = cluster.environment | {"PYTHONPATH": str(CHECKOUT)}
    with log.open("wb") as file:
        started = subprocess.Popen(
            command, env=environment, stdout=file, stderr=file, start_new_session=True
        )
    try:
        wait_for("Ray runtime started", log, started)
        yield started
    finally:
        kill(started)


def kill(process: subprocess.Popen[bytes]) -> None:
    """End a node as if its machine had lost power."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(30)


def wait_for(pattern: str, log: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 200
    while not re.search(pattern, log.read_text()):
        if process.poll() is not None or time.monotonic() > deadline:
            pytest.fail(f"{pattern!r} is not in:\n{log.read_text()[-3000:]}")
        time.sleep(0.2)


def test_a_training_survives_the_death_of_a_node_with_the_worker_that_is_left(
    dataset: Path, tmp_path: Path
) -> None:
    output, log = tmp_path / "model", tmp_path / "log"
    command = [
        *(sys.executable, "-m", "ctc_ray", "train", "--dataset-uri", dataset),
        *("--output-uri", output, "--heads", "species", "--workers", "1:2"),
        *("--max-epochs", str(N_EPOCHS), "--early-stopping-patience", "0"),
        *("--model.image-size", "32", "--batch-size", "8", "--image-choice", "all"),
    ]
    with (
        own_ray("--num-cpus=0", environment={"PYTHONPATH": str(CHECKOUT)}) as cluster,
        node(cluster, tmp_path / "node-1"),
        node(cluster, tmp_path / "node-2") as lost,
        log.open("wb") as file,
    ):
        environment = cluster.environment | {
            "RAY_ADDRESS": cluster.address,
            "PYTHONPATH": str(CHECKOUT),
        }
        training = subprocess.Popen(
            command, env=environment, stdout=file, stderr=file, start_new_session=True
        )
        try:
            wait_for(rf"epoch 2/{N_EPOCHS}", log, training)
            kill(lost)
            assert training.wait(300) == 0, log.read_text()[-3000:]
        finally:
            kill(training)
    told = log.read_text()
    assert "2 workers on CPU" in told
    assert re.search(r"1 worker on CPU(.|\n)*resuming after epoch [2-9]", told)
    assert len((output / "history.csv").read_text().splitlines()) == 1 + N_EPOCHS
    assert (output / "_manifest.json").is_file()
