"""A whole search as a user sees it: `ctc tune` on a terminal, tracked by MLflow."""

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from builders import train_config
from terminal import on_terminal

from ctc_ray.config.tuning import TuneConfig
from ctc_ray.stages.train.tracking import Nested, tracked
from ctc_ray.stages.tune.folds import model_uris
from ctc_ray.stages.tune.objective import Objective
from ctc_ray.stages.tune.records import EndedTrial
from ctc_ray.stages.tune.report import SearchPage
from ctc_ray.stages.tune.watching import watching

mlflow = pytest.importorskip("mlflow")
LOSS = Objective("val_loss", {"val_loss": 1.0}, is_pareto=False)


def config(dataset: Path, output: Path, **fields: Any) -> TuneConfig:
    train = train_config(dataset, output).model_dump(
        mode="json", exclude={"output_uri", "overwrite"}
    )
    values = {
        "output_uri": str(output),
        "train": {**train, "max_epochs": 2, "track": "mlflow"},
        "space": {"augment.rotate": {"uniform": [0, 20]}},
        "stopping": "none",
        "trials": 2,
        **fields,
    }
    return TuneConfig.model_validate(values)


def runs(store: Path) -> list[Any]:
    """What MLflow finds, in the order of the names."""
    client = mlflow.MlflowClient(tracking_uri=store.as_uri())
    found = client.get_experiment_by_name("ctc_ray")
    return sorted(client.search_runs([found.experiment_id]), key=lambda run: run.info.run_name)


def ended(number: int, state: Any, loss: float) -> EndedTrial:
    kept = {"val_loss": loss} if state == "done" else None
    return EndedTrial(number, {"augment.rotate": 1.0}, (), state, "", 1.0, 1, kept=kept)


def search_until(
    error: type[BaseException],
    mine: TuneConfig,
    ends: dict[int, EndedTrial],
    objective: Objective = LOSS,
) -> list[str | None]:
    """Run trials that end so; the run of the search, as each trial learns it."""
    page = SearchPage(mine, {}, objective, 4)
    seen = []
    with watching(mine, objective, page) as watched:
        for number, one in ends.items():
            for uri in model_uris(mine.output_uri, number, objective.folds):
                own = train_config(Path("d"), Path(uri)).replaced(track="mlflow")
                name = uri.rpartition("models/")[2]
                with tracked(own, Nested(watched.parent_run, name, one.sample)) as tracker:
                    tracker.add_epoch({"epoch": 1, "val_loss": 2.0})
            watched.add(one, {n: ends[n] for n in range(min(ends), number + 1)})
            seen.append(watched.parent_run)
        raise error


def test_trials_are_runs_in_that_of_the_search_which_a_resumed_search_goes_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "store"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.as_uri())
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    monkeypatch.setenv("MLFLOW_RUN_NAME", "my search")
    mine = config(tmp_path / "dataset", tmp_path / "tuned")
    first = {0: ended(0, "done", 0.5), 1: ended(1, "stopped", 0.7)}
    with pytest.raises(KeyboardInterrupt):
        search_until(KeyboardInterrupt, mine, first)
    done, stopped, search = runs(store)
    assert (search.info.run_name, search.info.status) == ("my search", "KILLED")
    assert search.data.params["space.augment.rotate.uniform"] == "[0, 20]"
    assert search.data.metrics == {"best_val_loss": 0.5}
    with pytest.raises(ValueError, match=r"^$"):
        search_until(ValueError, mine, {2: ended(2, "error", 0.3)})
    *children, again = runs(store)
    assert again.info.run_id == search.info.run_id
    assert again.info.status == "FAILED"
    assert [child.info.run_name for child in children] == ["00000", "00001", "00002"]
    for child in children:
        assert child.data.tags["mlflow.parentRunId"] == search.info.run_id
        assert child.data.params == {"augment.rotate": "1.0"}
        assert child.data.metrics == {"val_loss": 2.0}
    assert stopped.info.status == "KILLED"
    assert children[2].info.status == "FAILED"
    assert done.info.status == "RUNNING"  # it says itself that it is done


def test_of_a_stopped_trial_the_run_of_the_fold_that_was_running_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "store"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.as_uri())
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    mine = config(tmp_path / "dataset", tmp_path / "tuned")
    finished = tmp_path / "tuned" / "models" / "00000" / "north" / "_manifest.json"
    finished.parent.mkdir(parents=True)
    finished.write_text("{}")
    folds = replace(LOSS, folds=("north", "south"))
    with pytest.raises(KeyboardInterrupt):
        search_until(KeyboardInterrupt, mine, {0: ended(0, "stopped", 0.7)}, folds)
    north, south, _ = runs(store)
    assert [north.info.run_name, south.info.run_name] == ["00000/north", "00000/south"]
    assert north.info.status == "RUNNING"  # its training says itself that it is done
    assert south.info.status == "KILLED"


def test_a_server_that_does_not_answer_ends_no_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@127.0.0.1:9")
    mine = config(tmp_path / "dataset", tmp_path / "tuned")
    with pytest.raises(ZeroDivisionError):
        search_until(ZeroDivisionError, mine, {0: ended(0, "done", 0.5)})
    assert "the search goes on without" in caplog.text
    assert "secret" not in caplog.text


@pytest.mark.ray
@pytest.mark.timeout(600)
def test_a_search_on_a_terminal_is_shown_in_place_tracked_and_goes_on(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    tuned, store = tmp_path / "tuned", tmp_path / "store"
    file = tmp_path / "tune.yaml"
    file.write_text(yaml.safe_dump(config(dataset, tuned).model_dump(mode="json")))
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("MLFLOW")},
        "MLFLOW_TRACKING_URI": store.as_uri(),
        "RAY_ADDRESS": "local",
    }
    command = [sys.executable, "-m", "ctc_ray", "tune", "--config", str(file)]
    found = []
    for n_trials in ("2", "3"):
        code, got, is_same = on_terminal([*command, "--trials", n_trials], environment=environment)
        assert (code, is_same) == (0, True), got
        assert "running" in got
        assert "\x1b[J" in got  # the table was written again in place
        assert ", epoch 1: val_loss" not in got
        watch = f"{tuned}/trials.html, or run: tensorboard --logdir {tuned}/models"
        assert got.count(watch) == 2
        found.append(runs(store))
    assert [run.info.run_name for run in found[0]] == ["00000", "00001", "tuned"]
    assert [run.info.run_name for run in found[1]] == ["00000", "00001", "00002", "tuned"]
    parent = found[1][-1]
    assert parent.info.run_id == found[0][-1].info.run_id
    for run in found[1][:-1]:
        assert run.info.status == parent.info.status == "FINISHED"
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert set(run.data.params) == {"augment.rotate"}
        assert "kept_val_loss" in run.data.metrics
    assert parent.data.metrics["best_val_loss"] == min(
        run.data.metrics["kept_val_loss"] for run in found[1][:-1]
    )
    artifacts = next(store.rglob(f"{parent.info.run_id}/artifacts"))
    assert {path.name for path in artifacts.iterdir()} == {"trials.csv", "trials.html", "best.yaml"}
