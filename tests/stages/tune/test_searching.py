import json
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

from ctc_ray.config.search import Dimension, draw, parse_space, train_config
from ctc_ray.config.tuning import TuneConfig
from ctc_ray.errors import ConfigError
from ctc_ray.stages.tune.objective import Objective, objective_of
from ctc_ray.stages.tune.population import Population
from ctc_ray.stages.tune.records import EndedTrial, read_ended
from ctc_ray.stages.tune.samples import RandomSamples
from ctc_ray.stages.tune.searching import (
    OptunaStudy,
    Planned,
    require_searchable,
    scheduler_of,
)
from ctc_ray.stages.tune.trial import FOLD, with_objective

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
    search: TuneConfig,
    curves: Mapping[int, list[float]],
    known: list[EndedTrial],
    *,
    within: Sequence[Mapping[str, Any]] = (),
) -> dict[int, int]:
    """After how many epochs each trial ends, one after the other.

    Args:
        within: reported before each epoch, and last.
    """
    scheduler = scheduler_of(search, LOSS, 9, known)
    found = {}
    for number, losses in curves.items():
        trial = Running(number)
        scheduler.on_trial_add(None, trial)
        for epoch, loss in enumerate(losses, start=1):
            for report in within:
                assert scheduler.on_trial_result(None, trial, report) == TrialScheduler.CONTINUE
            row = with_objective({"epoch": epoch, "val_loss": loss}, LOSS)
            found[number] = epoch
            if scheduler.on_trial_result(None, trial, row) == TrialScheduler.STOP:
                break
        scheduler.on_trial_complete(None, trial, within[-1] if within else row)
    return found


@pytest.mark.parametrize("stopping", ["asha", "median"])
def test_epochs_within_a_fold_compare_no_trials(stopping: str) -> None:
    rng = random.Random(5)
    curves = {n: [rng.uniform(0, 1) + n % 2 for _ in range(4)] for n in range(20)}
    search = config(stopping=stopping, reduction_factor=2)
    within = [{FOLD: "fold-1", "epochs": k, "val_loss": 9.0 - k} for k in (1, 2, 3)]
    found = decisions(search, curves, [], within=within)
    assert found == decisions(search, curves, [])
    assert min(found.values()) == 1 < max(found.values()) == 4


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
    def metrics_of(number: int) -> dict[str, float]:
        return {"val_loss": losses[number]} if number in losses else {}

    return OptunaStudy(SPACE, LOSS, known, metrics_of=metrics_of, seed=seed)


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


BASE = {"x": 0.5, "rate": 0.01, "kind": "q", "y": 0.5, "z": 3}


def test_the_first_trial_of_each_method_is_the_configuration_as_it_is() -> None:
    at_random = RandomSamples(SPACE, 5)
    methods = {
        "random": RandomSamples(SPACE, 5, BASE),
        "pbt": Population(
            SPACE, LOSS, {}, value_of=float, size=4, first=RandomSamples(SPACE, 5, BASE)
        ),
        "optuna": OptunaStudy(SPACE, LOSS, [], metrics_of=lambda _: {}, seed=0, first=BASE),
    }
    for name, samples in methods.items():
        assert samples.sample(0) == BASE
        others = [samples.sample(number) for number in range(1, 4)]
        assert BASE not in others
        if name != "optuna":
            assert others == [at_random.sample(number) for number in range(1, 4)]


def test_a_search_that_is_resumed_does_not_begin_with_the_configuration_again() -> None:
    known = [ended(0, [0.5], **BASE)]
    study = OptunaStudy(
        SPACE, LOSS, known, metrics_of=lambda _: {"val_loss": 0.5}, seed=0, first=BASE
    )
    assert study.sample(1) != BASE


def test_optuna_has_no_grid() -> None:
    grid = {"x": Dimension("grid", (1, 2))}
    with pytest.raises(ConfigError, match=r"space\.x: --method optuna has no grid; take choice"):
        require_searchable(config(method="optuna"), grid)


class Generations:
    """A population whose trials end at once, with losses that a function of all samples gives."""

    def __init__(self, size: int, known: Mapping[int, EndedTrial] = {}) -> None:
        self.ended = dict(known)
        self.losses: dict[int, float] = {}
        self.samples = Population(
            SPACE,
            LOSS,
            self.ended,
            value_of=self.loss_of,
            size=size,
            first=RandomSamples(SPACE, 5),
        )

    def loss_of(self, number: int) -> float:
        """Better from generation to generation, as weights that go on learning are."""
        one = self.ended[number]
        before = 0.0 if one.parent is None else self.loss_of(one.parent)
        return before / 2 + score(one.sample)

    def run(self, numbers: range, failed: tuple[int, ...] = ()) -> None:
        for number in numbers:
            assert self.samples.is_ready(number)
            state = "error" if number in failed else "done"
            sample, parent = self.samples.sample(number), self.samples.parent(number)
            one = replace(ended(number, [1.0], state, **sample), parent=parent)
            self.ended[number] = one
            self.samples.tell(one)


