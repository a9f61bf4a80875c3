"""What a command tells at its end: a short table for people, or values for programs."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TextIO

from rich.console import Console
from rich.table import Table

from ctc_ray.files.storage_errors import printable
from ctc_ray.runs.failures import counts_to_text
from ctc_ray.runs.manifest import Manifest

_WIDTH = 100_000  # the terminal wraps what is too wide for it; a URI is never cut


@dataclass(frozen=True)
class Summary:
    """What there is to tell."""

    facts: list[tuple[str, str]]
    """Name and value, one line each."""
    values: dict[str, Any]
    """The same and more as JSON values."""
    tables: list[tuple[str, list[Mapping[str, Any]]]] = field(default_factory=list)
    """Title and rows, below the facts."""
    text: str = ""
    """What comes last, as it stands."""


def show(summary: Summary, *, file: TextIO | None = None) -> None:
    """Print a summary for people, on stdout unless another stream is given."""
    console = Console(
        file=file or sys.stdout,
        width=_WIDTH,
        highlight=False,
        soft_wrap=True,
        markup=False,
        emoji=False,
    )
    width = max(len(name) for name, _ in summary.facts)
    for name, value in summary.facts:
        console.print(printable(f"{name:<{width}}  {value}"))
    for name, rows in summary.tables:
        console.print(_table(name, rows))
    if summary.text:
        console.print(printable(summary.text, keep="\n\t"))


def of_manifest(manifest: Manifest, *, output_uri: str) -> Summary:
    """The summary of a finished folder: its short facts, and its longer counts as tables."""
    facts: list[tuple[str, str]] = [(manifest.kind, output_uri)]
    tables: list[tuple[str, list[Mapping[str, Any]]]] = []
    if manifest.rows_in:
        facts.append(("images", f"{manifest.rows_out:,} of {manifest.rows_in:,}"))
        facts.append(("failures", counts_to_text(manifest.failures)))
    for name, value in manifest.for_people().items():
        if isinstance(value, list) and value and isinstance(value[0], Mapping):
            tables.append((name, value))
        else:
            facts.append((name.replace("_", " "), _text(value)))
    values = manifest.model_dump(mode="json", exclude={"shards", "labels"})
    return Summary(facts, {"output_uri": output_uri, **values}, tables)


def _table(name: str, rows: list[Mapping[str, Any]]) -> Table:
    table = Table(title=name.replace("_", " "), title_justify="left", box=None, pad_edge=False)
    for column in rows[0]:
        number = isinstance(rows[0][column], int | float)
        table.add_column(printable(column), justify="right" if number else "left")
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
