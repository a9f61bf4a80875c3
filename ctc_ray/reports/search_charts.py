"""Charts of a search: its settings beside one another, its values over time, a curve per trial.

Every row of a chart is a trial; the colours of all charts say how good it is.
"""

import math
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any, assert_never

import altair as alt

from ctc_ray.config.choices import Direction, TrialState
from ctc_ray.reports.charts import HEIGHT, with_config

_STEP = 66  # pixels from one axis to the next
_COLOURS = ["#98a2ad", "#4f9be6", "#f0701a"]  # from the worst to the best; seen on white and black
_ACCENT, _PLAIN, _FAINT = "#f0701a", "#4f9be6", "#98a2ad"
_LEAST_GAP = 0.17  # between the labels of an axis
_MOST_POINTS = 10_000  # of all curves: a browser draws them in a second or two
_MOST_DOTS, _MOST_NUMBERED = 500, 8
_NO_VALUE = "\N{EN DASH}"
_UNSET = -0.1  # where a trial crosses the axis of a setting that it does not have


@dataclass(frozen=True)
class SearchedField:
    """A setting that is searched."""

    name: str
    options: tuple[str, ...] = ()
    """Its values in words, in their order; empty: its values are numbers."""
    is_log: bool = False
    low: float = math.inf
    high: float = -math.inf
    """The ends of its numbers."""


@dataclass(frozen=True)
class ShownTrial:
    """A trial that has ended."""

    name: str
    state: TrialState
    value: float | None
    """The objective: of the epoch that is kept, or of the last one if the trial was stopped; None:
    it has none that is a number."""
    sample: Mapping[str, str | float]
    """Name of a setting -> its value, a word if the setting has options."""
    curve: Sequence[tuple[float, float]] = ()
    """Epoch and objective."""
    by_head: Mapping[str, float] = field(default_factory=dict)
    """Objectives of the model by their names, if there are several."""
    is_on_front: bool = False


