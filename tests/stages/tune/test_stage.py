import csv
import json
import os
import signal
import threading
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from builders import train_config

from ctc_ray.config.base import build
from ctc_ray.config.training import TrainConfig
from ctc_ray.config.tuning import TuneConfig
from ctc_ray.errors import ConfigError
from ctc_ray.models.bundle import read_provenance
from ctc_ray.stages.train import stage as train
from ctc_ray.stages.tune import stage as tune

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


def trials(tuned: Path) -> list[dict[str, str]]:
    """The rows of the table."""
    with (tuned / "trials.csv").open() as file:
        return list(csv.DictReader(file))


def test_grid_over_two_fields_gives_a_table_and_a_config_that_train_accepts(
    dataset: Path, tmp_path: Path
) -> None:
    space = {
        "optimizer.learning_rate": {"grid": [1e-6, 0.01]},
        "loss_weights.count": {"uniform": [0.1, 1]},
    }
    metric = "val_loss_species"
    search = config(dataset, tmp_path / "tuned", space=space, metric=metric, stopping="none")
    manifest = tune.run(search)
    rows = trials(tmp_path / "tuned")
    assert sorted(float(row["optimizer.learning_rate"]) for row in rows) == [1e-6, 0.01]
    assert all(0.1 <= float(row["loss_weights.count"]) <= 1 for row in rows)
    best = min(rows, key=lambda row: float(row[metric]))
    assert manifest.summary["best trial"] == best["trial"]
    values = yaml.safe_load((tmp_path / "tuned" / "best.yaml").read_text())
    chosen = build(TrainConfig, values, where="best.yaml")
    assert chosen.optimizer.learning_rate == float(best["optimizer.learning_rate"])
    assert chosen.loss_weights["count"] == pytest.approx(float(best["loss_weights.count"]))
    events = list((tmp_path / "tuned" / "models").glob("*/tensorboard/events.out.tfevents*"))
    assert len(events) == 2
    table = pq.read_table(tmp_path / "tuned" / "trials.parquet").to_pylist()
    assert [row["trial"] for row in table] == [row["trial"] for row in rows] == ["00000", "00001"]


def test_of_learning_rates_that_are_too_small_and_too_large_the_sane_one_wins(
    local_ray: None, dataset: Path, tmp_path: Path
) -> None:
    space = {"optimizer.learning_rate": {"grid": [1e-7, 1e-2, 1e30]}}
    tuned = tmp_path / "tuned"
    search = config(dataset, tuned, space=space, stopping="none")
    manifest = tune.run(search.replaced(train={**search.train, "max_epochs": 8}))
    small, sane, large = trials(tuned)
    assert manifest.summary["best trial"] == sane["trial"]
    assert float(sane["val_loss"]) < float(small["val_loss"])
    assert [row["state"] for row in (small, sane, large)] == ["done", "done", "error"]
    assert large["val_loss"] == ""
    assert "training diverged: the loss is not a number in epoch 1" in large["reason"]


def test_more_trials_make_a_finished_search_go_on(
    local_ray: None, dataset: Path, tmp_path: Path
) -> None:
    tuned = tmp_path / "tuned"
    search = config(dataset, tuned, trials=2, stopping="none")
    tune.run(search)
    first = trials(tuned)
    written = [path.stat().st_mtime_ns for path in sorted(tuned.glob("models/*/_manifest.json"))]
    assert tune.run(search).summary["trials"] == tune.run(search).summary["trials"]
    tune.run(search.replaced(trials=3))
    assert trials(tuned)[:2] == first
    assert len(trials(tuned)) == 3
    again = [path.stat().st_mtime_ns for path in sorted(tuned.glob("models/*/_manifest.json"))]
    assert again[:2] == written
    tune.run(config(dataset, tmp_path / "at once", trials=3, stopping="none"))
    for one, other in zip(trials(tuned), trials(tmp_path / "at once"), strict=True):
        assert {**one, "seconds": ""} == {**other, "seconds": ""}


def test_the_best_configuration_gives_the_value_of_its_trial_again(
    local_ray: None, dataset: Path, tmp_path: Path
) -> None:
    tuned = tmp_path / "tuned"
    space = {
        "optimizer.learning_rate": {"loguniform": [1e-3, 1e-2]},
        "seed": {"randint": [0, 99]},
    }
    manifest = tune.run(
        config(dataset, tuned, space=space, trials=2, metric="val_accuracy_species")
    )
    best = next(r for r in trials(tuned) if r["trial"] == manifest.summary["best trial"])
    values = yaml.safe_load((tuned / "best.yaml").read_text())
    chosen = build(TrainConfig, values, where="best.yaml")
    train.run(chosen)
    metrics = read_provenance(chosen.output_uri).metrics
    assert metrics["accuracy_species"] == float(best["val_accuracy_species"])
    assert (Path(chosen.output_uri) / "weights.safetensors").read_bytes() == (
        tuned / "models" / best["trial"] / "weights.safetensors"
    ).read_bytes()


