"""Rows as CSV, the one writer of every CSV file that a stage makes.

Text is UTF-8 and lines end in CR LF (RFC 4180). An empty cell stands for None. Floats are written
with the fewest digits that give the same float again. Text that a spreadsheet would run as a
formula begins with an apostrophe (OWASP, CSV Injection); a number as text stays as it is.
"""

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

Cell = str | float | None

_FORMULA = frozenset("=+-@\t\r")
_NUMBER = re.compile(r"[+-]?(\d+[.,]?\d*|[.]\d+)([eE][+-]?\d+)?")


def csv_chunks(
    columns: Sequence[str], parts: Iterable[Iterable[Sequence[Cell]]], *, quote_all: bool = False
) -> Iterator[bytes]:
    """A CSV file in chunks: the header, then the rows of each part; in the order given.

    Only one part is in memory at a time, so the file may be larger than the memory.

    Args:
        columns: names for the header line.
        parts: rows; each row has one cell per column.
        quote_all: quote every cell, not only those with a comma, a quote or a line break.
    """
    yield csv_lines([columns], quote_all=quote_all)
    for rows in parts:
        yield csv_lines(rows, quote_all=quote_all)


def csv_of_records(records: Sequence[Mapping[str, Cell]]) -> bytes:
    """A CSV file of records, one line each; a key that a record lacks is an empty cell.

    Columns are the keys of all records, in the order in which they first appear.
    """
    columns = list(dict.fromkeys(name for record in records for name in record))
    rows = ([record.get(name) for name in columns] for record in records)
    return b"".join(csv_chunks(columns, [rows]))


def numbers_of_csv(content: bytes) -> list[dict[str, float]]:
    """The records of a file by `csv_of_records` that holds numbers; without its empty cells."""
    return [
        {name: float(cell) for name, cell in row.items() if cell}
        for row in csv.DictReader(io.StringIO(content.decode()))
    ]


def _safe(cell: Cell) -> Cell:
    if isinstance(cell, str) and cell[:1] in _FORMULA and not _NUMBER.fullmatch(cell):
        return f"'{cell}"
    return cell


def csv_lines(rows: Iterable[Sequence[Cell]], *, quote_all: bool = False) -> bytes:
    """The rows as lines of CSV; every cell of every file passes here.

    Args:
        rows: each has one cell per column.
        quote_all: see `csv_chunks`.
    """
    text = io.StringIO()
    writer = csv.writer(
        text, quoting=csv.QUOTE_ALL if quote_all else csv.QUOTE_MINIMAL, lineterminator="\r\n"
    )
    writer.writerows([_safe(cell) for cell in row] for row in rows)
    return text.getvalue().encode()
