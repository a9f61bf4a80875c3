"""Read orientation and time of capture from the first bytes of a file, without a library.

EXIF data is a small TIFF file: in a JPEG in an APP1 segment near its start, in a PNG in the chunk
eXIf before the pixels, in a WebP in a chunk that may lie at the end; a TIFF file holds the
directories itself. Reading it takes microseconds. Data that violates the format counts as absent.
"""

import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from ctc_ray.config.choices import TimeSource
from ctc_ray.images.reconyx import Trigger, read_maker_note
from ctc_ray.images.tiff import Directory, ReadAt, first_directory

HEADER_BYTES = 128 * 1024
"""Number of bytes from the start of a JPEG that hold the EXIF data of cameras."""

CAMERA_TIMES: tuple[TimeSource, ...] = ("original", "digitized", "maker-note")
"""The entries that a camera writes when it takes an image, best first."""

_MAX_SEGMENTS = 512  # a colour profile alone may take 255
_APP1 = 0xE1
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9
_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD9)})
_PNG = b"\x89PNG\r\n\x1a\n"
_MAX_CHUNKS = 64  # before the pixels of a PNG, or of a WebP without animation

_TAG_MAKE = 0x010F
_TAG_ORIENTATION = 0x0112
_TAG_DATE_TIME, _TAG_SUB_SEC_TIME = 0x0132, 0x9290
_TAG_EXIF_DIRECTORY = 0x8769
_TAG_DATE_TIME_ORIGINAL, _TAG_SUB_SEC_TIME_ORIGINAL = 0x9003, 0x9291
_TAG_DATE_TIME_DIGITIZED, _TAG_SUB_SEC_TIME_DIGITIZED = 0x9004, 0x9292
_TAG_MAKER_NOTE = 0x927C

_DATE_TIME = re.compile(
    r"(\d{4})[:/-]([ \d]\d)[:/-]([ \d]\d)[ T]([ \d]\d):([ \d]\d):([ \d]\d)"
    r"(?:\.(\d+))?\s*(?:Z|[+-]\d\d:?\d\d)?\s*"
)


def orientation(raw: bytes) -> int:
    """EXIF orientation of a JPEG, from 1 to 8; 1 is upright.

    1 also if the orientation is absent or invalid, or if the file is not a JPEG.
    """
    directory = _in_jpeg(raw)
    value = None if directory is None else directory.integer(_TAG_ORIENTATION)
    return value if value is not None and 1 <= value <= 8 else 1


def captured_at(raw: bytes) -> datetime | None:
    """Time at which an image was taken, with its fraction of a second, if any.

    DateTimeOriginal, else DateTimeDigitized, else that of a maker note. Local time of the camera,
    without a time zone. None if all are absent or not a date (blank, zeros, month 13, text), or if
    the file has no EXIF data.

    Args:
        raw: the first `HEADER_BYTES` of the file, or more.
    """
    return read_time(raw).time


@dataclass(frozen=True)
class ExifTime:
    """The time at which an image was taken, as a time and as text."""

    time: datetime | None
    """Local time of the camera; None if the time is absent or not a date."""
    text: str | None
    """The text in the file; None if it is absent or blank."""


@dataclass(frozen=True)
class CameraTimes:
    """The times that a file names, and the trigger that its camera wrote."""

    times: Mapping[TimeSource, ExifTime] = field(default_factory=dict)
    """Without the times that are absent or blank."""
    trigger: Trigger | None = None

    def first(self, sources: Sequence[TimeSource]) -> tuple[TimeSource | None, ExifTime]:
        """The first of these that is a date, else the first text that is none."""
        found = [(source, self.times[source]) for source in sources if source in self.times]
        dated = [(source, time) for source, time in found if time.time is not None]
        return next(iter([*dated, *found]), (None, ExifTime(None, None)))


def read_time(raw: bytes) -> ExifTime:
    """Like `captured_at`, with the text from which the time was parsed."""
    return read_times(raw).first(CAMERA_TIMES)[1]


def read_times(head: bytes, read_at: ReadAt | None = None) -> CameraTimes:
    """The times in the EXIF data of a JPEG, PNG, WebP or TIFF file.

    Args:
        head: the first `HEADER_BYTES` of the file, or more.
        read_at: reads further bytes, for WebP and TIFF files whose EXIF data lie behind the head.
            None: there are none.
    """
    directory = _exif(head, read_at)
    if directory is None:
        return CameraTimes()
    found: dict[TimeSource, ExifTime] = {"modify-date": _time(directory, _TAG_DATE_TIME, None)}
    below = directory.below(_TAG_EXIF_DIRECTORY)
    trigger = None
    if below is not None:
        fraction = below.text(_TAG_SUB_SEC_TIME)
        found = {
            "original": _time(
                below, _TAG_DATE_TIME_ORIGINAL, below.text(_TAG_SUB_SEC_TIME_ORIGINAL)
            ),
            "digitized": _time(
                below, _TAG_DATE_TIME_DIGITIZED, below.text(_TAG_SUB_SEC_TIME_DIGITIZED)
            ),
            "modify-date": _time(directory, _TAG_DATE_TIME, fraction),
        }
        note = read_maker_note(below.content(_TAG_MAKER_NOTE), directory.text(_TAG_MAKE))
        if note is not None:
            found["maker-note"], trigger = ExifTime(note.time, note.text), note.trigger
    return CameraTimes({k: v for k, v in found.items() if v.text is not None}, trigger)


def _time(directory: Directory, tag: int, fraction: str | None) -> ExifTime:
    text = directory.text(tag)
    if text is None or not text.strip(" :"):  # blanks between colons: "unknown" in the standard
        return ExifTime(None, None)
    return ExifTime(_parse_date(text, fraction), text)


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


def _exif(head: bytes, read_at: ReadAt | None) -> Directory | None:
    """The first directory of a file's EXIF data; None if absent."""

    def read(start: int, n: int) -> bytes:
        if start + n <= len(head) or read_at is None:
            return head[start : start + n]
        return read_at(start, n)

    if head.startswith(b"\xff\xd8"):
        return _in_jpeg(head)
    if head.startswith(_PNG):
        return _in_png(head)
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return _in_webp(read)
    return first_directory(read)


def _part(read: ReadAt, start: int, end: int) -> ReadAt:
    """Reads a part of a file as if it was a file."""
    return lambda at, n: read(start + at, max(0, min(n, end - start - at)))


def _in_jpeg(raw: bytes) -> Directory | None:
    for start, end in _app1_segments(raw):
        if raw.startswith(b"Exif\0", start):
            return first_directory(_part(lambda at, n: raw[at : at + n], start + 6, end))
    return None


def _in_png(raw: bytes) -> Directory | None:
    at = len(_PNG)
    for _ in range(_MAX_CHUNKS):
        length, kind = int.from_bytes(raw[at : at + 4], "big"), raw[at + 4 : at + 8]
        if kind in (b"", b"IDAT"):
            return None
        if kind == b"eXIf":
            return first_directory(_part(lambda at, n: raw[at : at + n], at + 8, at + 8 + length))
        at += 12 + length
    return None


def _in_webp(read: ReadAt) -> Directory | None:
    at = 12
    for _ in range(_MAX_CHUNKS):
        header = read(at, 8)
        if len(header) < 8:
            return None
        length = struct.unpack_from("<I", header, 4)[0]
        if header[:4] == b"EXIF":
            skip = 6 if read(at + 8, 6) == b"Exif\0\0" else 0  # some programs write it as in a JPEG
            return first_directory(_part(read, at + 8 + skip, at + 8 + length))
        at += 8 + length + length % 2
    return None


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
