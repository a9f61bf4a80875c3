"""A manifest as the short table that a command prints at its end."""

import sys
from collections.abc import Mapping
from typing import Any, TextIO

from rich.console import Console
from rich.table import Table

from ctc_ray.logs import counted
from ctc_ray.manifest import Manifest


def show(manifest: Manifest, *, output_uri: str, file: TextIO | None = None) -> None:
    """Print what was made, on stdout unless another stream is given."""
    console = Console(file=file or sys.stdout, highlight=False, soft_wrap=True, markup=False)
    facts, tables = _facts_and_tables(manifest, output_uri)
    width = max(len(name) for name, _ in facts)
    for name, value in facts:
        console.print(f"{name:<{width}}  {value}")
    for name, rows in tables:
        console.print(_table(name, rows))


def _facts_and_tables(
    manifest: Manifest, output_uri: str
) -> tuple[list[tuple[str, str]], list[tuple[str, Any]]]:
    """The short facts of a finished folder, and its longer counts, each by name."""
    facts: list[tuple[str, str]] = [(manifest.kind, output_uri)]
    tables: list[tuple[str, Any]] = []
    if manifest.rows_in:
        facts.append(("images", f"{manifest.rows_out:,} of {manifest.rows_in:,}"))
        facts.append(("failures", counted(manifest.failures)))
    for name, value in manifest.counts.items():
        if isinstance(value, list) and value and isinstance(value[0], Mapping):
            tables.append((name, value))
        else:
            facts.append((name.replace("_", " "), _text(value)))
    return facts, tables


def _table(name: str, rows: list[Mapping[str, Any]]) -> Table:
    table = Table(title=name.replace("_", " "), title_justify="left", box=None, pad_edge=False)
    for column in rows[0]:
        number = isinstance(rows[0][column], int | float)
        table.add_column(column, justify="right" if number else "left")
    for row in rows:
        table.add_row(*(_text(value) for value in row.values()))
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
            text = ", ".join(map(_text, value))
        case _:
            text = str(value)
    return text