@pytest.mark.parametrize(
    ("budget", "n_trials"), [({"max_images": 1}, 1), ({"max_hours": 1e-9}, 1), ({}, 3)]
)
def test_a_search_begins_no_trial_when_its_budget_is_spent(
    local_ray: None, dataset: Path, tmp_path: Path, budget: dict[str, float], n_trials: int
) -> None:
    tuned = tmp_path / "tuned"
    search = config(dataset, tuned, trials=3, **budget)
    search = search.replaced(train={**search.train, "max_epochs": 1})
    tune.run(search)
    assert len(trials(tuned)) == n_trials
    tune.run(search.replaced(max_hours=None, max_images=None))
    assert len(trials(tuned)) == 3


def test_optuna_keeps_the_pareto_front_of_all_heads(
    local_ray: None, dataset: Path, tmp_path: Path
) -> None:
    tuned = tmp_path / "tuned"
    space = {"loss_weights.count": {"loguniform": [0.01, 100]}}
    search = config(dataset, tuned, space=space, trials=3, method="optuna", pareto=True)
    tune.run(search.replaced(train={**search.train, "max_epochs": 1}))
    rows = trials(tuned)
    values = [tuple(float(row[f"val_macro_f1_{h}"]) for h in ("species", "count")) for row in rows]
    for row, one in zip(rows, values, strict=True):
        is_dominated = any(
            other != one and all(a >= b for a, b in zip(other, one, strict=True))
            for other in values
        )
        assert row["pareto"] == str(not is_dominated)
    assert len({row["loss_weights.count"] for row in rows}) == 3


def test_a_population_goes_on_from_its_best_and_its_best_model_comes_again(
    local_ray: None, dataset: Path, tmp_path: Path
) -> None:
    """Generations of two: the worse one of each goes on from the weights of the better one."""
    tuned = tmp_path / "tuned"
    space = {"optimizer.learning_rate": {"loguniform": [1e-6, 1e-2]}}
    search = config(dataset, tuned, space=space, trials=6, method="pbt", population=2)
    manifest = tune.run(search)
    rows = trials(tuned)
    losses = [float(row["val_loss"]) for row in rows]
    for first in (2, 4):
        better = min((first - 2, first - 1), key=lambda n: losses[n])
        assert [int(row["parent"]) for row in rows[first : first + 2]] == [better] * 2
        same = rows[better + 2]["optimizer.learning_rate"]
        assert same == rows[better]["optimizer.learning_rate"]
        assert len({row["optimizer.learning_rate"] for row in rows[first : first + 2]}) == 2
    assert min(losses[4:]) < min(losses[:2])
    best = manifest.summary["best trial"]
    chosen = build(TrainConfig, yaml.safe_load((tuned / "best.yaml").read_text()), where="best")
    train.run(chosen)
    weights = (Path(chosen.output_uri) / "weights.safetensors").read_bytes()
    assert weights == (tuned / "models" / best / "weights.safetensors").read_bytes()
    whole = trials(tuned)
    cut = tmp_path / "cut"
    tune.run(search.replaced(output_uri=str(cut), trials=3))
    tune.run(search.replaced(output_uri=str(cut)))
    for one, other in zip(trials(cut), whole, strict=True):
        assert {**one, "seconds": ""} == {**other, "seconds": ""}


@pytest.mark.slow
def test_a_trial_whose_process_is_killed_goes_on_from_its_checkpoint(
    local_ray: None, dataset: Path, tmp_path: Path
) -> None:
    tuned = tmp_path / "tuned"
    search = config(dataset, tuned)
    search = search.replaced(train={**search.train, "max_epochs": 8})
    ended = threading.Event()
    killed: list[int] = []

    def kill_it_once() -> None:
        while not ended.wait(0.05):
            for claim in (tuned / "models" / "00000" / "_work").glob("claim-*.json"):
                if (tuned / "models" / "00000" / "_work" / "checkpoints").exists():
                    killed.append(json.loads(claim.read_bytes())["process"])
                    os.kill(killed[0], signal.SIGKILL)
                    return

    killer = threading.Thread(target=kill_it_once)
    killer.start()
    try:
        tune.run(search)
    finally:
        ended.set()
        killer.join()
    (row,) = trials(tuned)
    assert killed
    assert (row["state"], row["epochs"]) == ("done", "8")


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
        tune.run(config(dataset, tmp_path / "tuned", space=space, metric="val_loss"))
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
