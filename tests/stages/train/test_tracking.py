import sys
from pathlib import Path
from typing import Any

import pytest
from builders import train_config

from ctc_ray.config.training import TrainConfig
from ctc_ray.errors import ConfigError
from ctc_ray.files.csv_text import numbers_of_csv
from ctc_ray.stages.train import stage as train
from ctc_ray.stages.train.mlflow_run import flat
from ctc_ray.stages.train.tracking import check, tracked

mlflow = pytest.importorskip("mlflow")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with no server in the environment."""
    monkeypatch.chdir(tmp_path)
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_RUN_NAME"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def config(dataset: Path, output: Path, **changes: Any) -> TrainConfig:
    return train_config(dataset, output).replaced(track="mlflow", **changes)


def runs(folder: Path) -> list[Any]:
    """What MLflow finds in a folder."""
    client = mlflow.MlflowClient(tracking_uri=folder.as_uri())
    found = client.get_experiment_by_name("ctc_ray")
    return list(client.search_runs([found.experiment_id])) if found else []


def steps(folder: Path, run: Any, name: str) -> list[tuple[int, float]]:
    history = mlflow.MlflowClient(tracking_uri=folder.as_uri()).get_metric_history(
        run.info.run_id, name
    )
    return sorted((metric.step, metric.value) for metric in history)


def log_until(error: type[BaseException], mine: TrainConfig, *, n_epochs: int) -> None:
    with tracked(mine) as tracker:
        for epoch in range(1, n_epochs + 1):
            tracker.add_epoch({"epoch": epoch, "val_loss": 1 / epoch})
        raise error


def test_a_training_is_logged_and_one_that_goes_on_goes_on_with_its_run(
    dataset: Path, here: Path
) -> None:
    train.run(config(dataset, here / "model", max_epochs=1))
    (first,) = runs(here / "mlruns")
    train.run(config(dataset, here / "model", max_epochs=3))
    (run,) = runs(here / "mlruns")
    assert run.info.run_id == first.info.run_id
    assert (first.info.status, run.info.status, run.info.run_name) == ("FINISHED",) * 2 + ("model",)
    assert run.data.params["model.image_size"] == "32"
    assert run.data.params["heads"] == "['species', 'count']"
    history = numbers_of_csv((here / "model" / "history.csv").read_bytes())
    for name in ("val_loss", "learning_rate", "val_event_accuracy_count"):
        wanted = [(int(row["epoch"]), row[name]) for row in history]
        assert steps(here / "mlruns", run, name) == [(s, pytest.approx(v)) for s, v in wanted]
    assert len(steps(here / "mlruns", run, "images_per_s")) == 3
    best = min(row["val_loss"] for row in history)
    assert run.data.metrics["kept_val_loss"] == pytest.approx(best, abs=1e-4)
    logged = {path.name for path in (here / "mlruns").rglob("artifacts/*")}
    assert logged == {"history.csv", "metrics.json", "speed.csv", "training.html", "training.png"}


def test_a_killed_training_goes_on_with_its_run_and_logs_no_epoch_twice(here: Path) -> None:
    mine = config(here / "dataset", here / "model")
    seen = []
    for n_epochs, error in ((1, KeyboardInterrupt), (2, ValueError)):
        with pytest.raises(error):
            log_until(error, mine, n_epochs=n_epochs)
        seen += runs(here / "mlruns")
    with tracked(mine):
        seen += runs(here / "mlruns")
    assert [run.info.status for run in seen] == ["KILLED", "FAILED", "RUNNING"]
    assert len({run.info.run_id for run in seen}) == 1
    assert steps(here / "mlruns", seen[-1], "val_loss") == [(1, 1.0), (2, 0.5)]


@pytest.mark.ray
def test_workers_on_ray_are_logged_by_the_driver(
    local_ray: None, dataset: Path, here: Path
) -> None:
    train.run(config(dataset, here / "model", max_epochs=2, workers=2))
    (run,) = runs(here / "mlruns")
    assert [step for step, _ in steps(here / "mlruns", run, "val_loss")] == [1, 2]
    assert [step for step, _ in steps(here / "mlruns", run, "seconds")] == [1, 2]


def test_a_training_into_another_server_has_a_run_there(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = config(here / "dataset", here / "model")
    for name in ("one", "two"):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", (here / name).as_uri())
        with tracked(mine) as tracker:
            tracker.add_epoch({"epoch": 1, "val_loss": 2.0})
        (run,) = runs(here / name)
        assert steps(here / name, run, "val_loss") == [(1, 2.0)]


def test_a_server_that_comes_back_gets_the_epochs_that_it_missed(
    here: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (here / "mlruns").touch()  # a file, where a folder is needed
    with tracked(config(here / "dataset", here / "model")) as tracker:
        tracker.add_epoch({"epoch": 1, "val_loss": 3.0})
        (here / "mlruns").unlink()
        for epoch in (2, 3):
            tracker.add_epoch({"epoch": epoch, "val_loss": 3.0 / epoch})
    assert "the training goes on" in caplog.text
    (run,) = runs(here / "mlruns")
    assert steps(here / "mlruns", run, "val_loss") == [(1, 3.0), (2, 1.5), (3, 1.0)]


def test_a_server_that_does_not_answer_ends_no_training(
    dataset: Path, here: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@127.0.0.1:9")
    train.run(config(dataset, here / "model", max_epochs=1))
    assert (here / "model" / "_manifest.json").exists()
    assert "--track mlflow: " in caplog.text
    assert "secret" not in caplog.text
    assert all(b"secret" not in p.read_bytes() for p in here.rglob("*") if p.is_file())


def test_a_head_may_be_called_what_mlflow_does_not_allow(here: Path) -> None:
    with tracked(config(here / "dataset", here / "model")) as tracker:
        tracker.add_epoch({"epoch": 1, "val_loss_sex & age": 2.0})
    (run,) = runs(here / "mlruns")
    assert run.data.metrics == {"val_loss_sex _ age": 2.0}


def test_without_the_library_nothing_is_begun(
    dataset: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(ConfigError, match=r"^--track mlflow: .* pip install 'ctc-ray\[mlflow\]'$"):
        train.run(config(dataset, here / "model"))
    assert not (here / "model").exists()


def test_trials_need_a_server(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = config(here / "dataset", here / "model")
    with pytest.raises(ConfigError, match="set MLFLOW_TRACKING_URI"):
        check(mine, is_trial=True)
    check(mine)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    check(mine, is_trial=True)


def test_values_are_named_by_their_path() -> None:
    assert flat({"a": 1, "b": {"c": [2], "d": {}}}) == {"a": 1, "b.c": [2]}
