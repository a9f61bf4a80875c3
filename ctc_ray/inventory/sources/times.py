"""Capture times in the forms that people and cameras write."""

import posixpath
import re
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

_ROWS_AT_ONCE = 1 << 18  # one unusual time slows down only the rows of its part
_SIMPLE_LENGTH = len("2021-04-11 20:43:09")
_CLOCK = (
    r"(?P<hour>\d{1,2}):(?P<minute>\d{2})(?::(?P<second>\d{2})(?:[.,](?P<fraction>\d{1,6})\d*)?)?"
    r"\s*(?P<half>[AaPp]\.?[Mm]\.?)?\s*(?:Z|[+-]\d{2}(?::?\d{2})?)?\s*$"
)
_DATES = (  # with the year first, or with a day that can be no month
    r"^\s*(?P<year>\d{4})[-:/.](?P<month>\d{1,2})[-:/.](?P<day>\d{1,2})",
    r"^\s*(?P<day>1[3-9]|2\d|3[01])[-/.](?P<month>\d{1,2})[-/.](?P<year>\d{4})",
    r"^\s*(?P<month>\d{1,2})[-/.](?P<day>1[3-9]|2\d|3[01])[-/.](?P<year>\d{4})",
)

_IN_NAME = re.compile(
    r"(?<!\d)((?:19|20)\d\d)[-_.]?(\d\d)[-_.]?(\d\d)[T _-]{0,3}(\d\d)[-_.h]?(\d\d)[-_.m]?(\d\d)"
    r"(?:\d{3})?(?!\d)"
)

_YEAR_1_US = int(np.datetime64("0001-01-01", "us").astype(np.int64))

_OFFSET = r":\d{2}(?:[.,]\d+)?\s*(?P<sign>[+-])(?P<hours>\d{2}):?(?P<minutes>\d{2})?\s*$"


def parse_times(values: pa.Array | pa.ChunkedArray, *, time_format: str | None = None) -> pa.Array:
    """The times on the camera's clock, timestamp[us]; null for null and for unreadable text.

    Readable are ISO 8601, with T or a blank, optional seconds and fraction, the EXIF form
    2021:04:11 20:43:09, and what spreadsheets make of them: 2021/4/11 8:43 PM, and 13.4.2021 20:43
    or 4/13/2021 20:43, because there is no month 13. 5/3/2021 is unreadable: March or May? An
    offset from UTC is dropped. A date without a time is unreadable, and so is an impossible date.

    Args:
        time_format: the form of all times instead, with the codes of strptime: %d.%m.%Y %H:%M.
    """
    if time_format is not None:
        return _parse_as(values, time_format)
    chunks = values.chunks if isinstance(values, pa.ChunkedArray) else [values]
    parts = [c.slice(i, _ROWS_AT_ONCE) for c in chunks for i in range(0, len(c), _ROWS_AT_ONCE)]
    with ThreadPoolExecutor(pa.cpu_count()) as pool:
        parsed = list(pool.map(_parse, parts))
    return pa.concat_arrays(parsed) if parsed else pa.array([], pa.timestamp("us"))


def _parse(values: pa.Array) -> pa.Array:
    """`parse_times` of one part; Arrow's own parser is 30 times as fast.

    Arrow reads a text of 19 characters only if it is a date with a time.
    """
    lengths = pc.min_max(pc.binary_length(values)).as_py()
    if set(lengths.values()) == {_SIMPLE_LENGTH}:
        try:
            times = values.cast(pa.timestamp("us"))
        except pa.ArrowInvalid:
            return _parse_any(values)
        if pc.min(times).cast(pa.int64()).as_py() >= _YEAR_1_US:
            return times
    return _parse_any(values)


def _parse_as(values: pa.Array | pa.ChunkedArray, time_format: str) -> pa.Array:
    """The times in a form that the user gives; each distinct text is read once."""
    column = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    encoded = column if pa.types.is_dictionary(column.type) else pc.dictionary_encode(column)

    def read(text: str) -> datetime | None:
        try:
            return datetime.strptime(text.strip(), time_format).replace(tzinfo=None)
        except ValueError:
            return None

    read_texts = [read(text) for text in encoded.dictionary.to_pylist()]
    return pa.array(read_texts, pa.timestamp("us")).take(encoded.indices)


