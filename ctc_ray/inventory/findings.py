"""Findings about a source: kinds with counts, and the cases."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ctc_ray.schemas import finding_schema

_SHOWN = 3
_ROWS_PER_PART = 1 << 20


@dataclass(frozen=True)
class Findings:
    """Kinds of findings with their counts, and a row for each case that can be named.

    Methods return a new value.
    """

    counts: Mapping[str, int] = field(default_factory=dict)
    """Kind -> number of cases, > 0, in the order in which kinds were added."""
    parts: tuple[pa.Table, ...] = ()
    """The cases, a table per call of `listed`."""

    def counted(self, **counts: int) -> "Findings":
        """The findings and further ones that are only counted: kind -> number; 0 adds nothing."""
        found = {kind: n for kind, n in counts.items() if n}
        return Findings(_sum(self.counts, found), self.parts)

    def listed(
        self,
        kind: str,
        rows: Sequence[str] | pa.Array | pa.ChunkedArray,
        details: Sequence[str | None] | pa.Array | pa.ChunkedArray | None = None,
        *,
        count: int | None = None,
    ) -> "Findings":
        """The findings and one row of the table per element of `rows`; no element adds nothing.

        Args:
            rows: names of the cases: URIs, event ids or lines of the source.
            details: text about each case, or null.
            count: number of cases; None: one per element.
        """
        n_rows = len(rows)
        if n_rows == 0:
            return self
        parts = []
        for start in range(0, n_rows, _ROWS_PER_PART):  # the text of one part stays below 2 GiB
            part = slice(start, start + _ROWS_PER_PART)
            named = _text(rows[part])
            columns = [
                pa.repeat(pa.scalar(kind), len(named)),
                named,
                pa.nulls(len(named), pa.string()) if details is None else _text(details[part]),
            ]
            parts.append(pa.table(columns, schema=finding_schema()))
        counts = _sum(self.counts, {kind: n_rows if count is None else count})
        return Findings(counts, (*self.parts, *parts))

    def plus(self, others: "Findings") -> "Findings":
        """The findings and the other findings; counts of equal kinds are added."""
        return Findings(_sum(self.counts, others.counts), (*self.parts, *others.parts))

    def without(self, kind: str) -> "Findings":
        """The findings without one kind."""
        counts = {name: n for name, n in self.counts.items() if name != kind}
        return Findings(counts, tuple(p for p in self.parts if p["kind"][0].as_py() != kind))

    def table(self) -> pa.Table:
        """All cases, in the order in which they were added."""
        return pa.concat_tables([finding_schema().empty_table(), *self.parts])

    def examples(self, kind: str) -> list[str]:
        """The first three cases of a kind as text, for a message."""
        rows = self.cases(kind, at_most=_SHOWN)
        return [f"{row['row']} ({row['detail']})" if row["detail"] else row["row"] for row in rows]

    def cases(self, kind: str, *, at_most: int | None = None) -> list[dict[str, Any]]:
        """The first cases of a kind as rows of the findings table."""
        parts = [part for part in self.parts if part["kind"][0].as_py() == kind]
        return [row for part in parts for row in part.slice(0, at_most).to_pylist()][:at_most]


def unreadable_times(rows: pa.Array, texts: pa.Array, times: pa.Array) -> Findings:
    """`unreadable_times`: the texts that are not a time.

    Args:
        rows: what each text belongs to; a null is a row without a name.
        texts: null is unknown.
        times: the time of each text; null if it is none.
    """
    wrong = pc.and_(texts.is_valid(), times.is_null())
    names = pc.fill_null(rows.filter(wrong), "?")
    return Findings().listed("unreadable_times", names, texts.filter(wrong))


def _sum(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    return {kind: one.get(kind, 0) + other.get(kind, 0) for kind in (*one, *other)}


def _text(values: Sequence[str | None] | pa.Array | pa.ChunkedArray) -> pa.Array:
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    return (
        values.cast(pa.string()) if isinstance(values, pa.Array) else pa.array(values, pa.string())
    )
