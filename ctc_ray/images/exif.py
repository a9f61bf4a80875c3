"""Read orientation and time of capture from the first bytes of a JPEG, without a library.

EXIF is in an APP1 segment near the start of a JPEG: "Exif", two zeros, and a small TIFF file whose
directories list entries of 12 bytes (tag, type, count, value or offset). Reading it takes
microseconds. Data that violates the format counts as absent.
"""

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

HEADER_BYTES = 128 * 1024
"""Number of bytes from the start of a JPEG that hold the EXIF data of cameras."""

_MAX_SEGMENTS = 512  # a colour profile alone may take 255
_APP1 = 0xE1
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9
_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD9)})

_TAG_ORIENTATION = 0x0112
_TAG_EXIF_DIRECTORY = 0x8769
_TAG_DATE_TIME_ORIGINAL = 0x9003
_TAG_SUB_SEC_TIME_ORIGINAL = 0x9291
_TYPE_BYTE, _TYPE_ASCII, _TYPE_SHORT, _TYPE_LONG = 1, 2, 3, 4
_ENTRY_BYTES = 12

_DATE_TIME = re.compile(
    r"(\d{4})[:/-]([ \d]\d)[:/-]([ \d]\d)[ T]([ \d]\d):([ \d]\d):([ \d]\d)"
    r"(?:\.(\d+))?\s*(?:Z|[+-]\d\d:?\d\d)?\s*"
)


@dataclass(frozen=True)
class _Directory:
    """A TIFF directory; entries are tag -> (type, count, four bytes of value or offset)."""

    tiff: bytes
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
        kind, count, value = self.entries.get(tag, (0, 0, b""))
        if kind != _TYPE_ASCII:
            return None
        if count > len(value):
            offset = struct.unpack(self.order + "I", value)[0]
            value = self.tiff[offset : offset + count]
        else:
            value = value[:count]
        return value.partition(b"\0")[0].decode("ascii", "replace")


def orientation(raw: bytes) -> int:
    """EXIF orientation of a JPEG, from 1 to 8; 1 is upright.

    1 also if the orientation is absent or invalid, or if the file is not a JPEG.
    """
    directory = _first_directory(raw)
    value = None if directory is None else directory.integer(_TAG_ORIENTATION)
    return value if value is not None and 1 <= value <= 8 else 1


def captured_at(raw: bytes) -> datetime | None:
    """Time at which a JPEG was taken: DateTimeOriginal with its fraction of a second, if any.

    Local time of the camera, without a time zone. None if the time is absent or not a date (blank,
    zeros, month 13, text), or if the file is not a JPEG.

    Args:
        raw: the first `HEADER_BYTES` of the file, or more.
    """
    return read_time(raw).time


@dataclass(frozen=True)
class ExifTime:
    """The time at which a JPEG was taken, as a time and as text."""

    time: datetime | None
    """Local time of the camera; None if the time is absent or not a date."""
    text: str | None
    """The text in the file; None if it is absent or blank."""


def read_time(raw: bytes) -> ExifTime:
    """Like `captured_at`, with the text from which the time was parsed."""
    directory = _first_directory(raw)
    offset = None if directory is None else directory.integer(_TAG_EXIF_DIRECTORY)
    if directory is None or offset is None:
        return ExifTime(None, None)
    exif = _directory(directory.tiff, directory.order, offset)
    text = exif.text(_TAG_DATE_TIME_ORIGINAL)
    if text is None or not text.strip(" :"):  # blanks between colons: "unknown" in the standard
        return ExifTime(None, None)
    return ExifTime(_parse_date(text, exif.text(_TAG_SUB_SEC_TIME_ORIGINAL)), text)


def _parse_date(text: str, fraction: str | None) -> datetime | None:
    match = _DATE_TIME.fullmatch(text.strip())
    if match is None:
        return None
    *fields, own_fraction = match.groups()
    digits = (own_fraction or fraction or "").strip()
    micros = int(digits[:6].ljust(6, "0")) if digits.isascii() and digits.isdigit() else 0
    try:
        return datetime(*map(int, fields), microsecond=micros)  # type: ignore[arg-type, misc]  # six fields
    except ValueError:
        return None


def _first_directory(raw: bytes) -> _Directory | None:
    """The first directory of a JPEG's EXIF data; None if absent."""
    for start, end in _app1_segments(raw):
        if raw.startswith(b"Exif\0", start):
            tiff = raw[start + 6 : end]
            order = _ORDERS.get(tiff[:4])
            if order is None or len(tiff) < 8:
                return None
            return _directory(tiff, order, struct.unpack_from(order + "I", tiff, 4)[0])
    return None


_ORDERS: dict[bytes, Literal["<", ">"]] = {b"II*\0": "<", b"MM\0*": ">"}


def _directory(tiff: bytes, order: Literal["<", ">"], offset: int) -> _Directory:
    """The directory at an offset, without the entries beyond the end of the file."""
    entries: dict[int, tuple[int, int, bytes]] = {}
    if offset + 2 <= len(tiff):
        count = struct.unpack_from(order + "H", tiff, offset)[0]
        start = offset + 2
        count = min(count, (len(tiff) - start) // _ENTRY_BYTES)
        body = tiff[start : start + count * _ENTRY_BYTES]
        for tag, kind, n_values, value in struct.iter_unpack(order + "HHI4s", body):
            entries.setdefault(tag, (kind, n_values, value))
    return _Directory(tiff, order, entries)


def _app1_segments(raw: bytes) -> Iterator[tuple[int, int]]:
    """Start and end offset of the payload of each APP1 segment before the pixels."""
    if not raw.startswith(b"\xff\xd8"):
        return
    at = 2
    for _ in range(_MAX_SEGMENTS):
        if at + 4 > len(raw) or raw[at] != 0xFF:
            return
        marker = raw[at + 1]
        if marker == 0xFF or marker in _WITHOUT_LENGTH:  # a fill byte, or a marker by itself
            at += 1 if marker == 0xFF else 2
            continue
        length = int.from_bytes(raw[at + 2 : at + 4], "big")
        if marker in (_START_OF_SCAN, _END_OF_IMAGE) or length < 2:
            return
        if marker == _APP1:
            yield at + 4, at + 2 + length
        at += 2 + length
