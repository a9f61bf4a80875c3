"""One shell for the pages that show results to people.

A page is one file that needs no network. It is readable on a phone and in the dark. All that is put
into it is escaped.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from jinja2 import Environment, PackageLoader, StrictUndefined

from ctc_ray.reports.charts import javascript

Cell = str | int | float | None
"""A fraction is written with three decimals; None: there is no value."""


@dataclass(frozen=True)
class Facts:
    """Names and their values."""

    rows: Sequence[tuple[str, Cell]]
    kind: ClassVar[str] = "facts"


@dataclass(frozen=True)
class Chart:
    """A chart that is as wide as the page."""

    title: str
    spec: Mapping[str, Any]
    """A Vega-Lite specification, as `charts.for_page` gives it."""
    kind: ClassVar[str] = "chart"


@dataclass(frozen=True)
class Table:
    """Rows of values below the names of the columns; the first column names the row."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    kind: ClassVar[str] = "table"


@dataclass(frozen=True)
class Text:
    """Lines that stay as they are, e.g. YAML."""

    text: str
    kind: ClassVar[str] = "text"


@dataclass(frozen=True)
class Section:
    """A part of a page below a heading."""

    title: str
    parts: Sequence[Facts | Chart | Table | Text]
    is_folded: bool = False
    """Whether only its heading is shown until somebody opens it."""


def page(title: str, sections: Sequence[Section]) -> bytes:
    """The page as HTML in UTF-8; equal content gives equal bytes.

    The code that draws charts (0.9 MB) is in it once, and only if there is a chart.

    Raises:
        ValueError: a number of a chart is not finite.
    """
    has_charts = any(isinstance(part, Chart) for section in sections for part in section.parts)
    html: str = _template().render(
        title=title, sections=sections, javascript=javascript() if has_charts else ""
    )
    return html.encode()


def _template() -> Any:
    environment = Environment(
        autoescape=True,
        loader=PackageLoader("ctc_ray.reports", "templates"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["shown"] = _shown
    environment.policies["json.dumps_kwargs"] = {"sort_keys": True, "allow_nan": False}
    return environment.get_template("page.html")


def _shown(value: Cell) -> str:
    match value:
        case None:
            return "\N{EN DASH}"
        case float():
            return f"{value:.3f}"
        case int():
            return f"{value:,}"
        case _:
            return value