def _parse_any(values: pa.Array) -> pa.Array:
    """The times in any readable form; each form is tried on what the ones before left unread."""
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    times = _parse_form(values, _DATES[0])
    for date in _DATES[1:]:
        if times.null_count == values.null_count:
            break
        times = pc.coalesce(times, _parse_form(values, date))
    return times


def _parse_form(values: pa.Array, date: str) -> pa.Array:
    parts = pc.extract_regex(values, f"{date}(?:T|\\s+){_CLOCK}")

    def numbers(name: str) -> npt.NDArray[np.int64]:
        text = pc.fill_null(pc.struct_field(parts, name), "0")
        if name == "fraction":
            text = pc.utf8_rpad(text, 6, "0")
        text = pc.if_else(pc.equal(text, ""), "0", text)
        result: npt.NDArray[np.int64] = text.cast(pa.int64()).to_numpy(zero_copy_only=False)
        return result

    year, month, day = numbers("year"), numbers("month"), numbers("day")
    hour, minute, second = numbers("hour"), numbers("minute"), numbers("second")
    months = (year - 1970).astype("datetime64[Y]").astype("datetime64[M]") + (month - 1)
    days = months.astype("datetime64[D]") + (day - 1)
    half = pc.fill_null(pc.ascii_lower(pc.struct_field(parts, "half")), "")
    is_am, is_pm = (
        pc.starts_with(half, letter).to_numpy(zero_copy_only=False) for letter in ("a", "p")
    )
    twelve_hours = ~(is_am | is_pm) | ((hour >= 1) & (hour <= 12))
    hour = np.where(is_am | is_pm, hour % 12, hour) + 12 * is_pm
    valid = (
        parts.is_valid().to_numpy(zero_copy_only=False)
        & (year >= 1)  # the first year of Python's dates
        & ((month >= 1) & (month <= 12) & (days.astype("datetime64[M]") == months))
        & ((hour < 24) & (minute < 60) & (second < 60) & twelve_hours)
    )
    seconds = (hour * 60 + minute) * 60 + second
    times = days.astype("datetime64[us]") + (seconds * 1_000_000 + numbers("fraction"))
    return pa.array(times, pa.timestamp("us"), mask=~valid)


def parse_instants(values: pa.Array) -> pa.Array:
    """The times in UTC, timestamp[us], to compare times of different offsets.

    Text without an offset counts as UTC. Null for null and for unreadable text.
    """
    parts = pc.extract_regex(values, _OFFSET)
    minutes = np.zeros(len(values), np.int64)
    for name, factor in (("hours", 60), ("minutes", 1)):
        text = pc.fill_null(pc.struct_field(parts, name), "0")
        text = pc.if_else(pc.equal(text, ""), "0", text)
        minutes += factor * text.cast(pa.int64()).to_numpy(zero_copy_only=False)
    is_west = pc.fill_null(pc.equal(pc.struct_field(parts, "sign"), "-"), False)
    minutes[is_west.to_numpy(zero_copy_only=False)] *= -1
    times = parse_times(values)
    micros = times.cast(pa.int64()).fill_null(0).to_numpy() - minutes * 60_000_000
    is_null = times.is_null().to_numpy(zero_copy_only=False)
    return pa.array(micros.astype("datetime64[us]"), pa.timestamp("us"), mask=is_null)


def time_in_name(path: str) -> datetime | None:
    """The time in the name of a file, year first, e.g. in IMG_20190601_100000.JPG; None: no time.

    None as well if the name has several times.
    """
    times = set()
    for match in _IN_NAME.finditer(posixpath.basename(path)):
        try:
            times.add(datetime(*map(int, match.groups())))  # type: ignore[arg-type]  # six fields
        except ValueError:
            continue
    return times.pop() if len(times) == 1 else None
