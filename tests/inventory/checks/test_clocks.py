import itertools
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctc_ray.inventory.checks.clocks import check_clocks
from ctc_ray.inventory.findings import Findings

NOW = datetime(2024, 6, 1, 12, tzinfo=UTC)


def clocks(table: pa.Table) -> Findings:
    """The findings of `check_clocks`; a camera is a pair of location and deployment."""
    pairs = list(
        zip(*(table[n].to_pylist() for n in ("location_id", "deployment_id")), strict=True)
    )
    known = sorted({pair for pair in pairs if pair != (None, None)}, key=repr)
    cameras = [known.index(pair) if pair in known else -1 for pair in pairs]
    uris, times = (table[name].combine_chunks() for name in ("image_uri", "captured_at"))
    return check_clocks(uris, times, np.array(cameras, np.int32), now=NOW)


def dated(rows: list[tuple[str, str | None]], **cameras: list[str | None]) -> pa.Table:
    """A table of rows (file name, time).

    Args:
        cameras: `location` and `deployment` of each row.
    """
    empty = [None] * len(rows)
    times = np.array([time or "NaT" for _, time in rows], "datetime64[us]")
    return pa.table(
        {
            "image_uri": pa.array([name for name, _ in rows]),
            "location_id": pa.array(cameras.get("location", empty), pa.string()),
            "deployment_id": pa.array(cameras.get("deployment", empty), pa.string()),
            "captured_at": pa.array(times),
        }
    )


def test_time_that_jumps_back_by_more_than_a_day_is_listed_once():
    rows = [
        ("img9.jpg", "2021-05-10T12:00:00"),
        ("img10.jpg", "2021-05-11T12:00:00"),
        ("img11.jpg", "2021-05-10T12:00:00"),  # exactly a day
        ("img12.jpg", None),
        ("img13.jpg", "2021-05-09T11:59:59"),
        ("img14.jpg", "2021-05-09T12:00:00"),
    ]

    found = clocks(dated(rows, deployment=["A"] * 6))

    assert found.counts == {"clock_resets": 1}
    assert found.examples("clock_resets") == [
        "img13.jpg (2021-05-09 11:59:59 after 2021-05-10 12:00:00)"
    ]


def test_clocks_of_different_cameras_are_not_compared():
    rows = [("a1.jpg", "2021-05-10"), ("a2.jpg", "2021-01-01")]

    assert clocks(dated(rows)).counts == {}
    assert clocks(dated(rows, deployment=["A", "B"])).counts == {}
    assert clocks(dated(rows, deployment=["A", "A"], location=["K", "L"])).counts == {}
    assert clocks(dated(rows, location=["K", "K"])).counts == {"clock_resets": 1}


def test_web_addresses_have_no_order():
    rows = [("https://a/1.jpg", "2021-05-10"), ("https://a/2.jpg", "2021-01-01")]

    assert clocks(dated(rows, deployment=["A", "A"])).counts == {}


def test_times_where_clocks_start_are_listed_in_any_order():
    days = ["1970-01-01", "1999-12-31", "2000-01-01T23:00", "2000-01-02", "2021-05-10", None]
    rows = [(f"{n}.jpg", day) for n, day in enumerate(days)]

    found = clocks(dated(rows))

    assert found.table()["row"].to_pylist() == ["0.jpg", "1.jpg", "2.jpg"]
    assert clocks(dated([("a", None)])).counts == {}


clock_rows = st.lists(
    st.tuples(st.integers(0, 40), st.sampled_from("AB"), st.integers(0, 9)),
    unique_by=lambda row: row[0],
    min_size=1,
)


@given(clock_rows, st.randoms())
def test_jumps_are_found_in_any_order_of_the_rows(rows, random):
    def jumps(rows):
        table = dated(
            [(f"x{n}.jpg", f"2021-05-{day + 1:02}") for n, _, day in rows],
            deployment=[camera for _, camera, _ in rows],
        )
        return sorted(clocks(table).table()["row"].to_pylist())

    expected = []
    for camera in "AB":
        mine = sorted((n, day) for n, name, day in rows if name == camera)
        pairs = itertools.pairwise(mine)
        expected += [f"x{n}.jpg" for (_, before), (n, day) in pairs if day < before - 1]
    shuffled = random.sample(rows, len(rows))
    assert jumps(shuffled) == sorted(expected)


@pytest.mark.parametrize(
    ("names", "n_jumps"),
    [
        (("100EK113/IMG_9999.JPG", "101EK113/IMG_0001.JPG"), 1),  # the next folder of a camera
        (("100EK113/IMG_0001.JPG", "101MEDIA/IMG_0002.JPG"), 0),  # a folder of another camera
        (("A\\100EK113\\IMG_9999.JPG", "A\\101EK113\\IMG_0001.JPG"), 1),
        (("cam1/IMG_0001.JPG", "cam2/IMG_0002.JPG"), 0),
        (("May/IMG_0900.JPG", "January/IMG_0001.JPG"), 0),  # another folder
        (("A/IMG_0001.JPG", "A/PICT0002.JPG"), 0),
        (("A/IMG_0001.JPG", "A/IMG_0002.jpeg"), 0),
        (("A/IMG_0001.JPG", "A/IMG_0002.JPG"), 1),
    ],
)
def test_only_names_that_a_camera_has_numbered_are_compared(names, n_jumps):
    rows = list(zip(names, ("2021-05-10", "2021-01-01"), strict=True))

    for order in (rows, rows[::-1]):
        found = clocks(dated(order, location=["K", "K"]))
        assert found.counts.get("clock_resets", 0) == n_jumps


def test_jump_of_a_series_is_found_after_other_images_of_the_camera():
    rows = [
        ("A/IMG_1.JPG", "2021-05-10T12:00"),
        ("A/PICT1.JPG", "2021-05-10T00:00"),  # each time is less than a day before the time above
        ("A/IMG_2.JPG", "2021-05-09T11:00"),
    ]
    for order in itertools.permutations(rows):
        found = clocks(dated(list(order), deployment=["A"] * 3))
        assert found.table()["row"].to_pylist() == ["A/IMG_2.JPG"]
