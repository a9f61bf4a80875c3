"""A csv as a table of text, every cell verbatim, or an error that names the line."""

import csv
import io
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.csv as pacsv

from ctc_ray.errors import ConfigError, SchemaError
from ctc_ray.files import storage

_BLOCK_BYTES = 8 << 20  # also the length of the longest readable row
_LONGEST_NAME = 1 << 17  # longer column names: a file without line ends, not a table
_ENCODED = pa.dictionary(pa.int32(), pa.string())
_ANY = pa.dictionary(pa.int32(), pa.binary())  # for a column that was not requested
_DELIMITERS = (",", ";", "\t")

Cells = list[str]


@dataclass(frozen=True)
class _Header:
    """The header, the first line that is not blank."""

    cells: Cells
    n_blank: int
    """Blank lines before it."""
    delimiter: str


def column_names(uri: str) -> list[str]:
    """The names of the columns in their order; a name that occurs twice is listed once.

    Raises:
        ConfigError: the file does not exist.
        SchemaError: the file is empty, or its header is not UTF-8.
    """
    return list(dict.fromkeys(_header(uri).cells))


def read_columns(
    uri: str, names: Sequence[str], *, read_dictionary: Collection[str] = ()
) -> pa.Table:
    """The named columns as large_string, every cell verbatim: no cell is null, a blank cell is "".

    The file is UTF-8 with or without BOM, with double quotes. The delimiter is the most frequent of
    comma, semicolon and tab outside of quotes in the header line, on a tie the first of the three.
    Blank lines are left out. If two columns have one name, the first is read.

    Args:
        read_dictionary: columns with few distinct values, to be read as dictionary<string>, which
            takes a tenth of the memory.

    Raises:
        ConfigError: the file does not exist.
        SchemaError: the file is empty or not UTF-8, lacks a column, or a row is shorter or longer
            than the header.
    """
    header = _header(uri)
    for name in names:
        if name not in header.cells:
            raise SchemaError(
                f"{uri}: column {name!r} not found; columns are {', '.join(header.cells)}"
                + (" (separate cells by comma, semicolon or tab)" if len(header.cells) == 1 else "")
            )
    index_of = {name: header.cells.index(name) for name in names}
    kinds = {
        index: _ENCODED if name in read_dictionary else pa.large_string()
        for name, index in index_of.items()
    }
    table, last = _parse(uri, kinds, header)
    _require_closed_quotes(uri, header, last)
    return table.select([str(index) for index in index_of.values()]).rename_columns(list(index_of))


def _parse(
    uri: str, kinds: Mapping[int, pa.DataType], header: _Header
) -> tuple[pa.Table, pa.ChunkedArray]:
    """The columns of `kinds` (index -> type), named by index; and the last column of the file."""
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
    blank = " \t\r\n".replace(header.delimiter, "")  # a row of tabs only is a row of empty cells

    def remember(row: pacsv.InvalidRow) -> str:
        if not row.text.strip(blank):
            return "skip"
        wrong.append(row)
        return "error"

    indices = [str(index) for index in range(len(header.cells))]
    types = {indices[-1]: _ANY, **{str(index): kind for index, kind in kinds.items()}}
    try:
        with storage.open_stream(uri) as stream:
            table = pacsv.read_csv(
                stream if is_quoted else UnquotedStream(stream),
                read_options=pacsv.ReadOptions(
                    column_names=indices,
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
    return table, table[indices[-1]]


def _require_closed_quotes(uri: str, header: _Header, last_column: pa.ChunkedArray) -> None:
    """Raise if the last quote is not closed: Arrow would read all rows after it as one cell."""
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
            raise SchemaError(
                f"{uri}: line {first_line} opens a quote: {error}; close the quote"
            ) from error


def line_of_empty_cell(uri: str, name: str) -> int | None:
    """The line of the first row whose cell in the column is empty; None if it cannot be found."""
    header = _header(uri)
    index = header.cells.index(name)
    found = _first_row(uri, header, lambda cells: cells[index : index + 1] == [""])
    return found and found[0]


@contextmanager
def _open_text(uri: str, *, longest_cell: int = _BLOCK_BYTES) -> Iterator[io.TextIOWrapper]:
    """The file's text; bytes that are not UTF-8 become lone surrogates.

    Args:
        longest_cell: limit of csv.reader in characters; its default of 128 KiB is below Arrow's.
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
    """The header line of the file."""
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
    """The most frequent delimiter outside of quotes in the first line that is not blank."""
    counts = dict.fromkeys(_DELIMITERS, 0)
    in_quotes, is_begun = False, False
    for line in lines:
        before = "\n"
        for character in line:
            if in_quotes:
                in_quotes = character != '"'
            elif character == '"':  # two quotes: the second one reopens the quoted text
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
    """The error with its line. Only now is the file read line by line, which is slow."""
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
    if "straddling" in str(error):  # Arrow has found no end of a row
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
    """The line and the cells of the first row for which `is_meant`; None if Python finds none."""
    for line, cells in _rows(uri, header):
        if cells is None:
            return None
        if cells and is_meant(cells):
            return line, cells
    return None


def _rows(uri: str, header: _Header) -> Iterator[tuple[int, Cells | None]]:
    """The first line and the cells of each row; ends with None for a row that cannot be read."""
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
    """The file has a double quote, so a cell may contain a line end."""


class UnquotedStream:
    """A stream that raises when a block contains a double quote."""

    closed = False  # Arrow reads this attribute

    def __init__(self, stream: pa.NativeFile) -> None:
        self._stream = stream

    def read(self, n_bytes: int) -> bytes:
        """The next bytes.

        Raises:
            QuoteFoundError: the bytes contain a double quote.
        """
        block: bytes = self._stream.read(n_bytes)
        if b'"' in block:
            raise QuoteFoundError
        return block
