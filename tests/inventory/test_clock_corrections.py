"""Corrections of camera clocks: what they change, and what is refused."""

from collections.abc import Callable
from datetime import datetime, timedelta

import pyarrow as pa
import pytest

from ctc_ray.errors import ConfigError
from ctc_ray.inventory.clock_corrections import KIND, read_clock_corrections

Write = Callable[[str | bytes], str]
NOON = datetime(2021, 5, 1, 12)
HOUR = timedelta(hours=1)


def corrected(uri: str, rows: list[tuple[str | None, str | None, datetime | None]]):
    """The times of rows (deployment, location, time), and the findings."""
    deployments, locations, times = (list(column) for column in zip(*rows, strict=True))
    given = pa.array(times, pa.timestamp("us"))
    found = read_clock_corrections(uri).find(
        given, pa.array(deployments, pa.string()), pa.array(locations, pa.string())
    )
    return found.of(given).to_pylist(), found.findings


@pytest.mark.parametrize(
    ("shift", "expected"),
    [
        ("1:00", HOUR),
        ("-1:00", -HOUR),
        ("+12:00:30", timedelta(hours=12, seconds=30)),
        ("+365d", timedelta(days=365)),
        ("-1d 02:30", -timedelta(days=1, hours=2, minutes=30)),
        ("2 days", timedelta(days=2)),
        ("-90m", -timedelta(minutes=90)),
        ("3600s", HOUR),
        ("+2h", 2 * HOUR),
    ],
)
def test_shifts_are_written_in_any_of_these_ways(write: Write, shift: str, expected) -> None:
    uri = write(f"deployment,shift\nA,{shift}\n")
    assert corrected(uri, [("A", None, NOON)])[0] == [NOON + expected]


def test_a_pair_of_times_is_a_shift_and_only_its_deployment_moves(write: Write) -> None:
    uri = write("deployment;wrong;right\nA;2000-01-01 00:00:00;2021-04-30 09:00:00\n")
    wrong = datetime(2000, 1, 2)
    rows = [("A", "S", wrong), ("B", "A", wrong), (None, "A", wrong), ("A", None, None)]

    times, found = corrected(uri, rows)

    right = datetime(2021, 5, 1, 9)
    assert times == [right, wrong, right, None]  # a location counts where no deployment is known
    assert found.counts == {KIND: 1, "times_corrected": 2}
    assert found.examples(KIND) == ["A (+7790 days, 9:00:00: 2 images)"]


def test_periods_are_by_the_wrong_clock_and_days_are_whole(write: Write) -> None:
    uri = write(
        "deployment,from,to,shift\nA,2021-05-02,2021-05-03,1:00\nA,2021-05-04 00:00:00,,-1:00\n"
    )
    given = [
        datetime(2021, 5, 1, 23, 59, 59),
        datetime(2021, 5, 2),
        datetime(2021, 5, 3, 23, 59, 59, 999_999),
        datetime(2021, 5, 4),
    ]
    times, found = corrected(uri, [("A", None, time) for time in given])
    assert [new - old for new, old in zip(times, given, strict=True)] == [
        0 * HOUR,
        HOUR,
        HOUR,
        -HOUR,
    ]
    assert found.counts["times_corrected"] == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("site,shift\nA,1:00\n", r"columns are site, shift; expected deployment"),
        ("deployment,shift\nA,soon\n", r"line 2: 'soon' is not a shift; write for example -1:00"),
        ("deployment,shift\nA,12\n", r"line 2: '12' is not a shift"),
        ("deployment,shift\nA,\n", r"line 2: give either shift, or wrong and right"),
        ("deployment,wrong,right\nA,2021-05-01 12:00:00,\n", r"line 2: give both wrong and right"),
        ("deployment,from,shift\nA,1.5.2021,1:00\n", r"line 2: '1.5.2021' is not a time"),
        ("deployment,shift\n,1:00\n", r"line 2 names no deployment"),
        ("deployment,shift\nA,1:00\nB,1:00\nA,2:00\n", r"lines 2 and 4 both correct 'A'"),
        ("deployment,from,to,shift\nA,2021-05-02,2021-05-01,1:00\n", r"from .* is after to"),
        ("deployment,shift\n", r"no correction below the header"),
    ],
)
def test_a_line_that_cannot_be_followed_is_named(write: Write, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_clock_corrections(write(text))


def test_corrections_that_change_nothing_are_an_error(write: Write) -> None:
    uri = write("deployment,shift\nC,1:00\n")
    with pytest.raises(
        ConfigError, match=r"no image is of .* 'C'; deployments of the source: A, B"
    ):
        corrected(uri, [("A", None, NOON), ("B", None, NOON)])


@pytest.mark.parametrize("shift", ["+999999999999d", "-99999999999999999h", "+40000d", "+1:75"])
def test_a_shift_that_no_clock_is_wrong_by_is_an_error_of_its_line(
    write: Write, shift: str
) -> None:
    with pytest.raises(ConfigError, match=r"line 2: .* is not a shift"):
        read_clock_corrections(write(f"deployment,shift\nA,{shift}\n"))


def test_a_pair_a_century_apart_is_an_error_of_its_line(write: Write) -> None:
    uri = write("deployment,wrong,right\nA,1021-05-01 12:00:00,2021-05-01 12:00:00\n")
    with pytest.raises(ConfigError, match=r"line 2: .* more than 100 years apart"):
        read_clock_corrections(uri)


@pytest.mark.parametrize(("time", "shift"), [("9999-12-31", "+2d"), ("0001-01-01", "-2d")])
def test_a_corrected_time_can_always_be_read_again(write: Write, time: str, shift: str) -> None:
    uri = write(f"deployment,shift\nA,{shift}\n")
    with pytest.raises(ConfigError, match=r"'A'.* years 1 to 9999"):
        corrected(uri, [("A", None, datetime.fromisoformat(time))])


def test_a_line_that_changes_no_image_is_a_finding_beside_those_that_do(write: Write) -> None:
    uri = write("deployment,shift\nA,1:00\nB1,1:00\n")
    times, found = corrected(uri, [("A", None, NOON), ("B", None, NOON)])
    assert times == [NOON + HOUR, NOON]
    assert found.counts == {KIND: 2, "times_corrected": 1, "clock_corrections_without_images": 1}
    assert found.examples("clock_corrections_without_images") == ["B1 (line 3: +1:00:00)"]


def test_a_column_of_locations_corrects_every_camera_there(write: Write) -> None:
    uri = write("Location, Shift\nS,1:00\n")
    rows = [("A", "S", NOON), (None, "S", NOON), ("S", "T", NOON), ("S", None, NOON)]
    assert corrected(uri, rows)[0] == [NOON + HOUR, NOON + HOUR, NOON, NOON]


@pytest.mark.parametrize("header", ["deployment,location,shift", "shift", "deployment,Deployment"])
def test_a_table_names_cameras_in_one_way(write: Write, header: str) -> None:
    with pytest.raises(ConfigError, match=r"expected deployment or location"):
        read_clock_corrections(write(f"{header}\n{','.join('A' * (header.count(',') + 1))}\n"))