def test_the_worst_quarter_of_a_generation_goes_on_from_the_best_quarter() -> None:
    population = Generations(8)
    population.run(range(40))
    for number, one in population.ended.items():
        first = number - number % 8 - 8
        if first < 0:
            assert one.parent is None
            continue
        order = sorted(range(first, first + 8), key=population.loss_of)
        if number - 8 in order[:6]:
            assert one.parent == number - 8
            assert one.sample == population.ended[number - 8].sample
        else:
            assert one.parent in order[:2]
    replaced = [o for n, o in population.ended.items() if o.parent not in (None, n - 8)]
    assert len(replaced) == 8
    changed = steps = 0
    for one in replaced:
        old = population.ended[one.parent].sample  # type: ignore[index]  # replaced: it has one
        assert score(one.sample) >= 0  # y follows x, z is there exactly where kind is q
        assert -5 <= one.sample["x"] <= 5
        assert 1e-5 <= one.sample["rate"] <= 1
        changed += one.sample["x"] != old["x"]
        steps += abs(abs(one.sample["x"] - old["x"]) - 2) < 1e-9  # a fifth of the range
    assert changed == len(replaced)
    assert 3 <= steps < len(replaced)  # some are drawn again, some end at the border


@pytest.mark.parametrize("cut", [1, 5, 8, 13, 31])
def test_a_population_that_is_interrupted_goes_on_as_if_it_had_not_been(cut: int) -> None:
    whole = Generations(8)
    whole.run(range(40), failed=(3, 9))
    part = Generations(8, {n: whole.ended[n] for n in range(cut)})
    part.run(range(cut, 40), failed=(3, 9))
    assert part.ended == whole.ended


def test_a_generation_waits_for_the_one_before_and_survives_failures() -> None:
    population = Generations(3)
    population.run(range(2))
    assert not population.samples.is_ready(3)
    population.run(range(2, 3))
    population.run(range(3, 6), failed=(3, 4, 5))
    assert [population.samples.parent(n) for n in (6, 7, 8)] == [None] * 3
    population.run(range(6, 9), failed=(7,))
    best = min((6, 8), key=population.loss_of)
    assert population.samples.parent(10) == best  # 7 has no model


def test_a_search_whose_generation_lost_a_trial_ends_instead_of_waiting() -> None:
    population = Generations(2)
    planned = Planned(list(range(4)), population.samples)
    assert planned.suggest("a")["number"] == 0
    assert planned.suggest("b")["number"] == 1
    population.run(range(1))
    planned.on_trial_complete("a")
    assert planned.suggest("c") is None  # b runs
    planned.on_trial_complete("b", error=True)  # it was lost, and has no record
    assert planned.suggest("c") == Searcher.FINISHED


@pytest.mark.parametrize(
    ("space", "train", "message"),
    [
        ({"seed": {"grid": [1, 2]}}, {}, r"space\.seed: --method pbt has no grid"),
        ({"model.dropout": {"uniform": [0, 0.5]}}, {}, r"space\.model\.dropout: trials of"),
        ({"image_choice": {"choice": ["first", "all"]}}, {}, r"space\.image_choice: trials of"),
        (
            {"seed": {"choice": [1, 2]}},
            {"model": {"pretrained": True, "wise_ft": 0.5}},
            r"wise_ft: --method pbt would mix",
        ),
    ],
)
def test_what_a_population_cannot_search_is_named(
    space: dict[str, Any], train: dict[str, Any], message: str
) -> None:
    shared = {"dataset_uri": "d", "heads": ["a", "b"], **train}
    search = config(method="pbt", space=space, train=shared)
    with pytest.raises(ConfigError, match=message):
        require_searchable(search, parse_space(search))


def test_a_population_stops_no_trial_early() -> None:
    assert config(method="pbt").rule == "none"
    assert config().rule == "asha"
    with pytest.raises(ValueError, match="method pbt compares whole generations; stopping is asha"):
        config(method="pbt", stopping="asha")
    with pytest.raises(ValueError, match="folds make several"):
        config(method="pbt", folds=["a", "b"])


def test_a_trial_that_goes_on_warms_up_no_second_time() -> None:
    search = config(train={"dataset_uri": "d", "heads": ["a"], "model": {"freeze_epochs": 2}})
    first = train_config(search, {})
    later = train_config(search, {"schedule.warmup_epochs": 3}, parent_uri="models/00001")
    assert (first.backbone_rate, first.model.freeze_epochs, first.schedule.warmup_epochs) == (
        later.backbone_rate,
        2,
        1,
    )
    assert (later.model.pretrained, later.model.freeze_epochs) == ("models/00001", 0)
    assert later.schedule.warmup_epochs == 0
