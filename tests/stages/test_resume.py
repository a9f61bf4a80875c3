"""Killed in the middle and started again: the same bytes as a run that was never interrupted."""

import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from builders import (
    CLASSES,
    bytes_below,
    inventory_config,
    photograph,
    train_config,
    write_events,
)

from ctc_ray.stages import create_inventory

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]


@contextmanager
def started(argv: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    """A command that does not outlive its test, and slow down all that come behind it."""
    run = subprocess.Popen(
        [sys.executable, "-m", "ctc_ray", *argv],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "RAY_ADDRESS": "local"},
    )
    try:
        yield run
    finally:
        run.terminate()
        run.wait(timeout=30)


def finish(argv: list[str]) -> None:
    with started(argv) as run:
        assert run.wait(timeout=240) == 0


def kill_when(argv: list[str], is_midway: Callable[[], bool]) -> None:
    with started(argv) as run:
        while not is_midway():
            assert run.poll() is None, "the run ended before it could be killed"
            time.sleep(0.02)
        run.send_signal(signal.SIGKILL)
        run.wait()


def test_create_dataset_goes_on_after_a_kill(tmp_path: Path) -> None:
    csv_path = write_events(tmp_path, n_events=300, broken=[7])
    create_inventory.run(inventory_config(csv_path, tmp_path / "inventory"))
    argv = ["create-dataset", "--inventory-uri", str(tmp_path / "inventory")]
    argv += ["--heads", "species", "count", "--image-root-uri", str(tmp_path)]
    argv += ["--images-per-unit", "4", "--output-uri"]
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    kill_when([*argv, str(killed)], lambda: len(list(killed.glob("split=*/*.parquet"))) >= 3)
    there = {path: path.stat().st_mtime_ns for path in killed.glob("split=*/*.parquet")}
    assert not (killed / "manifest.json").exists()
    finish([*argv, str(killed)])
    finish([*argv, str(whole)])
    assert len(there) < len(list(whole.glob("split=*/*.parquet")))
    assert {path: path.stat().st_mtime_ns for path in there} == there
    assert bytes_below(killed) == bytes_below(whole)


def test_predict_goes_on_after_a_kill(bundle: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for number in range(400):
        raw = photograph(CLASSES[number % 3], seed=number)
        (images / f"{number:03d}.jpg").write_bytes(raw if number % 50 else b"broken")
    argv = ["predict", "--bundle-uri", str(bundle), "--images-uri", str(images)]
    argv += ["--images-per-unit", "4", "--batch-size", "3", "--export", "csv", "json"]
    argv += ["--output-uri"]
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    kill_when([*argv, str(killed)], lambda: len(list(killed.glob("images/*.parquet"))) >= 3)
    assert not (killed / "manifest.json").exists()
    there = {path: path.stat().st_mtime_ns for path in killed.glob("images/*.parquet")}
    assert len(there) < 100
    finish([*argv, str(killed)])
    finish([*argv, str(whole)])
    assert {path: path.stat().st_mtime_ns for path in there} == there
    assert bytes_below(killed) == bytes_below(whole)


def test_train_goes_on_after_a_kill_and_ends_with_the_same_weights(
    dataset: Path, tmp_path: Path
) -> None:
    argv = ["train", "--dataset-uri", str(dataset), "--heads", "species", "count"]
    argv += ["--model.image-size", "48", "--model.dropout", ".3", "--batch-size", "4"]
    argv += ["--max-epochs", "8", "--early-stopping-patience", "0", "--output-uri"]
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    checkpoints = killed / "_work" / "run"
    kill_when([*argv, str(killed)], lambda: len(list(checkpoints.glob("checkpoint_*"))) >= 1)
    assert not (killed / "weights.safetensors").exists()
    finish([*argv, str(killed)])
    finish([*argv, str(whole)])
    weights = [(folder / "weights.safetensors").read_bytes() for folder in (killed, whole)]
    assert weights[0] == weights[1]


def test_tune_goes_on_after_a_kill_and_keeps_its_finished_trials(
    dataset: Path, tmp_path: Path
) -> None:
    tuned = tmp_path / "tuned"
    train = train_config(dataset, tuned).model_dump(mode="json", exclude={"output_uri"})
    config = {
        "output_uri": str(tuned),
        "train": {**train, "max_epochs": 2},
        "space": {"optimizer.learning_rate": {"grid": [0.001, 0.01]}},
        "trials": 1,
    }
    (tmp_path / "tune.yaml").write_text(yaml.safe_dump(config))
    argv = ["tune", "--config", str(tmp_path / "tune.yaml")]
    models = tuned / "models"
    kill_when(
        argv,
        lambda: (
            any(models.glob("*/manifest.json")) and any(models.glob("*/_work/run/checkpoint_*"))
        ),
    )
    assert not (tuned / "trials.csv").exists()
    (first,) = models.glob("*/manifest.json")  # the other trial has done an epoch
    written = first.stat().st_mtime_ns
    finish(argv)
    assert first.stat().st_mtime_ns == written
    with (tuned / "trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert sorted(row["optimizer.learning_rate"] for row in rows) == ["0.001", "0.01"]
    assert {row["state"] for row in rows} == {"done"}
    assert {row["epochs"] for row in rows} == {"2"}
