"""Charts of plain numbers, for a page and for a PNG."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import altair as alt
import vl_convert

_VERSION = ".".join(alt.SCHEMA_VERSION.removeprefix("v").split(".")[:2])  # of Vega-Lite
HEIGHT, _WIDTH_ON_SHEET, _SHARPNESS = 220, 420, 1.5
_MOST_WITH_DOTS = 60  # points of a line


@dataclass(frozen=True)
class Line:
    """A line through points whose x rises; a point that is not finite is left out."""

    name: str
    """What its colour says."""
    points: Sequence[tuple[float, float]]
    dash: str = ""
    """What its dashes say; empty: no line of the chart has any."""


@dataclass(frozen=True)
class LineChart:
    """Lines over a common axis of whole numbers."""

    title: str
    lines: Sequence[Line]
    x_title: str
    y_title: str = ""
    y_range: tuple[float, float] | None = None
    """Smallest and largest value of the y axis; None: those of the lines."""
    marked: tuple[float, str] | None = None
    """A position on the x axis, and what it is."""


def for_page(chart: LineChart) -> dict[str, Any]:
    """The chart for `page.Chart`: as wide as its frame, with the values where the pointer is."""
    drawn = alt.layer(*_layers(chart), *_values_at_pointer(chart))
    return with_config(drawn.properties(width="container", height=HEIGHT).to_dict())


def sheet_png(charts: Sequence[LineChart], *, columns: int) -> bytes:
    """The charts on one sheet, in rows from left to right, as a PNG; no browser is needed."""
    drawn = [
        alt.layer(*_layers(chart)).properties(
            title=chart.title, width=_WIDTH_ON_SHEET, height=HEIGHT
        )
        for chart in charts
    ]
    sheet = alt.concat(*drawn, columns=columns, background="white").resolve_scale(
        color="independent", strokeDash="independent"
    )
    png: bytes = vl_convert.vegalite_to_png(
        with_config(sheet.to_dict()), vl_version=_VERSION, scale=_SHARPNESS, allowed_base_urls=[]
    )
    return png


@cache
def javascript() -> str:
    """The code that draws charts in a page: Vega, Vega-Lite and vegaEmbed, 0.9 MB.

    It takes 2 seconds of a CPU to make, once per process.
    """
    code: str = vl_convert.javascript_bundle(vl_version=_VERSION)  # type: ignore[call-arg]  # its stub is wrong
    return code.replace("</script", "<\\/script")


def with_config(spec: dict[str, Any]) -> dict[str, Any]:
    """The specification with font sizes and legend positions."""
    below = {"direction": "vertical", "anchor": "start"}  # two legends do not fit beside each other
    sizes = {"labelFontSize": 12, "titleFontSize": 12}
    config = {
        "legend": {**sizes, "layout": {"bottom": below}},
        "axis": sizes,
        "text": {"fontSize": 12},
    }
    return {**spec, "config": config}


def _layers(chart: LineChart) -> list[alt.Chart]:
    """The lines, and what is marked."""
    lines = [_finite(line) for line in chart.lines]
    values = [
        {"x": x, "y": y, "name": line.name, "dash": line.dash}
        for line in lines
        for x, y in line.points
    ]
    encodings = _encodings(chart, lines)
    base = alt.Chart(alt.InlineData(values))
    drawn = [base.mark_line().encode(**encodings)]
    if all(len(line.points) <= _MOST_WITH_DOTS for line in lines):
        encodings.pop("strokeDash", None)  # dots have none
        drawn.append(base.mark_circle(size=20).encode(**encodings))
    if chart.marked is not None:
        at, text = chart.marked
        mark = alt.Chart(alt.InlineData([{"x": at, "text": text}])).encode(x="x:Q")
        label = mark.mark_text(baseline="bottom", dy=-3).encode(y=alt.value(0), text="text:N")
        drawn += [mark.mark_rule(strokeDash=[2, 2]), label]
    return drawn


def _encodings(chart: LineChart, lines: Sequence[Line]) -> dict[str, Any]:
    axis = alt.Axis(format="d", tickMinStep=1, grid=False)
    legend = alt.Legend(
        orient="bottom",
        title=None,
        columns=2,
        labelLimit=300,
        symbolType="stroke",
        symbolSize=300,
    )
    gray = legend.copy(deep=False)
    gray.symbolStrokeColor = "gray"
    low_high = alt.Undefined if chart.y_range is None else list(chart.y_range)
    encodings: dict[str, Any] = {
        "x": alt.X("x:Q", title=chart.x_title, axis=axis, scale=alt.Scale(zero=False)),
        "y": alt.Y(
            "y:Q", title=chart.y_title or None, scale=alt.Scale(domain=low_high, zero=False)
        ),
        "color": alt.Color(
            "name:N", scale=alt.Scale(domain=_names(line.name for line in lines)), legend=legend
        ),
    }
    if dashes := _names(line.dash for line in lines):
        encodings["strokeDash"] = alt.StrokeDash(
            "dash:N", scale=alt.Scale(domain=dashes), legend=gray
        )
    return encodings


def _values_at_pointer(chart: LineChart) -> list[alt.Chart]:
    """A rule at the x that is nearest to the pointer, with the values of all lines there."""
    rows: dict[float, dict[str, float]] = {}
    for number, line in enumerate(map(_finite, chart.lines)):
        for x, y in line.points:
            rows.setdefault(x, {"x": x})[f"line{number}"] = y
    nearest = alt.selection_point(
        nearest=True, on="pointerover", clear="pointerout", fields=["x"], empty=False
    )
    shown = [
        alt.Tooltip(f"line{number}:Q", title=_label(line), format=".4~g")
        for number, line in enumerate(chart.lines)
    ]
    return [
        alt.Chart(alt.InlineData([rows[x] for x in sorted(rows)]))
        .mark_rule()
        .encode(
            x="x:Q",
            opacity=alt.when(nearest).then(alt.value(0.6)).otherwise(alt.value(0)),
            tooltip=[alt.Tooltip("x:Q", title=chart.x_title), *shown],
        )
        .add_params(nearest)
    ]


def _label(line: Line) -> str:
    return f"{line.name}, {line.dash}" if line.dash else line.name


def _finite(line: Line) -> Line:
    points = [(x, y) for x, y in line.points if math.isfinite(x) and math.isfinite(y)]
    return replace(line, points=points)


def _names(found: Iterable[str]) -> list[str]:
    """What is not empty, each once, in the order given."""
    return list(dict.fromkeys(name for name in found if name))
