import random

import pytest
from finished_search import search_of

from ctc_ray.reports.search_charts import SearchedField, ShownTrial
from ctc_ray.stages.tune.importance import importance_of

FIELDS = [
    SearchedField("kind", ("a", "b", "c")),
    SearchedField("rate", is_log=True, low=1e-5, high=0.1),
    SearchedField("momentum", low=0.0, high=1.0),
]


def trials(n: int, state: str = "done") -> list[ShownTrial]:
    """Trials of which only the rate matters."""
    rng = random.Random(1)
    found = []
    for number in range(n):
        power = rng.uniform(-5, -1)
        sample: dict[str, str | float] = {"kind": rng.choice("abc"), "rate": 10**power}
        if number % 3:
            sample["momentum"] = rng.random()
        found.append(ShownTrial(f"{number:05d}", state, (power + 3) ** 2, sample))  # type: ignore[arg-type]
    return found


@pytest.mark.parametrize("n", [20, 200])
def test_the_setting_that_alone_matters_has_the_largest_share(n: int) -> None:
    shares, about = importance_of(FIELDS, trials(n), "min")
    assert sum(shares.values()) == pytest.approx(1)
    assert max(shares, key=lambda name: shares[name]) == next(iter(shares)) == "rate"
    assert shares["rate"] > 0.5
    assert "PED-ANOVA" in about
    assert f"the {n} trials that are done" in about


def test_the_best_trials_are_those_of_the_direction() -> None:
    turned = [
        ShownTrial(one.name, one.state, -(one.value or 0.0), one.sample) for one in trials(100)
    ]
    assert importance_of(FIELDS, turned, "max")[0] == importance_of(FIELDS, trials(100), "min")[0]


def test_too_few_trials_that_are_done_say_nothing() -> None:
    known = [*trials(9), *trials(50, "stopped")]
    assert importance_of(FIELDS, known, "min") == (
        {},
        "Too few trials: 9 are done, and 10 are needed to say which settings matter.",
    )


def test_values_outside_the_range_and_settings_of_one_value_are_no_error() -> None:
    report = search_of(60)
    fields = [*report.fields, SearchedField("one", ("x",))]
    shown = [
        ShownTrial(t.name, t.state, t.value, {**t.sample, "augment.rotate": 99.0 + k, "one": "x"})
        for k, (t, _) in enumerate(report.trials)
    ]
    shares, _ = importance_of(fields, shown, "min")
    assert "augment.rotate" in shares
    assert "one" not in shares


def test_trials_that_go_on_from_others_do_not_say_which_settings_matter() -> None:
    shares, about = importance_of(FIELDS, trials(100), "min", is_inherited=True)
    assert shares == {}
    assert "go on from the weights of others" in about
