"""Capture times are read as times on the camera's clock; others are null."""

from datetime import datetime

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctc_ray.inventory.sources.times import parse_instants, parse_times


def parsed(*values: str | None) -> list[datetime | None]:
    return parse_times(pa.array(values, pa.large_string())).to_pylist()


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("2021-04-11T20:43:09", datetime(2021, 4, 11, 20, 43, 9)),
        ("2021-04-11 20:43:09", datetime(2021, 4, 11, 20, 43, 9)),
        ("2021:04:11 20:43:09", datetime(2021, 4, 11, 20, 43, 9)),
        ("2021-04-11 20:43", datetime(2021, 4, 11, 20, 43)),
        (" 2021-04-11T20:43:09 ", datetime(2021, 4, 11, 20, 43, 9)),
        ("2021-04-11T20:43:09.5", datetime(2021, 4, 11, 20, 43, 9, 500_000)),
        ("2021-04-11T20:43:09.123456789", datetime(2021, 4, 11, 20, 43, 9, 123_456)),
        ("2020-02-29T00:00:00", datetime(2020, 2, 29)),
        ("1969-12-31T23:59:59", datetime(1969, 12, 31, 23, 59, 59)),
    ],
)
def test_time_is_read(written, meant):
    assert parsed(written) == [meant]


@pytest.mark.parametrize("offset", ["Z", "+02:00", "-0930", "+02", " +02:00"])
def test_offset_is_dropped_so_the_time_is_the_cameras(offset):
    assert parsed(f"2021-04-11T20:43:09{offset}") == [datetime(2021, 4, 11, 20, 43, 9)]


@pytest.mark.parametrize(
    "written",
    [
        "", "yesterday", "2021-04-11", "11.04.2021 20:43:09", "0000:00:00 00:00:00",
        "2021-13-01 00:00:00", "2021-02-29 00:00:00", "2021-04-00 00:00:00",
        "2021-04-11 24:00:00", "2021-04-11 20:60:00", "2021-04-11 20:43:60", "20:43:09",
        "0000-01-01 00:00:00", "0000-01-01T00:00:00.5",
    ],
)  # fmt: skip
def test_unreadable_time_is_null_and_other_times_are_read(written):
    assert parsed(written, None, "2021-04-11T20:43:09") == [
        None,
        None,
        datetime(2021, 4, 11, 20, 43, 9),
    ]


def test_the_year_0_is_null_among_whole_seconds_too():
    assert parsed("0000-12-31 23:59:59", "0001-01-01 00:00:00") == [None, datetime(1, 1, 1)]


@given(st.datetimes(min_value=datetime(1800, 1, 1)))
def test_every_time_that_python_writes_is_read_back(time):
    assert parsed(time.isoformat()) == [time]
    assert parsed(time.strftime("%Y:%m:%d %H:%M:%S")) == [time.replace(microsecond=0)]


def test_instants_of_one_moment_are_equal_in_every_offset():
    same = ["2020-05-30T04:57:37+02:00", "2020-05-30T02:57:37Z", "2020-05-30 00:27:37-0230",
            "2020-05-30T02:57:37", "2020-05-30T03:57:37.000+01"]  # fmt: skip
    times = parse_instants(pa.array([*same, None, "2020-05-30"]))
    expected = datetime(2020, 5, 30, 2, 57, 37)
    assert times.to_pylist()[:5] == [expected] * 5
    assert times.to_pylist()[5:7] == [None, None]
