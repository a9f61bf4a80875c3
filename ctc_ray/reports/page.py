"""One shell for the pages that show results to people.

A page is one file that needs no network. It is readable on a phone and in the dark. All that is put
into it is escaped.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from jinja2 import Environment, PackageLoader, StrictUndefined

from ctc_ray.reports.charts import javascript

_MOST_ON_A_LINE = 30  # characters of a cell
_NUMBER = re.compile(r"[-+]?[\d.,]+(e[-+]?\d+)?")


@dataclass(frozen=True)
class Link:
    """A word that leads to a `FoldedText` of the page, and opens it."""

    text: str
    target: str


Cell = str | int | float | Link | None
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
    is_wide: bool = False
    """Whether nothing stands beside it."""
    kind: ClassVar[str] = "chart"


@dataclass(frozen=True)
class Table:
    """Rows of values below the names of the columns; the first column names the row."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    is_wide: bool = False
    """Whether nothing stands beside it."""
    kind: ClassVar[str] = "table"

    @property
    def alignments(self) -> list[str]:
        """A class for each column: of words, of words on several lines, or none, of numbers."""
        return [_alignment(cells) for cells in zip(*self.rows, strict=True)]


@dataclass(frozen=True)
class Text:
    """Lines that stay as they are, e.g. YAML."""

    text: str
    kind: ClassVar[str] = "text"


@dataclass(frozen=True)
class FoldedText:
    """A `Text` of which only its title is shown until somebody opens it."""

    title: str
    text: str
    name: str
    """For `Link.target`; once in a page."""
    kind: ClassVar[str] = "folded_text"


@dataclass(frozen=True)
class Note:
    """A sentence or two."""

    text: str
    kind: ClassVar[str] = "note"


@dataclass(frozen=True)
class Section:
    """A part of a page below a heading."""

    title: str
    parts: Sequence[Facts | Chart | Table | Text | FoldedText | Note]
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
    environment.tests["link"] = lambda cell: isinstance(cell, Link)
    environment.policies["json.dumps_kwargs"] = {"sort_keys": True, "allow_nan": False}
    return environment.get_template("page.html")


def _alignment(cells: Iterable[Cell]) -> str:
    words = [cell for cell in cells if isinstance(cell, str) and not _NUMBER.fullmatch(cell)]
    if not any(words):
        return ""
    return "text long" if max(map(len, words)) > _MOST_ON_A_LINE else "text"


def _shown(value: Cell) -> str:
    match value:
        case Link(text=text):
            return text
        case None:
            return "\N{EN DASH}"
        case float():
            return f"{value:.3f}"
        case int():
            return f"{value:,}"
        case _:
            return value
