"""jobs/: the YAML files are valid and fit together; the scripts run and hand on exit codes."""

import subprocess
import sys
from pathlib import Path

import pytest

from ctc_ray.config.aggregation import AggregateConfig
from ctc_ray.config.base import StageConfig, build, read_yaml
from ctc_ray.config.dataset import CreateDatasetConfig
from ctc_ray.config.inventory import CsvInventoryConfig
from ctc_ray.config.prediction import ExportConfig, PredictConfig
from ctc_ray.config.search import parse_space
from ctc_ray.config.training import TrainConfig
from ctc_ray.config.tuning import TuneConfig

JOBS = Path(__file__).resolve().parents[1] / "jobs"
MODELS: dict[str, type[StageConfig]] = {
    "create_inventory": CsvInventoryConfig,
    "create_dataset": CreateDatasetConfig,
    "train": TrainConfig,
    "tune": TuneConfig,
    "predict": PredictConfig,
    "aggregate": AggregateConfig,
    "export": ExportConfig,
}


def read(stage: str) -> StageConfig:
    path = JOBS / f"{stage}.yaml"
    return build(MODELS[stage], read_yaml(str(path)), where=path.name)


def run_job(script: str, *options: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, JOBS / script, *options],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize("stage", MODELS)
def test_every_stage_has_a_script_and_a_valid_yaml(stage: str) -> None:
    assert (JOBS / f"{stage}.py").is_file()
    assert read(stage).output_uri.startswith("s3://")


def test_there_are_no_other_scripts_than_the_stages_and_the_pipeline() -> None:
    assert {path.stem for path in JOBS.glob("*.py")} == {*MODELS, "pipeline"}


def test_the_search_space_is_valid_for_its_train_configuration() -> None:
    assert parse_space(read("tune"))


def test_every_stage_reads_what_an_earlier_one_writes() -> None:
    inventory, dataset, train, tune, predict, aggregate, export = map(read, MODELS)
    assert dataset.inventory_uri == inventory.output_uri
    assert train.dataset_uri == tune.train["dataset_uri"] == dataset.output_uri
    assert predict.bundle_uri == export.bundle_uri == train.output_uri
    assert aggregate.predictions_uri == predict.output_uri
    assert set(train.heads) == set(dataset.heads) <= set(inventory.head_columns)
    outputs = {read(stage).output_uri for stage in MODELS}
    assert len(outputs) == len(MODELS)


@pytest.mark.parametrize("stage", MODELS)
def test_a_wrong_setting_ends_a_job_with_one_line_and_exit_code_2(
    stage: str, tmp_path: Path
) -> None:
    config = tmp_path / "wrong.yaml"
    config.write_text((JOBS / f"{stage}.yaml").read_text() + "\noutput_urii: x\n")
    done = run_job(f"{stage}.py", "--config", str(config), cwd=tmp_path)
    assert done.returncode == 2
    assert "output_urii is not a setting; did you mean output_uri?" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_the_inventory_job_takes_the_kind_of_source_as_its_first_argument(tmp_path: Path) -> None:
    done = run_job("create_inventory.py", "dir", "--help", cwd=tmp_path)
    assert done.returncode == 0
    assert "create-inventory dir" in done.stdout


def test_the_pipeline_stops_at_the_first_failing_stage_with_its_exit_code(tmp_path: Path) -> None:
    (tmp_path / "create_inventory.yaml").write_text("no_setting: 1\n")
    (tmp_path / "create_dataset.yaml").write_text("no_setting_either: 1\n")
    done = run_job("pipeline.py", str(tmp_path), cwd=tmp_path)
    assert done.returncode == 2
    assert "create_inventory.yaml" in done.stderr
    assert "create_dataset.yaml" not in done.stderr
