"""Killed in the middle and started again: the same bytes as a run that was never interrupted.

What is killed is a command with a Ray of its own; what goes on and what was never interrupted are
stages in this process, with the Ray that all tests share.
"""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from builders import (
    CLASSES,
    bytes_below,
    dataset_config,
    inventory_config,
    photograph,
    train_config,
    write_events,
)

from ctc_ray.config.base import StageConfig
from ctc_ray.config.model import ModelConfig
from ctc_ray.config.prediction import PredictConfig
from ctc_ray.config.tuning import TuneConfig
from ctc_ray.console import logs
from ctc_ray.stages.create_dataset import stage as create_dataset
from ctc_ray.stages.create_inventory import stage as create_inventory
from ctc_ray.stages.predict import stage as predict
from ctc_ray.stages.train import stage as train
from ctc_ray.stages.tune import stage as tune

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]


def kill_when(command: str, config: StageConfig, is_midway: Callable[[], bool]) -> None:
    file = Path(config.output_uri).with_suffix(".yaml")
    file.write_text(json.dumps(config.model_dump(mode="json")))
    run = subprocess.Popen(
        [sys.executable, "-m", "ctc_ray", command, "--config", str(file)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "RAY_ADDRESS": "local"},
    )
    try:
        while not is_midway():
            assert run.poll() is None, "the run ended before it could be killed"
            time.sleep(0.02)
        run.send_signal(signal.SIGKILL)
    finally:  # it would outlive the test, and slow down all that come behind it
        run.terminate()
        run.wait(timeout=30)


def test_create_dataset_goes_on_after_a_kill(local_ray: None, tmp_path: Path) -> None:
    csv_path = write_events(tmp_path, n_events=300, broken=[7])
    create_inventory.run(inventory_config(csv_path, tmp_path / "inventory"))
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    config = dataset_config(tmp_path / "inventory", tmp_path, killed)
    kill_when("create-dataset", config, lambda: len(list(killed.glob("split=*/*.parquet"))) >= 3)
    there = {path: path.stat().st_mtime_ns for path in killed.glob("split=*/*.parquet")}
    assert not (killed / "_manifest.json").exists()
    create_dataset.run(config)
    create_dataset.run(config.replaced(output_uri=str(whole)))
    assert len(there) < len(list(whole.glob("split=*/*.parquet")))
    assert {path: path.stat().st_mtime_ns for path in there} == there
    assert bytes_below(killed) == bytes_below(whole)


def test_predict_goes_on_after_a_kill(bundle: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for number in range(400):
        raw = photograph(CLASSES[number % 3], seed=number)
        (images / f"{number:03d}.jpg").write_bytes(raw if number % 50 else b"broken")
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    config = PredictConfig(
        bundle_uri=str(bundle),
        images_uri=str(images),
        images_per_unit=4,
        batch_size=3,
        export=("csv", "json"),
        output_uri=str(killed),
    )
    kill_when("predict", config, lambda: len(list(killed.glob("images/*.parquet"))) >= 3)
    assert not (killed / "_manifest.json").exists()
    there = {path: path.stat().st_mtime_ns for path in killed.glob("images/*.parquet")}
    assert len(there) < 100
    predict.run(config)
    predict.run(config.replaced(output_uri=str(whole)))
    assert {path: path.stat().st_mtime_ns for path in there} == there
    assert bytes_below(killed) == bytes_below(whole)


def test_train_goes_on_after_a_kill_and_ends_with_the_same_weights(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    config = train_config(dataset, killed).replaced(
        model=ModelConfig(image_size=48, dropout=0.3), batch_size=4, max_epochs=4
    )

    kill_when("train", config, lambda: any(killed.glob("_work/checkpoints/epoch-*.pt")))
    assert not (killed / "weights.safetensors").exists()
    logs.set_up()
    train.run(config)
    told = capsys.readouterr().err
    assert "epoch 4/4" in told
    assert "epoch 1/4" not in told  # done before the kill
    train.run(config.replaced(output_uri=str(whole)))
    weights = [(folder / "weights.safetensors").read_bytes() for folder in (killed, whole)]
    assert weights[0] == weights[1]


def test_tune_goes_on_after_a_kill_and_keeps_its_finished_trials(
    dataset: Path, tmp_path: Path
) -> None:
    tuned = tmp_path / "tuned"
    values = train_config(dataset, tuned).model_dump(mode="json", exclude={"output_uri"})
    config = TuneConfig(
        output_uri=str(tuned),
        train={**values, "max_epochs": 2},
        space={"optimizer.learning_rate": {"grid": [0.001, 0.01]}},
        trials=1,
        stopping="none",
    )
    models = tuned / "models"
    kill_when(
        "tune",
        config,
        lambda: any(models.glob("*/_manifest.json")) and any(models.glob("*/_work/checkpoints/*")),
    )
    assert not (tuned / "trials.csv").exists()
    (first,) = models.glob("*/_manifest.json")  # the other trial has done an epoch
    written = first.stat().st_mtime_ns
    tune.run(config)
    assert first.stat().st_mtime_ns == written
    with (tuned / "trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert sorted(row["optimizer.learning_rate"] for row in rows) == ["0.001", "0.01"]
    assert {row["state"] for row in rows} == {"done"}
    assert {row["epochs"] for row in rows} == {"2"}
