"""Orientation and time of capture, from EXIF data made by hand, by cameras and by fuzzers."""

import csv
import io
import struct
from datetime import datetime
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ctc_ray.images.exif import HEADER_BYTES, ExifTime, captured_at, orientation, read_time

SHORT, LONG, ASCII = 3, 4, 2
Entry = tuple[int, int, int, bytes]


def entry(tag: int, kind: int, value: int, order: str = "<") -> Entry:
    packed = struct.pack(order + ("H2x" if kind == SHORT else "I"), value)
    return tag, kind, 1, packed


def directory(entries: list[Entry], order: str = "<") -> bytes:
    body = b"".join(struct.pack(order + "HHI4s", *e) for e in entries)
    return struct.pack(order + "H", len(entries)) + body + bytes(4)


def jpeg_with_tiff(tiff: bytes) -> bytes:
    payload = b"Exif\0\0" + tiff
    jfif = b"\xff\xe0\x00\x04ab"
    return b"\xff\xd8" + jfif + b"\xff\xe1" + struct.pack(">H", len(payload) + 2) + payload


def jpeg_with_orientation(value: int, order: str = "<", kind: int = SHORT) -> bytes:
    head = b"II*\0" if order == "<" else b"MM\0*"
    first = directory([entry(0x0112, kind, value, order)], order)
    return jpeg_with_tiff(head + struct.pack(order + "I", 8) + first)


def jpeg_taken_at(text: bytes, fraction: bytes | None = None) -> bytes:
    """A header whose DateTimeOriginal is behind the two directories."""
    n_entries = 1 if fraction is None else 2
    exif_offset = 8 + 2 + 12 + 4
    text_offset = exif_offset + 2 + 12 * n_entries + 4
    entries = [(0x9003, ASCII, len(text), struct.pack("<I", text_offset))]
    if fraction is not None:
        entries.append((0x9291, ASCII, len(fraction), fraction.ljust(4, b"\0")))
    first = directory([entry(0x8769, LONG, exif_offset)])
    return jpeg_with_tiff(b"II*\0" + struct.pack("<I", 8) + first + directory(entries) + text)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", [SHORT, LONG])
def test_orientation_is_read_in_both_byte_orders(order: str, kind: int) -> None:
    values = [orientation(jpeg_with_orientation(k, order, kind)) for k in range(1, 9)]
    assert values == [1, 2, 3, 4, 5, 6, 7, 8]


@pytest.mark.parametrize("value", [0, 9, 99, 65535])
def test_invalid_orientation_is_upright(value: int) -> None:
    assert orientation(jpeg_with_orientation(value)) == 1


@pytest.mark.parametrize("raw", [b"", b"\xff", b"\xff\xd8", b"\xff" * 1000, bytes(1000), b"text"])
def test_bytes_without_exif_are_upright_and_undated(raw: bytes) -> None:
    assert orientation(raw) == 1
    assert captured_at(raw) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"2021:04:11 20:43:09\0", datetime(2021, 4, 11, 20, 43, 9)),
        (b"2021:04:11 20:43:09", datetime(2021, 4, 11, 20, 43, 9)),
        (b"2021:04:11 20:43:09\0\0\0\0", datetime(2021, 4, 11, 20, 43, 9)),
        (b"2021:04:11 20:43:09  ", datetime(2021, 4, 11, 20, 43, 9)),
        (b"2021-04-11T20:43:09", datetime(2021, 4, 11, 20, 43, 9)),
        (b"2021-04-11T20:43:09.25", datetime(2021, 4, 11, 20, 43, 9, 250_000)),
        (b"2021-04-11T20:43:09+02:00", datetime(2021, 4, 11, 20, 43, 9)),
        (b"2021: 4:11  9: 3: 9", datetime(2021, 4, 11, 9, 3, 9)),
        (b"0000:00:00 00:00:00", None),
        (b"2021:13:45 25:61:61", None),
        (b"    :  :     :  :  ", None),
        (b"not a date", None),
        (b"2021:04:11", None),
        (b"2021:04:11 20:43:09 or so", None),
        (b"\xe9\xe9\xe9\xe9:04:11 20:43:09", None),
        (b"\0", None),
    ],
)
def test_time_of_capture_is_a_date_or_nothing(text: bytes, expected: datetime | None) -> None:
    assert captured_at(jpeg_taken_at(text)) == expected


