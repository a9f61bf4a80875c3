"""A csv as a table of text, cell for cell, or an error that names the line."""

import csv
import io
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.csv as pacsv

from ctc_ray.errors import ConfigError, SchemaError
from ctc_ray.files import storage

_BLOCK_BYTES = 8 << 20  # also the longest row that can be read
_LONGEST_NAME = 1 << 17  # of a column; a file without line ends is no table
_CODED = pa.dictionary(pa.int32(), pa.string())
_ANY = pa.dictionary(pa.int32(), pa.binary())  # of a column that nobody asked for
_DELIMITERS = (",", ";", "\t")

Cells = list[str]


@dataclass(frozen=True)
class _Header:
    """The first line that is not blank."""

    cells: Cells
    n_blank: int
    """Blank lines before it."""
    delimiter: str


def column_names(uri: str) -> list[str]:
    """The names of the columns in their order; a name that occurs twice is listed once.

    Raises:
        ConfigError: there is no such file.
        SchemaError: the file is empty, or its header is not UTF-8.
    """
    return list(dict.fromkeys(_header(uri).cells))


def read_columns(uri: str, names: Sequence[str], *, coded: Collection[str] = ()) -> pa.Table:
    """These columns as large_string, every cell verbatim: nothing is null, a blank cell is "".

    Args:
        coded: those of the columns that repeat themselves; they come as dictionary<string>, which
            takes a tenth of the memory.

    UTF-8 with or without BOM; cells are separated by what the header line has most of outside of
    quotes: comma (also where it is as frequent as another), semicolon or tab. Blank lines are left
    out. Of two columns with the same name the first is read.

    Raises:
        ConfigError: there is no such file.
        SchemaError: it is empty, not UTF-8, lacks a column, or a row is shorter or longer than the
            header.
    """
    header = _header(uri)
    for name in names:
        if name not in header.cells:
            raise SchemaError(
                f"{uri}: column {name!r} not found; columns are {', '.join(header.cells)}"
                + (" (separate cells by comma, semicolon or tab)" if len(header.cells) == 1 else "")
            )
    places = {name: header.cells.index(name) for name in names}
    kinds = {at: _CODED if name in coded else pa.large_string() for name, at in places.items()}
    table, last = _parse(uri, kinds, header)
    _require_closed_quotes(uri, header, last)
    return table.select([str(at) for at in places.values()]).rename_columns(list(places))


def _parse(
    uri: str, kinds: Mapping[int, pa.DataType], header: _Header
) -> tuple[pa.Table, pa.ChunkedArray]:
    """The columns at these places, and the last one of all."""
    try:
        return _read(uri, kinds, header, is_quoted=False)
    except QuoteFoundError:
        return _read(uri, kinds, header, is_quoted=True)


def _read(
    uri: str, kinds: Mapping[int, pa.DataType], header: _Header, *, is_quoted: bool
) -> tuple[pa.Table, pa.ChunkedArray]:
    """`_parse`.

    Raises:
        QuoteFoundError: a cell is quoted, and `is_quoted` is False.
    """
    wrong: list[pacsv.InvalidRow] = []
    blank = " \t\r\n".replace(header.delimiter, "")  # tabs between no text are cells, not blanks

    def remember(row: pacsv.InvalidRow) -> str:
        if not row.text.strip(blank):
            return "skip"
        wrong.append(row)
        return "error"

    own_names = [str(place) for place in range(len(header.cells))]
    types = {own_names[-1]: _ANY, **{str(place): kind for place, kind in kinds.items()}}
    try:
        with storage.open_stream(uri) as stream:
            table = pacsv.read_csv(
                stream if is_quoted else UnquotedStream(stream),
                read_options=pacsv.ReadOptions(
                    column_names=own_names,
                    skip_rows_after_names=header.n_blank + 1,
                    block_size=_BLOCK_BYTES,
                ),
                parse_options=pacsv.ParseOptions(
                    delimiter=header.delimiter,
                    newlines_in_values=is_quoted,
                    invalid_row_handler=remember,
                ),
                convert_options=pacsv.ConvertOptions(
                    include_columns=list(types), column_types=types, strings_can_be_null=False
                ),
            )
    except pa.ArrowInvalid as error:
        raise _explained(uri, header, error, is_uneven=bool(wrong)) from error
    return table, table[own_names[-1]]


def _require_closed_quotes(uri: str, header: _Header, last_column: pa.ChunkedArray) -> None:
    """Arrow closes a quote that is open at the end: all rows behind it would be one cell's text."""
    if len(last_column) == 0:
        return
    cell = last_column[-1].as_py()
    content = cell if isinstance(cell, bytes) else cell.encode()
    if b"\n" not in content and b"\r" not in content:
        return
    with _open_text(uri) as text:
        reader = csv.reader(text, delimiter=header.delimiter, strict=True)
        first_line = 1
        try:
            for _ in reader:
                first_line = reader.line_num + 1
        except csv.Error as error:
            raise SchemaError(f"{uri}: line {first_line} opens a quote: {error}") from error


def line_of_empty_cell(uri: str, name: str) -> int | None:
    """The line of the first row whose cell in this column is empty."""
    header = _header(uri)
    place = header.cells.index(name)
    found = _first_row(uri, header, lambda cells: cells[place : place + 1] == [""])
    return found and found[0]


