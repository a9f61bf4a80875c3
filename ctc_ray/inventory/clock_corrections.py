"""Corrections of camera clocks that were set wrongly: a shift per deployment, or per period of one.

A csv with the columns

- `deployment`: id of the deployment, or of the location where the source names no deployments
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
import pyarrow as pa
import pyarrow.compute as pc

from ctc_ray.columns.arrays import TEXT
from ctc_ray.errors import ConfigError
from ctc_ray.inventory.findings import Findings
from ctc_ray.inventory.sources.csv_table import column_names, read_columns
from ctc_ray.inventory.sources.times import parse_times

KIND = "clock_corrections"
"""Finding per correction, with the number of images that it changes."""

_COLUMNS = ("deployment", "from", "to", "shift", "wrong", "right")
_SHIFT = re.compile(
    r"(?P<sign>[+-]?)\s*(?:(?P<days>\d+)\s*(?:d|days?)\b\s*)?"
    r"(?:(?P<hours>\d+):(?P<minutes>\d\d)(?::(?P<seconds>\d\d))?)?"
)
_AMOUNT = re.compile(r"(?P<sign>[+-]?)\s*(?P<amount>\d+)\s*(?P<unit>[hms])")
_UNITS = {"h": "hours", "m": "minutes", "s": "seconds"}
_DATE = re.compile(r"\d{4}-\d\d-\d\d")
_DAY = timedelta(days=1)
_MICROSECOND = timedelta(microseconds=1)


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

    def find(
        self, times: pa.Array, deployments: pa.Array | None, locations: pa.Array | None
    ) -> Corrected:
        """The shift of each image.

        Args:
            times: timestamp[us], as the cameras wrote them; null is unknown.
            deployments: deployment of each image; null is unknown. None: all are unknown.
            locations: likewise; used where the deployment is unknown.

        Raises:
            ConfigError: no image is changed by any correction.
        """
        n_images = len(times)
        shifts = np.zeros(n_images, "timedelta64[us]")
        findings = Findings()
        if self.corrections:
            empty = pa.nulls(n_images, TEXT)
            known = [empty if v is None else _plain(v) for v in (deployments, locations)]
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
                shifts[chosen] = np.timedelta64(one.shift, "us")
                counts.append(int(chosen.sum()))
            if not sum(counts):
                raise ConfigError(self._nothing(list(names)))
            details = [f"{c}: {n:,} images" for c, n in zip(self.corrections, counts, strict=True)]
            findings = findings.listed(KIND, [c.deployment for c in self.corrections], details)
            findings = findings.counted(times_corrected=sum(counts))
        return Corrected(pa.array(shifts), findings)

    def _nothing(self, cameras: list[str]) -> str:
        shown = ", ".join(sorted(cameras)[:5]) or "none"
        return (
            f"{self.uri}: no image is of a deployment and a time that it names, "
            f"e.g. {self.corrections[0].deployment!r}; deployments of the source: {shown}"
        )


NO_CORRECTIONS = ClockCorrections()


def read_clock_corrections(uri: str) -> ClockCorrections:
    """The corrections of a csv; see the module's docstring.

    Raises:
        ConfigError: the file does not exist, a line cannot be read, or two of them overlap.
        SchemaError: it is not a csv, or has other columns.
    """
    given = column_names(uri)
    unknown = [name for name in given if name not in _COLUMNS]
    if unknown or "deployment" not in given:
        raise ConfigError(
            f"{uri}: columns are {', '.join(given)}; expected deployment, from and to (optional), "
            "and shift, or wrong and right"
        )
    table = read_columns(uri, given).to_pydict()
    n_rows = len(table["deployment"])
    empty = [""] * n_rows
    cells = zip(*(table.get(name, empty) for name in _COLUMNS), strict=True)
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
    return ClockCorrections(uri, tuple(found))


def _plain(values: pa.Array | pa.ChunkedArray) -> pa.Array:
    values = values.cast(TEXT)
    return values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values


def _correction(cells: tuple[str, ...], uri: str, line: int) -> Correction:
    deployment, begin, end, shift, wrong, right = (cell.strip() for cell in cells)
    where = f"{uri}: line {line}"
    if not deployment:
        raise ConfigError(f"{where} names no deployment")
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
    amount, match = _AMOUNT.fullmatch(text), _SHIFT.fullmatch(text)
    if amount is not None:
        shift = timedelta(**{_UNITS[amount["unit"]]: int(amount["amount"])})
        return -shift if amount["sign"] == "-" else shift
    if match is None or not (match["days"] or match["hours"]):
        raise ConfigError(
            f"{where}: {text!r} is not a shift; write for example -1:00, +365d, 1d 02:30:00 or -90m"
        )
    parts = {name: int(match[name] or 0) for name in ("days", "hours", "minutes", "seconds")}
    return -timedelta(**parts) if match["sign"] == "-" else timedelta(**parts)