@pytest.mark.parametrize(
    ("fraction", "micros"), [(b"5", 500_000), (b"07", 70_000), (b"123", 123_000), (b"x", 0)]
)
def test_fraction_of_a_second_is_added(fraction: bytes, micros: int) -> None:
    taken = captured_at(jpeg_taken_at(b"2021:04:11 20:43:09\0", fraction))
    assert taken == datetime(2021, 4, 11, 20, 43, 9, micros)


def test_date_that_is_none_is_told_and_a_blank_one_is_not_known() -> None:
    assert read_time(jpeg_taken_at(b"2021:13:01 00:00:00")) == ExifTime(None, "2021:13:01 00:00:00")
    assert read_time(jpeg_taken_at(b"    :  :     :  :  ")) == ExifTime(None, None)
    assert read_time(b"") == ExifTime(None, None)


def test_a_directory_that_points_to_itself_ends() -> None:
    raw = jpeg_with_tiff(b"II*\0" + struct.pack("<I", 8) + directory([entry(0x8769, LONG, 8)]))
    assert captured_at(raw) is None


def test_offsets_beyond_the_end_are_as_if_absent() -> None:
    far = directory([(0x9003, ASCII, 20, struct.pack("<I", 4_000_000_000))])
    raw = jpeg_with_tiff(
        b"II*\0" + struct.pack("<I", 8) + directory([entry(0x8769, LONG, 26)]) + far
    )
    assert captured_at(raw) is None
    assert orientation(jpeg_with_tiff(b"II*\0\xff\xff\xff\xff")) == 1


def test_no_truncation_or_flipped_byte_raises() -> None:
    raw = jpeg_taken_at(b"2021:04:11 20:43:09\0", b"07")
    rng = np.random.default_rng(0)
    for end in range(len(raw)):
        assert captured_at(raw[:end]) in (None, captured_at(raw[:end] + b"\0"))
        assert orientation(raw[:end]) == 1
    for _ in range(2000):
        changed = bytearray(raw)
        changed[rng.integers(len(raw))] = rng.integers(256)
        captured_at(bytes(changed))
        assert 1 <= orientation(bytes(changed)) <= 8


@pytest.mark.real_data
def test_malformed_set_agrees_with_pillow(shared_data: Path) -> None:
    folder = shared_data / "malformed"
    by_digest = {
        sha256(path.read_bytes()).hexdigest(): path for path in folder.rglob("*") if path.is_file()
    }
    with (folder / "MANIFEST.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["format"] in ("JPEG", "MPO")]
    for row in rows:
        raw = by_digest[row["sha256"]].read_bytes()[:HEADER_BYTES]
        known = row["orientation"]
        valid = int(known) if known.isdigit() and 1 <= int(known) <= 8 else 1
        assert orientation(raw) == valid, row["file"]
        text = row["datetime_original"].strip(" \0").replace("-", ":").replace("T", " ")
        try:
            taken = datetime.strptime(text, "%Y:%m:%d %H:%M:%S")
        except ValueError:
            taken = None
        found = captured_at(raw)
        assert (found.replace(microsecond=0) if found else None) == taken, row["file"]


@pytest.mark.real_data
def test_every_photo_of_a_burst_is_dated_as_pillow_dates_it(shared_data: Path) -> None:
    photos = sorted((shared_data / "photos" / "peru_bursts").rglob("*.JPG"))
    assert len(photos) == 51
    for photo in photos:
        raw = photo.read_bytes()[:HEADER_BYTES]
        with Image.open(io.BytesIO(photo.read_bytes())) as image:
            text = image.getexif().get_ifd(0x8769)[0x9003]
        taken = captured_at(raw)
        assert taken is not None
        assert f"{taken:%Y:%m:%d %H:%M:%S}" == text
