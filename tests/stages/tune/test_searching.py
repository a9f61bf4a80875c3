import json
import math
import random
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ray.tune.schedulers import TrialScheduler

from ctc_ray.config.search import Dimension, draw
from ctc_ray.config.tuning import TuneConfig
from ctc_ray.errors import ConfigError
from ctc_ray.stages.tune.objective import Objective, objective_of
from ctc_ray.stages.tune.records import EndedTrial, read_ended
from ctc_ray.stages.tune.searching import OptunaStudy, require_searchable, scheduler_of
from ctc_ray.stages.tune.trial import with_objective

LOSS = Objective("val_loss", {"val_loss": 1.0}, is_pareto=False)
F1 = Objective("val_macro_f1", {"val_macro_f1_a": 1.0, "val_macro_f1_b": 3.0}, is_pareto=True)


def config(**fields: Any) -> TuneConfig:
    train = {"dataset_uri": "d", "heads": ["a", "b"]}
    return TuneConfig.model_validate({"output_uri": "out", "train": train, **fields})


def ended(number: int, losses: list[float], state: str = "done", **sample: Any) -> EndedTrial:
    rows = [{"epoch": k, "val_loss": loss} for k, loss in enumerate(losses, start=1)]
    return EndedTrial(number, sample, tuple(rows), state, "", 1.0, 10)  # type: ignore[arg-type]


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    trials = {n: ended(n, [1.0, math.inf], "error", **{"a.b": [n]}) for n in (12, 3)}
    for trial in trials.values():
        trial.write(str(tmp_path))
    assert read_ended(str(tmp_path)) == trials
    assert list(read_ended(str(tmp_path))) == [3, 12]
    assert read_ended(str(tmp_path / "nothing")) == {}


def test_a_record_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    trial = replace(ended(3, [1.0]), kept={"val_loss": math.nan, "val_loss_a": 0.5})
    trial.write(str(tmp_path))
    (path,) = (tmp_path / "trials").iterdir()
    found = read_ended(str(tmp_path))[3].kept
    assert found is not None
    assert math.isnan(found["val_loss"])
    assert found["val_loss_a"] == 0.5
    values = json.loads(path.read_text())
    path.write_text(json.dumps({key: value for key, value in values.items() if key != "kept"}))
    assert read_ended(str(tmp_path))[3] == ended(3, [1.0])


def test_a_metric_without_a_head_is_the_weighted_mean_over_the_heads() -> None:
    made = objective_of(config(metric="val_macro_f1", head_weights={"b": 3}), {})
    assert made.value({"val_macro_f1_a": 0.2, "val_macro_f1_b": 0.6}) == pytest.approx(0.5)
    assert math.isnan(made.value({"val_macro_f1_a": 0.2}))
    assert made.direction == "max"


