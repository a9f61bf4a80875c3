import csv
import json
import os
import shutil
import signal
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from builders import train_config
from ray.exceptions import ActorDiedError, RayTaskError

from ctc_ray.config.base import build
from ctc_ray.config.search import parse_space
from ctc_ray.config.training import TrainConfig
from ctc_ray.config.tuning import TuneConfig
from ctc_ray.errors import ConfigError, CtcError
from ctc_ray.runs.manifest import read_manifest
from ctc_ray.stages import tune

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]


def config(dataset: Path, output: Path, **fields: object) -> TuneConfig:
    train = train_config(dataset, output).model_dump(exclude={"output_uri", "overwrite"})
    values = {
        "output_uri": str(output),
        "train": {**train, "max_epochs": 2},
        "space": {"augment": {"rotate": {"uniform": [0, 20]}}},
        "trials": 1,
        **fields,
    }
    return TuneConfig.model_validate(values)


def test_grid_over_two_fields_gives_a_table_and_a_config_that_train_accepts(
    dataset: Path, tmp_path: Path
) -> None:
    space = {
        "optimizer.learning_rate": {"grid": [1e-6, 0.01]},
        "loss_weights.count": {"uniform": [0.1, 1]},
    }
    metric = "val_loss_species"
    manifest = tune.run(config(dataset, tmp_path / "tuned", space=space, metric=metric))
    with (tmp_path / "tuned" / "trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert sorted(float(row["optimizer.learning_rate"]) for row in rows) == [1e-6, 0.01]
    assert all(0.1 <= float(row["loss_weights.count"]) <= 1 for row in rows)
    best = min(rows, key=lambda row: float(row[metric]))
    assert manifest.summary["best trial"] == best["trial"]
    values = yaml.safe_load((tmp_path / "tuned" / "best.yaml").read_text())
    chosen = build(TrainConfig, values, where="best.yaml")
    assert chosen.optimizer.learning_rate == float(best["optimizer.learning_rate"])
    assert chosen.loss_weights["count"] == pytest.approx(float(best["loss_weights.count"]))
    events = list((tmp_path / "tuned" / "trials").rglob("events.out.tfevents*"))
    assert len(events) == 2


class Results:
    """Of a search, as Ray Tune gives them."""

    def __init__(self, *, terminated: int, errors: int, others: int) -> None:
        self.num_terminated, self.num_errors = terminated, errors
        self._n = terminated + errors + others

    def __len__(self) -> int:
        return self._n


@pytest.mark.parametrize(
    ("terminated", "errors", "others"), [(5, 0, 0), (5, 0, 1), (0, 0, 0), (6, 1, 0)]
)
def test_a_search_that_ray_tune_ends_early_is_not_complete(
    tmp_path: Path, terminated: int, errors: int, others: int
) -> None:
    space = {"optimizer.learning_rate": {"grid": [0.1, 0.2, 0.3]}, "seed": {"randint": [0, 9]}}
    search = config(tmp_path / "dataset", tmp_path / "tuned", space=space, trials=2)
    dimensions = parse_space(search)
    tune._require_all_ended(search, dimensions, Results(terminated=4, errors=2, others=0))
    results = Results(terminated=terminated, errors=errors, others=others)
    message = f"{terminated + errors} of 6 trials have ended; .* the same command resumes"
    with pytest.raises(CtcError, match=message):
        tune._require_all_ended(search, dimensions, results)


def test_a_trial_is_lost_only_where_its_process_is_gone() -> None:
    own = RayTaskError("trial", "traceback", ConfigError("diverged"))
    of_worker = RayTaskError("trial", "traceback", ActorDiedError())
    assert [tune.is_lost(error) for error in (None, own, ConfigError("x"))] == [False] * 3
    assert [tune.is_lost(error) for error in (ActorDiedError(), of_worker)] == [True] * 2


def test_a_search_that_has_lost_a_trial_is_not_complete(tmp_path: Path) -> None:
    search = config(tmp_path / "dataset", tmp_path / "tuned")
    ended = [Ended(None), Ended(RayTaskError("trial", "traceback", ConfigError("diverged")))]
    tune._require_none_lost(search, ended)
    with pytest.raises(CtcError, match="1 trials were lost with their nodes"):
        tune._require_none_lost(search, [*ended, Ended(ActorDiedError())])


@dataclass(frozen=True)
class Ended:
    """The end of a trial, as Ray Tune gives it."""

    error: Exception | None


def fail_in_a_trial(uri: str, began: list[int], error: Exception) -> None:
    with tune._final_error(uri):
        began.append(1)
        raise error


@pytest.mark.parametrize("error", [CtcError("a line"), ValueError("a mistake")])
def test_a_trial_with_an_error_of_its_own_does_nothing_when_it_is_started_again(
    tmp_path: Path, error: Exception
) -> None:
    uri = str(tmp_path / "errors" / "trial.json")
    began: list[int] = []
    for _ in range(3):
        with pytest.raises(type(error) if not began else CtcError, match=str(error)):
            fail_in_a_trial(uri, began, error)
    assert len(began) == 1


def test_a_trial_whose_workers_are_lost_is_started_again(tmp_path: Path) -> None:
    for _ in range(2):
        with (
            pytest.raises(CtcError, match="Ray failed"),
            tune._final_error(str(tmp_path / "trial.json")),
        ):
            raise CtcError("Ray failed") from ActorDiedError()
    assert not list(tmp_path.iterdir())


def reports(tuned: Path) -> list[dict[str, Any]]:
    """What the trial has reported after each epoch, with the process that did."""
    lines = [line for path in tuned.glob("trials/*/result.json") for line in path.open()]
    return [json.loads(line) for line in lines if line.endswith("\n")]


@pytest.mark.slow
def test_a_trial_whose_process_is_killed_goes_on_from_its_checkpoint(
    local_ray: None, dataset: Path, tmp_path: Path
) -> None:
    tuned = tmp_path / "tuned"
    search = config(dataset, tuned)
    search = search.replaced(train={**search.train, "max_epochs": 8})
    ended = threading.Event()

    def kill_it_once() -> None:
        while not ended.wait(0.05):
            if found := reports(tuned):
                os.kill(found[0]["pid"], signal.SIGKILL)
                return

    killer = threading.Thread(target=kill_it_once)
    killer.start()
    try:
        tune.run(search)
    finally:
        ended.set()
        killer.join()
    with (tuned / "trials.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert (row["state"], row["epochs"]) == ("done", "8")
    told = reports(tuned)
    assert len({report["pid"] for report in told}) == 2
    second = [report["epoch"] for report in told if report["pid"] != told[0]["pid"]]
    assert min(second) > 1  # it did not begin again


def test_field_that_does_not_exist_is_named_before_the_cluster_starts(
    dataset: Path, tmp_path: Path
) -> None:
    space = {"optimizer.learning_rat": {"choice": [0.1]}}
    with pytest.raises(ConfigError, match=r"did you mean optimizer\.learning_rate"):
        tune.run(config(dataset, tmp_path / "tuned", space=space))
    assert not (tmp_path / "tuned").exists()


def test_metric_that_does_not_exist_is_named_before_the_cluster_starts(
    dataset: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"metric: 'val_acuracy_species'.*val_accuracy_species"):
        tune.run(config(dataset, tmp_path / "tuned", metric="val_acuracy_species"))


def test_a_loss_that_the_space_weights_is_no_metric(dataset: Path, tmp_path: Path) -> None:
    space = {"loss_weights": {"count": {"uniform": [0.1, 1]}}}
    with pytest.raises(
        ConfigError, match=r"weighted by loss_weights.count .* val_macro_f1_species"
    ):
        tune.run(config(dataset, tmp_path / "tuned", space=space))
    assert not (tmp_path / "tuned").exists()


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"model.backbone": {"choice": ["small_cnn", "resnet81"]}}, "resnet18"),
        ({"model.pretrained": {"choice": [False, "no.pth"]}}, r"no\.pth: no such file"),
        ({"workers": {"choice": [1, 999]}}, r"needs 999\.25 CPUs, this machine has"),
    ],
)
def test_models_and_workers_are_tried_before_anything_is_begun(
    dataset: Path, tmp_path: Path, space: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        tune.run(config(dataset, tmp_path / "tuned", space=space))
    assert not (tmp_path / "tuned").exists()


class Result:
    """The result of one trial, as Ray Tune gives it."""

    def __init__(self, trial: str, config: dict[str, object], error: Exception | None) -> None:
        self.config, self.error = config, error
        self.metrics = {"trial_id": trial, "epoch": 2, "time_total_s": 1.0}
        self.metrics_dataframe = None


def test_only_trials_with_a_sound_model_are_ranked_by_the_epoch_that_was_kept(
    bundle: Path, dataset: Path, tmp_path: Path
) -> None:
    out = tmp_path / "tuned"
    name = "optimizer.learning_rate"
    search = config(dataset, out, space={name: {"grid": [0.1, 0.2, 0.3, 0.4]}},
                    metric="val_accuracy_species")  # fmt: skip
    for trial, value in (("good", 0.75), ("worse", 0.5), ("nan", float("nan"))):
        shutil.copytree(bundle, out / "models" / trial)
        file = out / "models" / trial / "bundle.json"
        content = json.loads(file.read_text())
        content["provenance"]["metrics"]["accuracy_species"] = value
        file.write_text(json.dumps(content))
    names = "ray.exceptions.RayTaskError(DivergedError): ctc_ray.errors.DivergedError"
    ended = f"{names}: training diverged"
    results = [
        Result("worse", {name: 0.1}, None),
        Result("good", {name: 0.2}, None),
        Result("cut", {name: 0.3}, None),  # by the scheduler: it has no model
        Result("dead", {name: 0.4}, RuntimeError(f"line one\n{ended}")),
    ]
    manifest = tune._summarise(search, [name], results, read_manifest(str(dataset), "dataset"), {})
    rows = {row["trial"]: row for row in manifest.summary["trials"]}
    assert manifest.summary["best trial"] == "good"
    assert [rows[t]["state"] for t in ("good", "worse", "cut", "dead")] == [
        "done", "done", "stopped", "error"
    ]  # fmt: skip
    assert rows["good"]["val_accuracy_species"] == 0.75
    assert rows["cut"]["val_accuracy_species"] is None
    assert rows["dead"]["reason"] == "training diverged"
    with (out / "trials.csv").open() as file:
        table = list(csv.DictReader(file))
    assert table[3]["reason"] == "training diverged"
    with pytest.raises(ConfigError, match=r"no trial ended with a model: .*training diverged"):
        tune._summarise(search, [name], results[2:], read_manifest(str(dataset), "dataset"), {})
    with (out / "trials.csv").open() as file:  # also where no trial is best
        table = list(csv.DictReader(file))
    assert [row["trial"] for row in table] == ["cut", "dead"]
    assert table[1]["reason"] == "training diverged"
