"""Ctrl-C in every stage: one line, exit 130, and the same command resumes.

What is interrupted is a command with a Ray of its own, by a signal to its whole process group, as a
terminal sends it; what resumes is the stage in this process, with the Ray that all tests share.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from builders import dataset_config, inventory_config, train_config, write_events
from terminal import on_terminal

from ctc_ray.config.base import StageConfig
from ctc_ray.config.inventory import CsvInventoryConfig
from ctc_ray.config.prediction import PredictConfig
from ctc_ray.config.tuning import TuneConfig
from ctc_ray.runs.manifest import is_complete
from ctc_ray.stages.create_dataset import stage as create_dataset
from ctc_ray.stages.create_inventory import stage as create_inventory
from ctc_ray.stages.predict import stage as predict
from ctc_ray.stages.train import stage as train
from ctc_ray.stages.tune import stage as tune

pytestmark = pytest.mark.timeout(300)

LINE = "ctc: interrupted; the same command resumes"


def interrupt_when(is_midway: Callable[[], bool], command: list[str], config: StageConfig) -> None:
    """Start a command and press Ctrl-C in the middle of it; check how it ends."""
    file = Path(config.output_uri).with_suffix(".yaml")
    file.write_text(json.dumps(config.model_dump(mode="json")))
    temporary = file.with_suffix(".tmp")
    temporary.mkdir()
    run = subprocess.Popen(
        [sys.executable, "-m", "ctc_ray", *command, "--config", str(file)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={
            **os.environ,
            "RAY_ADDRESS": "local",
            "TMPDIR": str(temporary),
            "RAY_TMPDIR": "/tmp",  # a path of Ray's sockets has 107 bytes at most
        },
    )
    try:
        while not is_midway():
            assert run.poll() is None, "the command ended before it was interrupted"
            time.sleep(0.002)
        os.killpg(run.pid, signal.SIGINT)
        began = time.monotonic()
        stdout, stderr = run.communicate(timeout=60)
        seconds = time.monotonic() - began
    finally:  # it would outlive the test, and slow down all that come behind it
        run.kill()
        run.wait(timeout=30)
    assert run.returncode == 130, stderr
    assert stderr.splitlines()[-1] == LINE
    assert stderr.count("interrupted") == 1
    assert "Traceback" not in stderr
    assert stdout == ""
    assert seconds < 15
    assert not is_complete(config.output_uri)
    assert not (Path(config.output_uri) / "_work" / "logs").exists()
    left = {path.name for path in temporary.iterdir()}
    assert {name for name in left if not name.startswith("torchinductor_")} == set()


@pytest.fixture(autouse=True)
def interrupts_reach_commands() -> Iterator[None]:
    """A shell lets what it starts in the background ignore them, and its children too."""
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, former)


def test_create_inventory(tmp_path: Path) -> None:
    source = tmp_path / "big.csv"
    rows = [f"e{i},a/{i}.jpg,red\n" for i in range(500_000)]
    source.write_text("event,image,species\n" + "".join(rows))
    config = CsvInventoryConfig(
        source_uri=str(source),
        output_uri=str(tmp_path / "inventory"),
        event_column="event",
        image_columns=("image",),
        head_columns=("species",),
    )
    interrupt_when((tmp_path / "inventory").exists, ["create-inventory", "csv"], config)
    assert create_inventory.run(config).rows_out == 500_000


@pytest.mark.ray
def test_create_dataset(local_ray: None, tmp_path: Path) -> None:
    csv_path = write_events(tmp_path, n_events=300)
    create_inventory.run(inventory_config(csv_path, tmp_path / "inventory"))
    config = dataset_config(tmp_path / "inventory", tmp_path, tmp_path / "dataset")
    shards = (tmp_path / "dataset").glob
    interrupt_when(lambda: any(shards("split=*/*.parquet")), ["create-dataset"], config)
    before = {path: path.stat().st_mtime_ns for path in shards("split=*/*.parquet")}
    create_dataset.run(config)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert len(before) < len(list(shards("split=*/*.parquet")))


@pytest.mark.ray
def test_predict(local_ray: None, bundle: Path, photos: Path, tmp_path: Path) -> None:
    config = PredictConfig(
        bundle_uri=str(bundle),
        images_uri=str(photos),
        images_per_unit=1,
        output_uri=str(tmp_path / "answers"),
    )
    answers = (tmp_path / "answers").glob
    interrupt_when(lambda: any(answers("images/*.parquet")), ["predict"], config)
    before = {path: path.stat().st_mtime_ns for path in answers("images/*.parquet")}
    predict.run(config)
    assert {path: path.stat().st_mtime_ns for path in before} == before


@pytest.mark.parametrize(
    ("workers", "max_epochs"),
    [
        pytest.param(1, 15, id="here"),
        pytest.param(  # an epoch takes 1 to 2 s there
            2, 8, id="on Ray", marks=[pytest.mark.ray, pytest.mark.slow]
        ),
    ],
)
def test_train(
    request: pytest.FixtureRequest, dataset: Path, tmp_path: Path, workers: int, max_epochs: int
) -> None:
    config = train_config(dataset, tmp_path / "model").replaced(
        workers=workers, cpu_per_worker=0.5, max_epochs=max_epochs
    )
    checkpoints = (tmp_path / "model" / "_work" / "checkpoints").glob
    interrupt_when(lambda: any(checkpoints("epoch-*.pt")), ["train"], config)
    assert not (tmp_path / "model" / "weights.safetensors").exists()
    if workers > 1:
        request.getfixturevalue("local_ray")
    train.run(config)
    assert is_complete(config.output_uri)


@pytest.mark.ray
@pytest.mark.slow
def test_tune(local_ray: None, dataset: Path, tmp_path: Path) -> None:
    values = train_config(dataset, tmp_path / "tuned").model_dump(
        mode="json", exclude={"output_uri"}
    )
    config = TuneConfig(
        output_uri=str(tmp_path / "tuned"),
        train={**values, "max_epochs": 4},
        space={"optimizer.learning_rate": {"grid": [0.001, 0.01]}},
        trials=1,
    )
    trials = tmp_path / "tuned" / "models"
    interrupt_when(lambda: any(trials.glob("*/_work/checkpoints/epoch-*")), ["tune"], config)
    assert not (tmp_path / "tuned" / "trials.csv").exists()
    first = {path.name for path in trials.iterdir()}
    manifest = tune.run(config)
    names = {trial["trial"] for trial in manifest.summary["trials"]}
    assert first < names
    assert len(names) == 2


@pytest.mark.ray
@pytest.mark.slow
def test_tune_on_a_terminal(dataset: Path, tmp_path: Path) -> None:
    """Ctrl-C reaches Ray's processes, too; the table ends, and the terminal is as before."""
    values = train_config(dataset, tmp_path / "tuned").model_dump(
        mode="json", exclude={"output_uri"}
    )
    config = TuneConfig(
        output_uri=str(tmp_path / "tuned"),
        train={**values, "max_epochs": 15},
        space={"optimizer.learning_rate": {"grid": [0.001, 0.01]}},
        stopping="none",
        trials=1,
    )
    file = tmp_path / "tune.yaml"
    file.write_text(json.dumps(config.model_dump(mode="json")))
    command = [sys.executable, "-m", "ctc_ray", "tune", "--config", str(file)]
    environment = {**os.environ, "RAY_ADDRESS": "local"}
    code, got, is_same = on_terminal(command, environment=environment, until=b"running")
    assert (code, is_same) == (130, True), got
    assert got.rstrip().endswith(LINE)
    assert "Traceback" not in got
    assert not is_complete(config.output_uri)
    code, got, is_same = on_terminal(command, environment=environment)
    assert (code, is_same) == (0, True), got
    assert is_complete(config.output_uri)
