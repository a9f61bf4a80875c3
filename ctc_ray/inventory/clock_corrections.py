"""Corrections of camera clocks that were set wrongly: a shift per deployment, or per period of one.

A csv with the columns

- `deployment`: id of the deployment, or of the location where the source names no deployments; or
  instead `location`: id of a location, for every deployment there
- `from`, `to` (optional): only times in this period, ends included, as the camera wrote them; a
  date without a time is the whole day
- `shift`: what to add, e.g. `-1:00`, `+365d`, `1d 02:30:00`, `-90m`; or `wrong` and `right`: a time
  that the camera wrote, and the time that it was
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ctc_ray.columns.arrays import TEXT
from ctc_ray.errors import ConfigError
from ctc_ray.inventory.findings import Findings
from ctc_ray.inventory.sources.csv_table import column_names, read_columns
from ctc_ray.inventory.sources.times import parse_times

KIND = "clock_corrections"
"""Finding per correction, with the number of images that it changes."""

UNUSED = "clock_corrections_without_images"
"""Finding per correction that changes no image: a deployment is misspelt, or a period is wrong."""

_CAMERAS = ("deployment", "location")
_COLUMNS = ("from", "to", "shift", "wrong", "right")
_SHIFT = re.compile(
    r"(?P<sign>[+-]?)\s*(?:(?P<days>\d+)\s*(?:d|days?)\b\s*)?"
    r"(?:(?P<hours>\d+):(?P<minutes>[0-5]\d)(?::(?P<seconds>[0-5]\d))?)?"
)
_AMOUNT = re.compile(r"(?P<sign>[+-]?)\s*(?P<amount>\d+)\s*(?P<unit>[hms])")
_UNITS = {"h": "hours", "m": "minutes", "s": "seconds"}
_DATE = re.compile(r"\d{4}-\d\d-\d\d")
_DAY = timedelta(days=1)
_MICROSECOND = timedelta(microseconds=1)
_LONGEST = timedelta(days=36525)  # a clock that was never set shows 1970 or later
_FIRST, _LAST = (np.datetime64(time, "us") for time in (datetime.min, datetime.max))

Times = npt.NDArray[np.datetime64]


@dataclass(frozen=True)
class Correction:
    """One line of the csv."""

    line: int
    deployment: str
    first: datetime | None
    """None: from the beginning."""
    last: datetime | None
    """None: to the end."""
    shift: timedelta

    def overlaps(self, other: "Correction") -> bool:
        """Whether a time of a deployment may be in both periods."""
        begins = max(self.first or datetime.min, other.first or datetime.min)
        ends = min(self.last or datetime.max, other.last or datetime.max)
        return self.deployment == other.deployment and begins <= ends

    def __str__(self) -> str:
        period = "".join(
            f" {word} {t}" for word, t in (("from", self.first), ("to", self.last)) if t
        )
        sign = "-" if self.shift < timedelta(0) else "+"
        return f"{sign}{abs(self.shift)}{period}"


@dataclass(frozen=True)
class Corrected:
    """How much is added to each time, and what was found."""

    shifts: pa.Array
    """duration[us], never null."""
    findings: Findings

    def of(self, times: pa.Array) -> pa.Array:
        """These times, or others of the same images, corrected; null stays null."""
        return pc.add(times, self.shifts)


@dataclass(frozen=True)
class ClockCorrections:
    """The corrections of a csv, or none."""

    uri: str = ""
    corrections: Sequence[Correction] = ()
    by_location: bool = False
    """They name locations, whatever the deployment."""

    def find(
        self, times: pa.Array, deployments: pa.Array | None, locations: pa.Array | None
    ) -> Corrected:
        """The shift of each image.

        Args:
            times: timestamp[us], as the cameras wrote them; null is unknown.
            deployments: deployment of each image; null is unknown. None: all are unknown.
            locations: likewise; used where the deployment is unknown, or if corrections name them.

        Raises:
            ConfigError: no image is changed by any correction, or a time would have a year that
                other programs cannot read.
        """
        n_images = len(times)
        shifts = np.zeros(n_images, "timedelta64[us]")
        findings = Findings()
        if self.corrections:
            empty = pa.nulls(n_images, TEXT)
            given = (locations,) if self.by_location else (deployments, locations)
            known = [empty if v is None else _plain(v) for v in given]
            cameras = pc.coalesce(*known).dictionary_encode()
            names = {name: code for code, name in enumerate(cameras.dictionary.to_pylist())}
            codes = cameras.indices.fill_null(-1).to_numpy()
            micros = times.cast(pa.int64()).fill_null(0).to_numpy().astype("datetime64[us]")
            dated, counts = np.asarray(times.is_valid()), []
            for one in self.corrections:
                chosen = dated & (codes == names.get(one.deployment, -2))
                if one.first is not None:
                    chosen &= micros >= np.datetime64(one.first, "us")
                if one.last is not None:
                    chosen &= micros <= np.datetime64(one.last, "us")
                shifts[chosen] = self._shift(one, micros[chosen])
                counts.append(int(chosen.sum()))
            if not sum(counts):
                raise ConfigError(self._nothing(list(names)))
            details = [f"{c}: {n:,} images" for c, n in zip(self.corrections, counts, strict=True)]
            findings = findings.listed(KIND, [c.deployment for c in self.corrections], details)
            findings = findings.counted(times_corrected=sum(counts))
            unused = [c for c, n in zip(self.corrections, counts, strict=True) if not n]
            details = [f"line {c.line}: {c}" for c in unused]
            findings = findings.listed(UNUSED, [c.deployment for c in unused], details)
        return Corrected(pa.array(shifts), findings)

    def _shift(self, one: Correction, times: Times) -> np.timedelta64:
        """What is added to the times of a correction."""
        shift = np.timedelta64(one.shift, "us")
        moved = times + shift
        n_beyond = int(((moved < _FIRST) | (moved > _LAST)).sum())
        if n_beyond:
            raise ConfigError(
                f"{self.uri}: line {one.line}: {n_beyond:,} times of {one.deployment!r} would lie "
                "outside the years 1 to 9999; give the period of the wrong clock by from and to"
            )
        return shift

    def _nothing(self, cameras: list[str]) -> str:
        kind = _CAMERAS[self.by_location]
        shown = ", ".join(sorted(cameras)[:5]) or "none"
        return (
            f"{self.uri}: no image is of a {kind} and a time that it names, "
            f"e.g. {self.corrections[0].deployment!r}; {kind}s of the source: {shown}"
        )


NO_CORRECTIONS = ClockCorrections()


def read_clock_corrections(uri: str) -> ClockCorrections:
    """The corrections of a csv; see the module's docstring.

    Raises:
        ConfigError: the file does not exist, a line cannot be read, or two of them overlap.
        SchemaError: it is not a csv, or has other columns.
    """
    given = column_names(uri)
    names = [name.strip().lower() for name in given]
    cameras = [name for name in names if name in _CAMERAS]
    if len(cameras) != 1 or len({*names}) < len(names) or {*names} - {*_CAMERAS, *_COLUMNS}:
        raise ConfigError(
            f"{uri}: columns are {', '.join(given)}; expected deployment or location, from and to "
            "(optional), and shift, or wrong and right"
        )
    columns = read_columns(uri, given)
    table = {name: columns[own].to_pylist() for name, own in zip(names, given, strict=True)}
    empty = [""] * columns.num_rows
    cells = zip(*(table.get(name, empty) for name in (*cameras, *_COLUMNS)), strict=True)
    found = [_correction(row, uri, line) for line, row in enumerate(cells, start=2)]
    if not found:
        raise ConfigError(f"{uri}: there is no correction below the header")
    by_deployment: dict[str, list[Correction]] = {}
    for one in found:
        for other in by_deployment.setdefault(one.deployment, []):
            if one.overlaps(other):
                raise ConfigError(
                    f"{uri}: lines {other.line} and {one.line} both correct {one.deployment!r} at "
                    "the same time; give periods that do not overlap"
                )
        by_deployment[one.deployment].append(one)
    return ClockCorrections(uri, tuple(found), by_location=cameras == ["location"])


def _plain(values: pa.Array | pa.ChunkedArray) -> pa.Array:
    values = values.cast(TEXT)
    return values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values


def _correction(cells: tuple[str, ...], uri: str, line: int) -> Correction:
    deployment, begin, end, shift, wrong, right = (cell.strip() for cell in cells)
    where = f"{uri}: line {line}"
    if not deployment:
        raise ConfigError(f"{where} names no deployment or location")
    first, last = _moment(begin, where, is_end=False), _moment(end, where, is_end=True)
    if first is not None and last is not None and first > last:
        raise ConfigError(f"{where}: from {begin} is after to {end}")
    if bool(shift) == bool(wrong or right):
        raise ConfigError(f"{where}: give either shift, or wrong and right")
    if shift:
        return Correction(line, deployment, first, last, _shift(shift, where))
    before, after = (_moment(text, where, is_end=False) for text in (wrong, right))
    if before is None or after is None:
        raise ConfigError(f"{where}: give both wrong and right")
    if abs(after - before) > _LONGEST:
        raise ConfigError(f"{where}: wrong and right are more than 100 years apart")
    return Correction(line, deployment, first, last, after - before)


def _moment(text: str, where: str, *, is_end: bool) -> datetime | None:
    if not text:
        return None
    is_date = _DATE.fullmatch(text) is not None
    time: datetime | None = parse_times(pa.array([f"{text} 00:00:00" if is_date else text]))[
        0
    ].as_py()
    if time is None:
        raise ConfigError(f"{where}: {text!r} is not a time; write 2021-04-11 20:43:09")
    if is_date and is_end:
        return time + _DAY - _MICROSECOND
    return time


def _shift(text: str, where: str) -> timedelta:
    shift = _shift_or_none(text)
    if shift is None or abs(shift) > _LONGEST:
        raise ConfigError(
            f"{where}: {text!r} is not a shift; write for example -1:00, +365d, 1d 02:30:00 or "
            "-90m, of at most 100 years"
        )
    return shift


def _shift_or_none(text: str) -> timedelta | None:
    amount, match = _AMOUNT.fullmatch(text), _SHIFT.fullmatch(text)
    if amount is not None:
        sign, parts = amount["sign"], {_UNITS[amount["unit"]]: int(amount["amount"])}
    elif match is not None and (match["days"] or match["hours"]):
        units = ("days", "hours", "minutes", "seconds")
        sign, parts = match["sign"], {name: int(match[name] or 0) for name in units}
    else:
        return None
    try:
        shift = timedelta(**parts)
    except OverflowError:
        return None
    return -shift if sign == "-" else shift