@contextmanager
def _open_text(uri: str, *, longest_cell: int = _BLOCK_BYTES) -> Iterator[io.TextIOWrapper]:
    """The file's text; bytes that are not UTF-8 become lone surrogates.

    Args:
        longest_cell: in characters, for a csv.reader, whose own limit of 128 KiB is below Arrow's.
    """
    if not storage.is_file(uri):
        what = "a folder, not a file" if storage.is_folder(uri) else "no such file"
        raise ConfigError(f"{uri}: {what}")
    with (
        storage.open_stream(uri) as stream,
        io.TextIOWrapper(stream, "utf-8-sig", errors="surrogateescape", newline="") as text,
    ):
        before = csv.field_size_limit(longest_cell)
        try:
            yield text
        finally:
            csv.field_size_limit(before)


def _header(uri: str) -> _Header:
    """The file's header line."""
    with _open_text(uri) as text:
        delimiter = _delimiter(text)
    with _open_text(uri, longest_cell=_LONGEST_NAME) as text:
        try:
            for n_blank, cells in enumerate(csv.reader(text, delimiter=delimiter)):
                if cells:
                    if any(not _is_utf8(cell) for cell in cells):
                        raise SchemaError(_not_utf8(uri, 1 + n_blank))
                    return _Header(cells, n_blank, delimiter)
        except csv.Error as error:
            raise SchemaError(
                f"{uri}: the header line opens a quote that is never closed, or this is no csv:"
                f" {error}"
            ) from error
    raise SchemaError(f"{uri}: the file is empty; expected a header line with the column names")


def _delimiter(lines: Iterable[str]) -> str:
    """What the first line that is not blank has most of outside of quotes."""
    counts = dict.fromkeys(_DELIMITERS, 0)
    in_quotes, is_begun = False, False
    for line in lines:
        before = "\n"
        for character in line:
            if in_quotes:
                in_quotes = character != '"'
            elif character == '"':  # the second of two of them opens what the first one closed
                in_quotes = before in ('"', "\n", *_DELIMITERS)
            elif character in counts:
                counts[character] += 1
            before = character
        is_begun = is_begun or bool(line.strip("\r\n"))
        if is_begun and not in_quotes:
            break
    return max(_DELIMITERS, key=lambda delimiter: counts[delimiter])


def _explained(
    uri: str, header: _Header, error: pa.ArrowInvalid, *, is_uneven: bool
) -> SchemaError:
    """What is wrong with the file, and in which line; only now is it read line by line."""
    n_columns = len(header.cells)
    if is_uneven:
        found = _first_row(
            uri,
            header,
            lambda cells: len(cells) != n_columns and (len(cells) > 1 or bool(cells[0].strip())),
        )
        if found is None:
            return SchemaError(
                f"{uri}: a row has more or fewer cells than the header: {_in_one_line(error)}"
            )
        line, cells = found
        n_cells = f"{len(cells)} cell{'s' if len(cells) != 1 else ''}"
        return SchemaError(f"{uri}: line {line} has {n_cells}, the header {n_columns}")
    if "UTF8" in str(error):
        found = _first_row(uri, header, lambda cells: not all(map(_is_utf8, cells)))
        return SchemaError(_not_utf8(uri, found and found[0]))
    if "straddling" in str(error):  # Arrow found no end of a row
        begin = _long_row(uri, header)
        if begin is None:
            return SchemaError(f"{uri}: there is no row below the header")
        return SchemaError(
            f"{uri}: line {begin} begins a row of more than {_BLOCK_BYTES >> 20} MiB;"
            " does it open a quote that is never closed?"
        )
    return SchemaError(f"{uri}: {_in_one_line(error)}")


def _in_one_line(error: pa.ArrowInvalid) -> str:
    return " ".join(str(error).split())


def _long_row(uri: str, header: _Header) -> int | None:
    """The line of the first row that may be longer than Arrow can read."""
    for line, cells in _rows(uri, header):
        # one cell alone may be longer than Python reads; a character has up to four bytes
        if cells is None or sum(map(len, cells)) > _BLOCK_BYTES // 4:
            return line
    return None


def _first_row(
    uri: str, header: _Header, is_meant: Callable[[Cells], bool]
) -> tuple[int, Cells] | None:
    """The first such row and its line; None where Python reads the file differently."""
    for line, cells in _rows(uri, header):
        if cells is None:
            return None
        if cells and is_meant(cells):
            return line, cells
    return None


def _rows(uri: str, header: _Header) -> Iterator[tuple[int, Cells | None]]:
    """The first line of each row, and its cells; None, and no further row, if it is unreadable."""
    with _open_text(uri) as text:
        reader = csv.reader(text, delimiter=header.delimiter)
        first_line = 1
        try:
            for cells in reader:
                yield first_line, cells
                first_line = reader.line_num + 1
        except csv.Error:
            yield first_line, None


def _is_utf8(cell: str) -> bool:
    return not any("\udc80" <= character <= "\udcff" for character in cell)


def _not_utf8(uri: str, line: int | None) -> str:
    where = "" if line is None else f"line {line} is "
    return f"{uri}: {where}not UTF-8; save the file as UTF-8"


class QuoteFoundError(Exception):
    """There is a double quote, so that a line end may be within a cell."""


class UnquotedStream:
    """A stream of which no block may have a double quote."""

    closed = False  # is asked for by Arrow

    def __init__(self, stream: pa.NativeFile) -> None:
        self._stream = stream

    def read(self, n_bytes: int) -> bytes:
        """The next bytes.

        Raises:
            QuoteFoundError: a double quote is among them.
        """
        block: bytes = self._stream.read(n_bytes)
        if b'"' in block:
            raise QuoteFoundError
        return block
