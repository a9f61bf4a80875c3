"""Read the directories of a TIFF file, which EXIF data are too, without a library.

A directory lists entries of 12 bytes: tag, type, count, value or offset. Data that violates the
format counts as absent.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

ReadAt = Callable[[int, int], bytes]
"""Gives n bytes from an offset, fewer beyond the end."""

_TYPE_BYTE, _TYPE_ASCII, _TYPE_SHORT, _TYPE_LONG, _TYPE_UNDEFINED = 1, 2, 3, 4, 7
_ENTRY_BYTES = 12
_MAX_VALUE_BYTES = 1 << 16  # of a time or a maker note; a wrong count must not read a whole file
_ORDERS: dict[bytes, Literal["<", ">"]] = {b"II*\0": "<", b"MM\0*": ">"}


@dataclass(frozen=True)
class Directory:
    """A TIFF directory; entries are tag -> (type, count, four bytes of value or offset)."""

    read: ReadAt
    order: Literal["<", ">"]
    entries: dict[int, tuple[int, int, bytes]]

    def integer(self, tag: int) -> int | None:
        """The first value of an integer entry; None if absent or not an integer."""
        kind, count, value = self.entries.get(tag, (0, 0, b""))
        formats = {_TYPE_BYTE: "B3x", _TYPE_SHORT: "H2x", _TYPE_LONG: "I"}
        if count < 1 or kind not in formats:
            return None
        number: int = struct.unpack(self.order + formats[kind], value)[0]
        return number

    def text(self, tag: int) -> str | None:
        """The value of an ASCII entry, up to its first zero byte; None if absent or not ASCII."""
        value = self._content(tag, (_TYPE_ASCII,))
        return None if value is None else value.partition(b"\0")[0].decode("ascii", "replace")

    def content(self, tag: int) -> bytes:
        """The bytes of an entry of undefined type or of bytes; empty if absent or of another."""
        return self._content(tag, (_TYPE_UNDEFINED, _TYPE_BYTE)) or b""

    def below(self, tag: int) -> "Directory | None":
        """The directory that an entry points to; None if the entry is absent."""
        offset = self.integer(tag)
        return None if offset is None else _directory(self.read, self.order, offset)

    def _content(self, tag: int, wanted: tuple[int, ...]) -> bytes | None:
        kind, count, value = self.entries.get(tag, (0, 0, b""))
        if kind not in wanted:
            return None
        if count <= len(value):
            return value[:count]
        offset = struct.unpack(self.order + "I", value)[0]
        return self.read(offset, min(count, _MAX_VALUE_BYTES))


def first_directory(read: ReadAt) -> Directory | None:
    """The first directory of a TIFF file; None if it is no TIFF file."""
    head = read(0, 8)
    order = _ORDERS.get(head[:4])
    if order is None or len(head) < 8:
        return None
    return _directory(read, order, struct.unpack_from(order + "I", head, 4)[0])


def _directory(read: ReadAt, order: Literal["<", ">"], offset: int) -> Directory:
    """The directory at an offset, without the entries beyond the end of the file."""
    entries: dict[int, tuple[int, int, bytes]] = {}
    count = read(offset, 2)
    if len(count) == 2:
        body = read(offset + 2, struct.unpack(order + "H", count)[0] * _ENTRY_BYTES)
        body = body[: len(body) // _ENTRY_BYTES * _ENTRY_BYTES]
        for tag, kind, n_values, value in struct.iter_unpack(order + "HHI4s", body):
            entries.setdefault(tag, (kind, n_values, value))
    return Directory(read, order, entries)
