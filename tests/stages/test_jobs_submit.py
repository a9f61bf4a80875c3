"""The jobs, submitted for real: to a Ray of its own on this machine, with token authentication.

In the slow tests every stage is; in the others two are.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from own_ray import CHECKOUT, Cluster, own_ray
from PIL import Image

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with own_ray("--num-cpus=4") as started:
        yield started


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


STAGES = ("create_inventory", "create_dataset", "train", "tune", "predict", "export")
STAGES_UP_TO_PREDICT = ("create_inventory", "create_dataset", "train", "predict")


def run_here(stage: str, config: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, CHECKOUT / "jobs" / f"{stage}.py", "--config", config],
        env={name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


@pytest.mark.parametrize(
    "submitted",
    [("create_dataset", "predict"), pytest.param(STAGES, marks=pytest.mark.slow)],
    ids=["two", "all"],
)
def test_every_stage_runs_as_a_job_and_finishes_its_folder(
    cluster: Cluster, tmp_path: Path, submitted: tuple[str, ...]
) -> None:
    """Where only some are jobs, the same scripts make what those need on this machine."""
    write_source(tmp_path)
    configs = stage_configs(tmp_path)
    assert set(STAGES) == set(configs)
    for stage in configs if submitted == STAGES else STAGES_UP_TO_PREDICT:
        path = tmp_path / f"{stage}.yaml"
        path.write_text(yaml.safe_dump(configs[stage]))
        job = (
            cluster.submit(f"jobs/{stage}.py", "--config", str(path))
            if stage in submitted
            else run_here(stage, path)
        )
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
