import json
import re
from dataclasses import replace
from typing import Any

import pytest
from finished_search import HEADS, search_of

from ctc_ray.reports.charts import javascript
from ctc_ray.reports.search import SearchReport, search_page
from ctc_ray.reports.search_charts import Scale, SearchedField, curves, side_by_side

NASTY = "</script><script>alert('x')</script> & \"red\" 'blue' {{ 7 * 7 }}"


def cells(html: str) -> list[list[str]]:
    """The rows of the table of trials, without tags."""
    rows = re.findall(r"<tr>(.*?)</tr>", html.replace(javascript(), ""))
    return [
        [re.sub("<.*?>", "", cell) for cell in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row)]
        for row in rows
    ]


def rows_of(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of the trials."""
    return next(rows for rows in spec["datasets"].values() if "trial" in rows[0])


def scale_of(report: SearchReport) -> Scale:
    values = [trial.value for trial, _ in report.trials if trial.value is not None]
    return Scale.of(report.objective, report.direction, values)


def test_trials_are_listed_from_the_best_to_the_failed() -> None:
    _, *rows = cells(search_page(search_of(30)).decode())
    states = [row[4] for row in rows]
    assert states == ["done"] * 14 + ["stopped early"] * 15 + ["failed"]
    losses = [float(row[1]) for row in rows if row[4] == "done"]
    assert losses == sorted(losses)
    assert {row[1] for row in rows if row[4] != "done"} == {"\N{EN DASH}"}
    best_of_heads = cells(search_page(search_of(30, heads=HEADS)).decode())[1:15]
    values = [float(row[1]) for row in best_of_heads]
    assert values == sorted(values, reverse=True)


def test_nothing_of_a_search_is_read_as_html() -> None:
    report = search_of(options=(NASTY, "b", "c"), yaml=f"a: {NASTY}\n", importance={NASTY: 1.0})
    report = replace(report, objective=NASTY)
    html = search_page(report).decode().replace(javascript(), "")
    assert "alert" in html
    assert "<script>alert" not in html
    assert "{{ 7 * 7 }}" in html


def test_each_trial_has_its_configuration_below_its_name() -> None:
    html = search_page(search_of(yaml="batch_size: 8\nheads:\n- a\n")).decode()
    assert html.count('">batch_size: 8\nheads:\n- a\n</pre></details>') == 12
    assert html.count('<a href="#trial-00003">') == html.count('id="trial-00003"') == 1


def test_a_line_crosses_each_axis_where_the_value_of_the_trial_is() -> None:
    report = search_of(30)
    trials = [trial for trial, _ in report.ranked if trial.value is not None]
    rows = {
        row["trial"]: row for row in rows_of(side_by_side(trials, report.fields, scale_of(report)))
    }
    assert set(rows) == {trial.name for trial in trials}
    for trial in trials:
        row = rows[trial.name]
        assert (
            row["a0"]
            == ("small_cnn", "resnet18", "convnext_tiny").index(str(trial.sample["model.backbone"]))
            / 2
        )
        assert 10 ** (-5 + 4 * row["a1"]) == pytest.approx(
            trial.sample["optimizer.learning_rate"], rel=1e-2
        )
        assert (row["a2"] < 0) == ("optimizer.momentum" not in trial.sample)
        assert row["a3"] == pytest.approx(float(trial.sample["augment.rotate"]) / 20, abs=1e-4)
    values = sorted(trials, key=lambda trial: trial.value or 0)
    places = [rows[trial.name]["a5"] for trial in values]
    assert places == sorted(places)
    assert (places[0], places[-1]) == (0, 1)


def test_one_trial_that_is_far_worse_leaves_room_for_the_others() -> None:
    losses = [0.3 + k / 100 for k in range(20)]
    assert Scale.of("val_loss", "min", [*losses, 1e6]).high < 1
    assert Scale.of("val_f1", "max", [-1e6, *losses]).low > -1
    assert (
        Scale.of("val_loss", "min", losses).domain[0]
        < 0.3
        < 0.49
        < Scale.of("val_loss", "min", losses).domain[1]
    )


def test_every_curve_has_its_ends_however_many_there_are() -> None:
    report = search_of(300, n_epochs=200)
    trials = [trial for trial, _ in report.ranked if trial.value is not None]
    rows = rows_of(curves(trials, scale_of(report)))
    assert sum(len(row["e"]) for row in rows) <= 10_000
    for trial, row in zip(trials, rows, strict=True):
        assert (row["e"][0], row["e"][-1]) == (1, len(trial.curve))


def test_a_page_of_500_trials_is_small() -> None:
    html = search_page(search_of(500, n_epochs=30, yaml="x: 1\n" * 280))
    assert len(html) < 3e6


@pytest.mark.parametrize("n", [0, 1, 2])
def test_a_search_that_has_just_begun_has_a_page(n: int) -> None:
    html = search_page(search_of(n)).decode()
    assert f"<dt>trials ended</dt><dd>{n} of {n}</dd>" in html


def test_values_that_are_all_equal_and_ranges_of_one_number_are_drawn() -> None:
    report = search_of(4)
    same = [(replace(t, value=0.5, sample={"x": 3.0}), d) for t, d in report.trials]
    html = search_page(replace(report, trials=same, fields=[SearchedField("x", low=3.0, high=3.0)]))
    assert b"NaN" not in html.replace(javascript().encode(), b"")


def test_the_front_has_a_chart_for_each_pair_of_heads() -> None:
    html = search_page(search_of(30, heads=HEADS)).decode().replace(javascript(), "")
    assert len(re.findall(r"<figcaption>val_macro_f1_\w+ and val_macro_f1_\w+<", html)) == 3
    specs = map(json.loads, re.findall(r'<script type="application/json">(.*?)</script>', html))
    fronts = [
        rows
        for rows in map(rows_of, [s for s in specs if "trial" in str(s)])
        if "y" in rows[0] and "x" in rows[0]
    ]
    for rows in fronts:
        assert {r["trial"] for r in rows if r["kind"] == "on the Pareto front"} == {
            "00000",
            "00008",
            "00016",
        }
    assert len(fronts) == 3


def test_equal_searches_give_equal_bytes() -> None:
    assert search_page(search_of(9)) == search_page(search_of(9))
    assert search_page(search_of(9)) != search_page(search_of(10))