def test_the_default_metric_is_the_one_that_the_trainings_monitor() -> None:
    assert objective_of(config(), {}).name == "val_loss"
    weights = {"loss_weights.b": Dimension("uniform", (0.1, 1))}
    assert objective_of(config(), weights).name == "val_macro_f1"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"metric": "val_f1"}, "'val_f1' is not known; metrics are val_loss, "),
        ({"pareto": True}, "val_loss is one number"),
        ({"metric": "val_macro_f1", "head_weights": {"c": 1}}, "head_weights names c"),
        ({"metric": "val_macro_f1", "head_weights": {"a": 0, "b": 0}}, "not all 0"),
    ],
)
def test_an_objective_that_cannot_be_is_named(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        objective_of(config(**fields), {})


def test_the_front_is_what_no_other_trial_dominates() -> None:
    rng = random.Random(0)
    values = [[rng.randrange(8) / 8, rng.randrange(8) / 8] for _ in range(200)]
    front = F1.front(values)
    for one, is_in in zip(values, front, strict=True):
        beaten = any(o != one and o[0] >= one[0] and o[1] >= one[1] for o in values)
        assert is_in != beaten


class Running:
    """A trial, as Ray Tune's schedulers know one."""

    def __init__(self, number: int) -> None:
        self.trial_id = f"t{number}"


def decisions(
    search: TuneConfig, curves: Mapping[int, list[float]], known: list[EndedTrial]
) -> dict[int, int]:
    """After how many epochs each trial ends, one after the other."""
    scheduler = scheduler_of(search, LOSS, 9, known)
    found = {}
    for number, losses in curves.items():
        trial = Running(number)
        scheduler.on_trial_add(None, trial)
        for epoch, loss in enumerate(losses, start=1):
            row = with_objective({"epoch": epoch, "val_loss": loss}, LOSS)
            found[number] = epoch
            if scheduler.on_trial_result(None, trial, row) == TrialScheduler.STOP:
                break
        scheduler.on_trial_complete(None, trial, row)
    return found


@pytest.mark.parametrize("stopping", ["asha", "median", "none"])
def test_a_resumed_search_stops_the_trials_that_an_uninterrupted_one_stops(stopping: str) -> None:
    rng = random.Random(3)
    curves = {}
    for number in range(40):
        start = rng.uniform(1, 3)
        curves[number] = [start / k + rng.uniform(0, 0.3) for k in range(1, 9)]
    search = config(stopping=stopping, reduction_factor=2)
    whole = decisions(search, curves, [])
    for cut in (1, 7, 20, 39):
        known = [ended(n, curves[n][: whole[n]]) for n in range(cut)]
        rest = decisions(search, {n: curves[n] for n in range(cut, 40)}, known)
        assert rest == {n: whole[n] for n in range(cut, 40)}
    if stopping == "none":
        assert set(whole.values()) == {8}
    else:
        assert min(whole.values()) < 8 == max(whole.values())


SPACE = {
    "x": Dimension("uniform", (-5.0, 5.0)),
    "rate": Dimension("loguniform", (1e-5, 1.0)),
    "kind": Dimension("choice", ("p", "q", None)),
    "y": Dimension("same_as", ("x",)),
    "z": Dimension("randint", (0, 9), {"kind": "q"}),
}


def score(sample: Mapping[str, Any]) -> float:
    assert sample["y"] == sample["x"]
    assert ("z" in sample) == (sample["kind"] == "q")
    penalty = 0.0 if sample["kind"] == "q" else 3.0
    return (sample["x"] - 2) ** 2 + (math.log10(sample["rate"]) + 3) ** 2 + penalty


def study_of(known: list[EndedTrial], *, seed: int, losses: dict[int, float]) -> OptunaStudy:
    return OptunaStudy(SPACE, LOSS, known, values_of=lambda n: [losses[n]], seed=seed)


def test_optuna_finds_better_values_than_chance_also_where_it_is_resumed() -> None:
    means: dict[str, list[float]] = {"random": [], "optuna": [], "resumed": []}
    for seed in range(4):
        at_random = [draw(SPACE, seed=seed, number=n) for n in range(40)]
        means["random"].append(sum(sorted(map(score, at_random[20:]))) / 20)
        losses: dict[int, float] = {}
        study, samples = study_of([], seed=seed, losses=losses), {}
        for name, numbers in (("first", range(20)), ("optuna", range(20, 40))):
            for number in numbers:
                samples[number] = study.sample(number)
                losses[number] = score(samples[number])
                study.tell(ended(number, [0.0], **samples[number]))
            if name == "optuna":
                means[name].append(sum(losses[n] for n in numbers) / 20)
        known = [ended(n, [0.0], **samples[n]) for n in range(20)]
        again = study_of(known, seed=seed, losses=losses)
        found = []
        for number in range(20, 40):
            sample = again.sample(number)
            assert sample not in samples.values()
            losses[number] = score(sample)
            found.append(losses[number])
            again.tell(ended(number, [0.0], **sample))
        means["resumed"].append(sum(found) / 20)
    chance, optuna, resumed = (sum(values) / 4 for values in means.values())
    assert optuna < 0.6 * chance
    assert resumed < 0.6 * chance


def test_optuna_learns_from_stopped_trials_and_leaves_failed_ones_out() -> None:
    study = study_of([], seed=0, losses={})
    for number, state in zip(range(3), ("stopped", "error", "stopped"), strict=True):
        sample = study.sample(number)
        study.tell(ended(number, [1.5, 0.5], state, **sample))
    told = study._study.trials
    assert [trial.values for trial in told] == [[0.5], None, [0.5]]


def test_optuna_has_no_grid() -> None:
    grid = {"x": Dimension("grid", (1, 2))}
    with pytest.raises(ConfigError, match=r"space\.x: --method optuna has no grid; take choice"):
        require_searchable(config(method="optuna"), grid)
