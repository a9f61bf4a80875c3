"""A csv as a table of text, every cell verbatim, or an error that names the line."""

import codecs
import csv
import io
import itertools
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.csv as pacsv

from ctc_ray.errors import ConfigError, SchemaError
from ctc_ray.files import storage

_BLOCK_BYTES = 8 << 20  # also the length of the longest readable row
_LONGEST_NAME = 1 << 17  # longer column names: a file without line ends, not a table
_ENCODED = pa.dictionary(pa.int32(), pa.string())
_ANY = pa.dictionary(pa.int32(), pa.binary())  # for a column that was not requested
_DELIMITERS = (",", ";", "\t")
_SEPARATOR = re.compile(r"\"?sep=([,;\t|])\"?", re.IGNORECASE)

Cells = list[str]


@dataclass(frozen=True)
class _Header:
    """The header, the first line that is not blank."""

    cells: Cells
    """Names of the columns; of a name that occurs twice the second is `name_2`."""
    n_before: int
    """Lines before it: blank ones, and `sep=;`."""
    delimiter: str
    separator_lines: int
    """Lines up to the line `sep=;`, as Excel writes it; 0 without one."""


def column_names(uri: str) -> list[str]:
    """The names of the columns in their order; of equal ones the second is called `name_2`.

    Raises:
        ConfigError: the file does not exist.
        SchemaError: the file is empty, or its header is not UTF-8.
    """
    return _header(uri).cells


def read_columns(
    uri: str, names: Sequence[str], *, read_dictionary: Collection[str] = ()
) -> pa.Table:
    """The named columns as large_string, every cell verbatim: no cell is null, a blank cell is "".

    The file is UTF-8 with or without BOM, or UTF-16 with BOM, with double quotes. The delimiter is
    that of a first line `sep=;`, else the most frequent of comma, semicolon and tab outside of
    quotes in the header line, on a tie the first of the three. Blank lines are left out. If two
    columns have one name, the second is called `name_2`.

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
        with _open_utf8(uri) as stream:
            table = pacsv.read_csv(
                stream if is_quoted else UnquotedStream(stream),
                read_options=pacsv.ReadOptions(
                    column_names=indices,
                    skip_rows_after_names=header.n_before + 1,
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
    except UnicodeDecodeError as error:
        raise _cut_off(uri) from error
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
    encoding = "utf-16" if _is_utf16(uri) else "utf-8-sig"
    with (
        storage.open_stream(uri) as stream,
        io.TextIOWrapper(stream, encoding, errors="surrogateescape", newline="") as text,
    ):
        before = csv.field_size_limit(longest_cell)
        try:
            yield text
        except UnicodeDecodeError as error:
            raise _cut_off(uri) from error
        finally:
            csv.field_size_limit(before)


def _is_utf16(uri: str) -> bool:
    if not storage.is_file(uri):
        return False  # an error, which `_open_text` tells
    start = storage.read_bytes(uri, 4)
    is_utf32 = start == codecs.BOM_UTF32_LE  # which begins like UTF-16
    return not is_utf32 and start[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@contextmanager
def _open_utf8(uri: str) -> Iterator[Any]:
    """The file's bytes for Arrow, always in UTF-8."""
    with storage.open_stream(uri) as stream:
        yield _Utf16Stream(stream) if _is_utf16(uri) else stream


def _header(uri: str) -> _Header:
    """The header line of the file."""
    with _open_text(uri) as text:
        separator, n_lines = _separator_line(text)
    with _open_text(uri) as text:
        delimiter = separator or _delimiter(text)
    with _open_text(uri, longest_cell=_LONGEST_NAME) as text:
        list(itertools.islice(text, n_lines))
        try:
            for n_blank, cells in enumerate(csv.reader(text, delimiter=delimiter)):
                if cells:
                    n_before = n_lines + n_blank
                    if any(not _is_utf8(cell) for cell in cells):
                        raise SchemaError(_not_utf8(uri, 1 + n_before))
                    return _Header(_unique(cells), n_before, delimiter, n_lines)
        except csv.Error as error:
            raise SchemaError(
                f"{uri}: the header line opens a quote that is never closed, or this is no csv:"
                f" {error}"
            ) from error
    raise SchemaError(f"{uri}: the file is empty; expected a header line with the column names")


def _separator_line(lines: Iterable[str]) -> tuple[str, int]:
    """The delimiter that a line `sep=;` names, and the lines up to it; empty and 0 without one."""
    for n_lines, line in enumerate(lines, 1):
        if found := _SEPARATOR.fullmatch(line.strip("\r\n")):
            return found[1], n_lines
        if line.strip():
            break
    return "", 0


def _unique(names: Cells) -> Cells:
    """The names, of equal ones the second with `_2` behind it, or the next number that is free."""
    taken, unique = set(names), list[str]()
    for name in names:
        number, new = 1, name
        while new in unique or (number > 1 and new in taken):
            number += 1
            new = f"{name}_{number}"
        unique.append(new)
    return unique


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
        n_lines = sum(1 for _ in itertools.islice(text, header.separator_lines))
        reader = csv.reader(text, delimiter=header.delimiter)
        first_line = 1 + n_lines
        try:
            for cells in reader:
                yield first_line, cells
                first_line = n_lines + reader.line_num + 1
        except csv.Error:
            yield first_line, None


def _is_utf8(cell: str) -> bool:
    return not any("\udc80" <= character <= "\udcff" for character in cell)


def _cut_off(uri: str) -> SchemaError:
    return SchemaError(f"{uri}: not whole UTF-16; save the file as UTF-8")


def _not_utf8(uri: str, line: int | None) -> str:
    where = "" if line is None else f"line {line} is "
    return f"{uri}: {where}not UTF-8; save the file as UTF-8"


class _Utf16Stream:
    """The UTF-8 bytes of a stream in UTF-16 that begins with a BOM."""

    closed = False  # Arrow reads this attribute

    def __init__(self, stream: pa.NativeFile) -> None:
        self._stream, self._rest = stream, b""
        self._decoder = codecs.getincrementaldecoder("utf-16")()

    def read(self, n_bytes: int) -> bytes:
        """The next bytes, at most `n_bytes`."""
        while len(self._rest) < n_bytes:
            block = self._stream.read(n_bytes)
            self._rest += self._decoder.decode(block, final=not block).encode()
            if not block:
                break
        taken, self._rest = self._rest[:n_bytes], self._rest[n_bytes:]
        return taken


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