@dataclass(frozen=True)
class Scale:
    """The values that an objective takes, and the way from the worst to the best."""

    name: str
    direction: Direction
    low: float
    median: float
    high: float

    @classmethod
    def of(cls, name: str, direction: Direction, values: Sequence[float]) -> "Scale":
        """All values but those that are far worse than most, which are drawn at the end."""
        ordered = sorted(values, reverse=direction == "max")
        quarter, median, three = (ordered[k * (len(ordered) - 1) // 4] for k in (1, 2, 3))
        worst = three + 3 * (three - quarter)
        worst = max(worst, ordered[-1]) if direction == "max" else min(worst, ordered[-1])
        low, high = sorted((ordered[0], worst))
        return cls(name, direction, low, median, high)

    @property
    def domain(self) -> list[float]:
        """Its ends; never equal."""
        margin = (self.high - self.low) * 0.03 or abs(self.low) * 0.03 or 0.01
        return [self.low - margin, self.high + margin]

    @property
    def as_scale(self) -> alt.Scale:
        """The scale of an axis; values beyond its domain are drawn at its end."""
        return alt.Scale(domain=self.domain, clamp=True, nice=False)

    def inside(self, value: float) -> float:
        """The value, or the end that it is beyond."""
        return min(max(value, self.low), self.high)

    @property
    def colour(self) -> alt.Color:
        """The colour of a row's `value`."""
        match self.direction:
            case "min":
                colours, ends = _COLOURS[::-1], [self.low, self.median, self.high]
            case "max":
                colours, ends = _COLOURS, [self.low, self.median, self.high]
            case _:
                assert_never(self.direction)
        return alt.Color(
            "value:Q",
            title=self.name,
            scale=alt.Scale(domain=ends, range=colours, interpolate="rgb", clamp=True),
            legend=alt.Legend(orient="bottom", gradientLength=200, format=".3~g"),
        )


@dataclass(frozen=True)
class _Axis:
    """One of several axes that lie above one another, and where a trial crosses it."""

    name: str
    ticks: Sequence[tuple[float, str]]
    place: Callable[[ShownTrial], float | None]
    """From 0 to 1; None: it does not."""


def side_by_side(
    trials: Sequence[ShownTrial], fields: Sequence[SearchedField], scale: Scale
) -> dict[str, Any]:
    """Parallel coordinates: an axis per setting and one for the objective, a line per trial.

    Args:
        trials: with a value, the best one last.
    """
    axes = [_axis(one, trials) for one in fields] + [_axis_of_objective(scale)]
    ids = [f"a{k}" for k in range(len(axes))]
    rows, gaps = [], set()
    for trial in trials:
        places = dict(zip(ids, (axis.place(trial) for axis in axes), strict=True))
        gaps |= {key for key, place in places.items() if place is None}
        known = {key: _UNSET if at is None else round(at, 4) for key, at in places.items()}
        rows.append(_row(trial, fields) | known)
    x = alt.X("x:Q", axis=None, scale=alt.Scale(domain=[_UNSET if gaps else 0, 1], nice=False))
    y = alt.Y("axis:N", axis=None, sort=None, scale=alt.Scale(domain=ids, padding=0.5))
    lines = (
        alt.Chart(alt.InlineData(rows))
        .transform_fold([*ids], as_=["axis", "x"])
        .transform_calculate(k="toNumber(substring(datum.axis, 1))")
        .encode(x=x, y=y, detail="trial:N", order=alt.Order("k:Q"))
    )
    drawn = [*_hoverable(lines, scale, _tooltips(fields, scale), n=len(trials))]
    drawn += _axes_and_names(axes, ids, x, y, gaps)
    return _finished(drawn, height=_STEP * len(axes))


def _axes_and_names(
    axes: Sequence[_Axis], ids: Sequence[str], x: alt.X, y: alt.Y, gaps: Set[str]
) -> list[alt.Chart]:
    names = [{"axis": key, "text": axis.name} for key, axis in zip(ids, axes, strict=True)]
    ticks = [
        {"axis": key, "x": at, "text": text, "n": max(2, len(axis.ticks))}
        for key, axis in zip(ids, axes, strict=True)
        for at, text in [*axis.ticks, *([(_UNSET, _NO_VALUE)] if key in gaps else [])]
    ]
    of_names, of_ticks = (alt.Chart(alt.InlineData(rows)) for rows in (names, ticks))
    align = alt.ExprRef("datum.x < 0.04 ? 'left' : datum.x > 0.96 ? 'right' : 'center'")
    ends = {"x": alt.value(0), "x2": alt.value("width")}
    drawn = [of_names.mark_rule(strokeWidth=1.5).encode(y=y, **ends)]
    drawn.append(of_ticks.mark_tick(thickness=1.5, size=8, style="rule").encode(x=x, y=y))
    named, told = (rows.encode(y=y, text="text:N") for rows in (of_names, of_ticks))
    of_name: dict[str, Any] = {"align": "left", "baseline": "bottom", "dy": -6}
    of_tick: dict[str, Any] = {"align": align, "baseline": "top", "dy": 6}
    of_tick["limit"] = alt.ExprRef("width / datum.n - 4")
    for style in ("halo", "label"):  # lines run below the letters
        drawn.append(
            named.mark_text(**of_name, fontWeight="bold", style=style).encode(x=alt.value(0))
        )
        drawn.append(told.mark_text(**of_tick, style=style).encode(x=x))
    return drawn


def over_time(trials: Sequence[ShownTrial], scale: Scale) -> dict[str, Any]:
    """The value of every trial, and the best so far.

    Args:
        trials: with a value, in the order of their numbers.
    """
    best = max if scale.direction == "max" else min
    rows = [_row(trial) | {"n": int(trial.name)} for trial in trials]
    so_far: list[dict[str, Any]] = []
    for trial, row in zip(trials, rows, strict=True):
        if trial.state == "done":
            values = [row["value"], *(one["value"] for one in so_far[-1:])]
            so_far.append({"n": row["n"], "value": best(values), "kind": _BEST})
    if so_far:
        so_far.append({**so_far[-1], "n": rows[-1]["n"]})
    kinds = [SHOWN_STATES["done"], SHOWN_STATES["stopped"], _BEST]
    colour = alt.Color(
        "kind:N",
        scale=alt.Scale(domain=kinds, range=[_PLAIN, _FAINT, _ACCENT]),
        legend=alt.Legend(orient="bottom", title=None),
    )
    places = {
        "x": _whole_numbers("n:Q", "number of the trial", [row["n"] for row in rows]),
        "y": _y(scale),
    }
    line = alt.Chart(alt.InlineData(so_far)).mark_line(interpolate="step-after", clip=True)
    dots = alt.Chart(alt.InlineData(rows)).mark_circle(size=45, opacity=0.9)
    shown = [alt.Tooltip("trial:N"), _value_tooltip(scale), alt.Tooltip("kind:N", title="state")]
    return _finished(
        [line.encode(color=colour, **places), dots.encode(color=colour, tooltip=shown, **places)]
    )


def curves(trials: Sequence[ShownTrial], scale: Scale) -> dict[str, Any]:
    """The objective of every trial after each epoch.

    Args:
        trials: with a value, the best one last.
    """
    rows: list[dict[str, Any]] = []
    most = max(10, _MOST_POINTS // len(trials))
    for trial in trials:
        points = _thinned([(x, y) for x, y in trial.curve if math.isfinite(y)], most)
        epochs, values = [int(x) for x, _ in points], [_rounded(y) for _, y in points]
        rows.append(_row(trial) | {"e": epochs, "y": values})
    of_curves = [value for row in rows for value in row["y"]] or [0.0]
    lines = (
        alt.Chart(alt.InlineData(rows))
        .transform_flatten(["e", "y"])
        .encode(
            x=_whole_numbers("e:Q", "epoch", [epoch for row in rows for epoch in row["e"]]),
            y=_y(Scale.of(scale.name, scale.direction, of_curves), "y:Q"),
            detail="trial:N",
        )
    )
    has_dots = len(of_curves) <= _MOST_DOTS  # a line of one point is not seen
    n = len(trials)
    return _finished(_hoverable(lines, scale, _tooltips((), scale), n=n, has_dots=has_dots))


def importance_bars(importance: Mapping[str, float]) -> dict[str, Any]:
    """A bar for the share of each setting, the largest first."""
    rows = [{"name": name, "share": round(share, 4)} for name, share in importance.items()]
    axis = alt.Axis(labelLimit=170, title=None)
    bars = alt.Chart(alt.InlineData(rows)).encode(
        x=alt.X("share:Q", title="importance", axis=alt.Axis(format=".0%", tickCount=4)),
        y=alt.Y("name:N", sort=None, axis=axis),
        tooltip=["name:N", alt.Tooltip("share:Q", format=".1%")],
    )
    return _finished([bars.mark_bar(color=_PLAIN)], height=max(80, 26 * len(rows)))


def front(trials: Sequence[ShownTrial], x: Scale, y: Scale) -> dict[str, Any]:
    """Two objectives of every trial that is done; those of the front are marked."""
    rows = [
        {
            "trial": trial.name,
            "x": _rounded(trial.by_head[x.name]),
            "y": _rounded(trial.by_head[y.name]),
            "kind": _FRONT if trial.is_on_front else _BEHIND,
        }
        for trial in sorted(trials, key=lambda trial: trial.is_on_front)
    ]
    colour = alt.Color(
        "kind:N",
        scale=alt.Scale(domain=[_FRONT, _BEHIND], range=[_ACCENT, _FAINT]),
        legend=alt.Legend(orient="bottom", title=None),
    )
    dots = alt.Chart(alt.InlineData(rows)).mark_circle(size=60, opacity=0.9)
    return _finished(
        [
            dots.encode(
                x=alt.X("x:Q", title=x.name, axis=alt.Axis(grid=False), scale=x.as_scale),
                y=_y(y, "y:Q"),
                color=colour,
                tooltip=[
                    "trial:N",
                    alt.Tooltip("x:Q", title=x.name, format=".4~g"),
                    alt.Tooltip("y:Q", title=y.name, format=".4~g"),
                ],
            )
        ]
    )


_BEST, _FRONT, _BEHIND = "best so far", "on the Pareto front", "behind it"
SHOWN_STATES: dict[TrialState, str] = {
    "done": "done",
    "stopped": "stopped early",
    "error": "failed",
}


def _row(trial: ShownTrial, fields: Sequence[SearchedField] = ()) -> dict[str, Any]:
    """What a chart knows of a trial, and its tooltip says."""
    value = None if trial.value is None else _rounded(trial.value)
    words = {
        f"f{k}": f"{found:.4g}" if isinstance(found, float) else found
        for k, one in enumerate(fields)
        for found in [trial.sample.get(one.name, _NO_VALUE)]
    }
    return {"trial": trial.name, "value": value, "kind": SHOWN_STATES[trial.state], **words}


def _hoverable(
    lines: alt.Chart,
    scale: Scale,
    tooltips: Sequence[alt.Tooltip],
    *,
    n: int,
    has_dots: bool = False,
) -> list[alt.Chart]:
    """A line per trial; that at the pointer is thick, and says what it is."""
    at_pointer = alt.selection_point(
        on="pointerover", clear="pointerout", fields=["trial"], empty=False
    )
    is_done = f"datum.kind === '{SHOWN_STATES['done']}'"
    seen = max(0.25, min(0.9, 30 / n))
    visible = lines.mark_line(clip=True, strokeJoin="round", point=has_dots).encode(
        color=scale.colour,
        opacity=alt.when(at_pointer).then(alt.value(1)).when(is_done).then(alt.value(seen))
        .otherwise(alt.value(0.4 * seen)),
        strokeWidth=alt.when(at_pointer).then(alt.value(4)).otherwise(alt.value(1.5)),
    )  # fmt: skip
    broad = lines.mark_line(clip=True, strokeWidth=9, opacity=0).encode(tooltip=list(tooltips))
    return [visible, broad.add_params(at_pointer)]


def _tooltips(fields: Sequence[SearchedField], scale: Scale) -> list[alt.Tooltip]:
    return [
        alt.Tooltip("trial:N"),
        _value_tooltip(scale),
        alt.Tooltip("kind:N", title="state"),
        *(alt.Tooltip(f"f{k}:N", title=one.name) for k, one in enumerate(fields)),
    ]


def _value_tooltip(scale: Scale) -> alt.Tooltip:
    return alt.Tooltip("value:Q", title=scale.name, format=".4~g")


def _axis(one: SearchedField, trials: Sequence[ShownTrial]) -> _Axis:
    if one.options:
        last = max(1, len(one.options) - 1)
        places = {word: k / last for k, word in enumerate(one.options)}
        return _Axis(
            one.name,
            [(at, word) for word, at in places.items()],
            lambda trial: places.get(str(trial.sample.get(one.name))),
        )
    found = [float(trial.sample[one.name]) for trial in trials if one.name in trial.sample]
    low, high = min([one.low, *found]), max([one.high, *found])
    turned = math.log10 if one.is_log else float
    start, length = turned(low), (turned(high) - turned(low)) or 1.0

    def at(value: float) -> float:
        return (turned(value) - start) / length

    if one.is_log:
        between = [10.0**k for k in range(math.ceil(start), math.floor(turned(high)) + 1)]
    else:
        between = [(low + high) / 2]
    ticks = {place: f"{value:.3g}" for value in (low, high) if 0 <= (place := at(value)) <= 1}
    for value in between:
        if all(abs(at(value) - other) >= _LEAST_GAP for other in ticks):
            ticks[at(value)] = f"{value:.3g}"
    return _Axis(
        one.name,
        sorted(ticks.items()),
        lambda trial: at(float(trial.sample[one.name])) if one.name in trial.sample else None,
    )


def _axis_of_objective(scale: Scale) -> _Axis:
    """From the smallest value to the largest; what is far worse than most lies at the end."""
    length = (scale.high - scale.low) or 1.0
    ticks = {scale.low: 0.0, (scale.low + scale.high) / 2: 0.5, scale.high: 1.0}
    return _Axis(
        scale.name,
        [(at, f"{value:.3g}") for value, at in ticks.items()],
        lambda trial: (scale.inside(trial.value or 0.0) - scale.low) / length,
    )


def _whole_numbers(column: str, title: str, numbers: Sequence[int]) -> alt.X:
    few = sorted(set(numbers)) if len(set(numbers)) <= _MOST_NUMBERED else alt.Undefined
    axis = alt.Axis(format="d", tickMinStep=1, grid=False, values=few)
    return alt.X(column, title=title, axis=axis, scale=alt.Scale(zero=False))


def _y(scale: Scale, column: str = "value:Q") -> alt.Y:
    return alt.Y(column, title=scale.name, scale=scale.as_scale)


def _finished(layers: Sequence[alt.Chart], *, height: int = HEIGHT) -> dict[str, Any]:
    return with_config(alt.layer(*layers).properties(width="container", height=height).to_dict())


def _thinned(points: Sequence[tuple[float, float]], most: int) -> Sequence[tuple[float, float]]:
    """At most so many of them, evenly, with the first and the last."""
    n = len(points)
    return points if n <= most else [points[k * (n - 1) // (most - 1)] for k in range(most)]


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")
