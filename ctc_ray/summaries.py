"""A manifest as the short table that a command prints at its end."""

import sys
from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from ctc_ray.logs import counted
from ctc_ray.manifest import Manifest


def show(manifest: Manifest, *, output_uri: str) -> None:
    """Print what was made, on stdout."""
    console = Console(file=sys.stdout, highlight=False, soft_wrap=True)
    for table in tables(manifest, output_uri=output_uri):
        console.print(table)


def tables(manifest: Manifest, *, output_uri: str) -> Iterator[Table]:
    """The facts of a finished folder, then its longer counts as tables of their own."""
    facts = Table(show_header=False, box=None, pad_edge=False)
    facts.add_row(manifest.kind, output_uri)
    if manifest.rows_in:
        facts.add_row("images", f"{manifest.rows_out:,} of {manifest.rows_in:,}")
        facts.add_row("failures", counted(manifest.failures))
    long: list[tuple[str, Any]] = []
    for name, value in manifest.counts.items():
        if isinstance(value, list) and value and isinstance(value[0], Mapping):
            long.append((name, value))
        else:
            facts.add_row(name.replace("_", " "), _text(value))
    yield facts
    for name, rows in long:
        yield _table(name, rows)


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
