"""The report of a search: what was tried, what it gave, and which settings mattered."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import assert_never

from ctc_ray.config.choices import Direction
from ctc_ray.console.progress import clock
from ctc_ray.reports import search_charts as charts
from ctc_ray.reports.page import (
    Cell,
    Chart,
    Facts,
    FoldedText,
    Link,
    Note,
    Section,
    Table,
    page,
)
from ctc_ray.reports.search_charts import SHOWN_STATES, Scale, SearchedField, ShownTrial


@dataclass(frozen=True)
class Details:
    """What the table of the page says of a trial, beside its charts."""

    epochs: int
    seconds: float
    reason: str
    """Why it has no model; empty if it has."""
    yaml: str
    """Its configuration for `ctc train --config`."""


@dataclass(frozen=True)
class SearchReport:
    """A search that is running or has ended."""

    objective: str
    direction: Direction
    n_planned: int
    fields: Sequence[SearchedField]
    trials: Sequence[tuple[ShownTrial, Details]]
    """In the order of their numbers."""
    importance: Mapping[str, float]
    """Name of a setting -> its share, the largest first; empty: it cannot be said."""
    about_importance: str
    """How it was computed, or why it was not."""

    @property
    def ranked(self) -> list[tuple[ShownTrial, Details]]:
        """The trials that are done, the best one first; then the stopped and the failed ones."""
        order = {"done": 0, "stopped": 1, "error": 2}
        sign = -1 if self.direction == "max" else 1
        return sorted(
            self.trials,
            key=lambda pair: (order[pair[0].state], sign * (pair[0].value or 0), int(pair[0].name)),
        )


def search_page(report: SearchReport) -> bytes:
    """The report as one HTML file; the same search gives the same bytes."""
    sections = [Section("Search", [Facts(_facts(report))])]
    ranked = [trial for trial, _ in report.ranked]
    valued = [trial for trial in ranked if trial.value is not None]
    if valued:
        scale = Scale.of(
            report.objective,
            report.direction,
            [trial.value for trial in valued if trial.value is not None],
        )
        sections += _charts(report, valued[::-1], scale)
    sections.append(_importance(report))
    sections += _front(report, ranked)
    sections += [_table(report), _configurations(report)]
    return page(f"Search for {report.objective}", sections)


def _facts(report: SearchReport) -> list[tuple[str, Cell]]:
    states = [trial.state for trial, _ in report.trials]
    match report.direction:
        case "min":
            which = "smallest"
        case "max":
            which = "largest"
        case _:
            assert_never(report.direction)
    facts: list[tuple[str, Cell]] = [
        ("objective", f"{report.objective}, the {which} is best"),
        ("trials ended", f"{len(states):,} of {report.n_planned:,}"),
        *((shown, states.count(state)) for state, shown in SHOWN_STATES.items()),
        ("time of all trials", clock(sum(details.seconds for _, details in report.trials))),
    ]
    best = next((trial for trial, _ in report.ranked if trial.state == "done"), None)
    if best is not None:
        facts += [
            ("best trial", Link(best.name, _target(best))),
            (f"its {report.objective}", _number(best.value)),
            *((f"its {name}", _cell(value)) for name, value in best.sample.items()),
        ]
    return facts


def _charts(report: SearchReport, trials: Sequence[ShownTrial], scale: Scale) -> list[Section]:
    """The charts of the trials that have a value.

    Args:
        trials: the best one last.
    """
    settings = Chart(
        "a line per trial", charts.side_by_side(trials, report.fields, scale), is_wide=True
    )
    about = Note(
        "Colours say how good a trial is; point at where its line crosses an axis to see its "
        "values. Faint: stopped early, with the value of its last epoch. "
        "What is far worse than most lies at the end of an axis. \N{EN DASH}: without this setting."
    )
    over_time = charts.over_time(sorted(trials, key=lambda trial: int(trial.name)), scale)
    curves = charts.curves(trials, scale)
    return [
        Section("Settings", [about, settings]),
        Section(
            "Progress",
            [
                Chart(f"{report.objective} of each trial", over_time),
                Chart(f"{report.objective} after each epoch, a line per trial", curves),
            ],
        ),
    ]


def _importance(report: SearchReport) -> Section:
    about = Note(report.about_importance)
    if not report.importance:
        return Section("Importance of the settings", [about])
    bars = Chart("share of each setting", charts.importance_bars(report.importance), is_wide=True)
    return Section("Importance of the settings", [about, bars])


def _front(report: SearchReport, trials: Iterable[ShownTrial]) -> list[Section]:
    """Two objectives in each chart, if there are several."""
    done = [trial for trial in trials if trial.state == "done" and trial.by_head]
    if not done:
        return []
    scales = [
        Scale.of(name, report.direction, [trial.by_head[name] for trial in done])
        for name in done[0].by_head
    ]
    return [
        Section(
            "Pareto front",
            [
                Note("No other trial is as good for all heads and better for one."),
                *(
                    Chart(f"{x.name} and {y.name}", charts.front(done, x, y))
                    for x, y in itertools.combinations(scales, 2)
                ),
            ],
        )
    ]


def _table(report: SearchReport) -> Section:
    names = [one.name for one in report.fields]
    columns = ["trial", report.objective, "epochs", "time", "state", *names, "reason"]
    rows: list[list[Cell]] = [
        [
            Link(trial.name, _target(trial)),
            _number(trial.value if trial.state == "done" else None),
            details.epochs,
            clock(details.seconds),
            SHOWN_STATES[trial.state],
            *(_cell(trial.sample.get(name)) for name in names),
            details.reason,
        ]
        for trial, details in report.ranked
    ]
    return Section("Trials", [Table("the best one first", columns, rows, is_wide=True)])


def _configurations(report: SearchReport) -> Section:
    texts = [
        FoldedText(_title(report, trial), details.yaml, _target(trial))
        for trial, details in report.ranked
    ]
    note = Note("For ctc train --config FILE; output_uri is where the model would be written.")
    return Section("Configuration of each trial", [note, *texts], is_folded=True)


def _title(report: SearchReport, trial: ShownTrial) -> str:
    if trial.state == "done":
        return f"{trial.name}, {report.objective} {_number(trial.value)}"
    return f"{trial.name}, {SHOWN_STATES[trial.state]}"


def _target(trial: ShownTrial) -> str:
    return f"trial-{trial.name}"


def _number(value: float | None) -> Cell:
    return None if value is None else f"{value:.4g}"


def _cell(value: str | float | None) -> Cell:
    return _number(value) if isinstance(value, float) else value
