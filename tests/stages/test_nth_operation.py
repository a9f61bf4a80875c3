"""Every storage operation of every stage may fail: the command run again completes, same bytes.

All of them fail in the slow tests, every fourth in the others.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nth_operation
import pytest
from builders import (
    dataset_config,
    dataset_in_process,
    inventory_config,
    train_config,
    write_events,
)

from ctc_ray.runs.executor import InProcess
from ctc_ray.stages.create_dataset import stage as create_dataset
from ctc_ray.stages.create_inventory import stage as create_inventory
from ctc_ray.stages.predict import stage as predict
from ctc_ray.stages.train import stage as train

pytestmark = pytest.mark.timeout(600)

SCRIPT = Path(nth_operation.__file__)
PATHS = os.pathsep.join([str(SCRIPT.parent), str(SCRIPT.parents[1])])


def found_in(case: str, folder: Path, every: int) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), case, str(folder), str(every)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": PATHS, "OMP_NUM_THREADS": "1"},
    )
    if done.returncode != 0:
        return {"wrong": done.stderr[-2000:]}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.fixture(scope="module", params=[4, pytest.param(1, marks=pytest.mark.slow)])
def every(request: pytest.FixtureRequest) -> int:
    """1: all trials are done; 4: every fourth."""
    return int(request.param)


@pytest.fixture(scope="module")
def found(
    tmp_path_factory: pytest.TempPathFactory, every: int
) -> Iterator[dict[str, Future[dict[str, Any]]]]:
    """What the trials of each job have found; two jobs are tried at a time."""
    folder = tmp_path_factory.mktemp("faults")
    inputs = folder / "inputs"
    csv_path = write_events(inputs / "photos", n_events=6, broken=[3])
    first = inputs / "photos" / "first.csv"
    first.write_text("\n".join(csv_path.read_text().splitlines()[:5]) + "\n")
    create_inventory.run(inventory_config(csv_path, inputs / "inventory"))
    create_inventory.run(inventory_config(first, inputs / "first"))
    dataset_in_process(inputs / "inventory", inputs / "photos", inputs / "dataset")
    half = dataset_config(inputs / "first", inputs / "photos", inputs / "half")
    create_dataset.run(half, executor=InProcess())
    train.run(train_config(inputs / "dataset", inputs / "model").replaced(max_epochs=1))
    answered = nth_operation.predict_config(inputs, inputs / "answered")
    predict.run(answered.replaced(inventory_uri=str(inputs / "first")), executor=InProcess())
    predictions = nth_operation.predict_config(inputs, inputs / "predictions")
    predict.run(predictions.replaced(export=()), executor=InProcess())
    os.utime(inputs / "photos" / "images" / "e000_0.jpg")  # as if it had been replaced
    slowest_first = ["train", "predict --append", "predict", *nth_operation.CASES]
    with ThreadPoolExecutor(2) as pool:
        cases = dict.fromkeys(slowest_first)
        yield {case: pool.submit(found_in, case, folder, every) for case in cases}


@pytest.mark.parametrize("case", nth_operation.CASES)
def test_a_job_completes_after_any_operation_has_failed(
    found: dict[str, Future[dict[str, Any]]], case: str, every: int
) -> None:
    trials = found[case].result()
    assert trials["wrong"] == []
    assert trials["operations"] > 20
    assert trials["changes"] > 5
    n_possible = trials["operations"] + 2 * trials["changes"]
    assert trials["faults"] == len(range(0, n_possible, every))
