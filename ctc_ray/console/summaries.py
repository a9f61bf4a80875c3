"""What a command reports at its end: a short table for people, or values for programs."""

import itertools
import re
import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TextIO

from rich.console import Console
from rich.table import Table

from ctc_ray.console.progress import clock
from ctc_ray.files.storage_errors import printable
from ctc_ray.runs.failures import counts_to_text
from ctc_ray.runs.manifest import Manifest

_WIDE = 100_000  # in a file or a pipe one line is one row
_ROWS_SHOWN = 60  # of a table, on a terminal
_NUMBER = re.compile(r"(\d+)(?:[-+].*)?")  # a class that is a number, or a range: 7, 11-50, 51+
_NO_CLASS = "(no usable image)"  # as `predict` names it
_SIZES = {"kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}


@dataclass(frozen=True)
class Summary:
    """The result of a command."""

    facts: list[tuple[str, str]]
    """Name and value, one line each."""
    values: dict[str, Any]
    """All of it as JSON values, for programs."""
    tables: list[tuple[str, list[Mapping[str, Any]]]] = field(default_factory=list)
    """Title and rows, below the facts."""
    text: str = ""
    """Printed last, unchanged."""


def show(summary: Summary, *, file: TextIO | None = None, width: int | None = None) -> None:
    """Print a summary for people.

    Args:
        file: stdout unless another stream is given.
        width: characters of a line; that of the terminal, if the stream is one, else unlimited.
    """
    file = file or sys.stdout
    if width is None and file.isatty():
        width = shutil.get_terminal_size().columns
    console = Console(
        file=file,
        width=width or _WIDE,
        highlight=False,
        soft_wrap=width is None,
        markup=False,
        emoji=False,
    )
    names = max(len(name) for name, _ in summary.facts)
    for name, value in summary.facts:
        console.print(
            _fact(f"{printable(name):<{names}}  ", printable(value), width), soft_wrap=True
        )
    for name, rows in summary.tables:
        shown = rows if width is None else rows[:_ROWS_SHOWN]
        console.print(_table(name, shown))
        if len(shown) < len(rows):
            console.print(f"and {len(rows) - len(shown):,} more rows; --json prints all")
    if summary.text:
        console.print(printable(summary.text, keep="\n\t"), soft_wrap=True)


def _fact(label: str, value: str, width: int | None) -> str:
    """Name and value; further lines of a long value are indented below its first."""
    if width is None or len(label) + len(value) <= width or width < 2 * len(label):
        return label + value
    return textwrap.fill(
        value,
        width,
        initial_indent=label,
        subsequent_indent=" " * len(label),
        break_long_words=False,
        break_on_hyphens=False,
    )


def of_manifest(manifest: Manifest, *, output_uri: str) -> Summary:
    """The summary of a finished folder: its short facts, and its longer counts as tables.

    Facts that are zero, false or empty are left out; `values` has them.
    """
    facts: list[tuple[str, str]] = [(manifest.kind, output_uri)]
    tables: list[tuple[str, list[Mapping[str, Any]]]] = []
    if manifest.rows_in:
        facts.append(("images", f"{manifest.rows_out:,} of {manifest.rows_in:,}"))
        facts.append(("failures", counts_to_text(manifest.failures)))
    for name, value in manifest.for_people().items():
        if isinstance(value, list) and value and isinstance(value[0], Mapping):
            tables.append((name, in_numerical_order(value)))
        elif _says_something(value):
            facts.append(_with_unit(name, value))
    values = manifest.model_dump(mode="json", exclude={"shards", "labels"})
    return Summary(facts, {"output_uri": output_uri, **values}, tables)


def numbers_in_order(names: Sequence[str]) -> list[str]:
    """Classes that are numbers in the order of the numbers (1, 2, 10), others as they are."""
    ordered = all(_NUMBER.fullmatch(name) for name in names)
    return sorted(names, key=_number) if ordered else list(names)


def in_numerical_order(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Rows of classes that are numbers in the order of the numbers, head by head; others as is.

    What is missing comes last.
    """
    key = next((name for name in ("class", "label") if name in rows[0]), None)
    if key is None:
        return list(rows)
    ordered: list[Mapping[str, Any]] = []
    for _, group in itertools.groupby(rows, key=lambda row: row.get("head")):
        part = list(group)
        named = [row for row in part if row[key] not in (None, _NO_CLASS)]
        others = [row for row in part if row[key] in (None, _NO_CLASS)]
        if all(_NUMBER.fullmatch(str(row[key])) for row in named):
            part = [*sorted(named, key=lambda row: _number(str(row[key]))), *others]
        ordered += part
    return ordered


def _number(name: str) -> tuple[int, str]:
    found = _NUMBER.match(name)
    return (int(found[1]) if found else 0, name)


def _says_something(value: Any) -> bool:
    """Zero, false and empty say nothing; a measured 0.0 does."""
    return isinstance(value, float) or bool(value)


def _with_unit(name: str, value: Any) -> tuple[str, str]:
    """A fact with the unit that suits its size, e.g. `time 0.3 s` for a number of hours."""
    words = name.replace("_", " ").replace("hours are", "time is")
    if not isinstance(value, int | float) or isinstance(value, bool):
        return words, _text(value)
    if words == "hours":
        return "time", clock(3600 * value)
    if words == "megabytes":
        return "size", _size(1e6 * value)
    if words.endswith(" gb"):
        return words.removesuffix(" gb"), _size(1e9 * value)
    return words, _text(value)


def _size(n_bytes: float) -> str:
    unit = next((unit for unit in reversed(_SIZES) if n_bytes >= _SIZES[unit]), "kB")
    return f"{n_bytes / _SIZES[unit]:.3g} {unit}"


def _table(name: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(title=name.replace("_", " "), title_justify="left", box=None, pad_edge=False)
    for column in rows[0]:
        number = isinstance(rows[0][column], int | float)
        header = printable(column).replace("_", " ")
        table.add_column(header, justify="right" if number else "left", overflow="fold")
    for row in rows:
        table.add_row(*(printable(_text(value)) for value in row.values()))
    return table


def _text(value: Any) -> str:
    match value:
        case None:
            text = "(missing)"
        case bool():
            text = str(value).lower()
        case int():
            text = f"{value:,}"
        case float():
            text = f"{value:.4g}"
        case Mapping():
            text = ", ".join(f"{key} {_text(item)}" for key, item in value.items()) or "none"
        case list():
            text = ", ".join(map(_text, value)) or "none"
        case _:
            text = str(value)
    return text
