from datetime import datetime, timedelta

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctc_ray.errors import ConfigError
from ctc_ray.splits.by_time import split_by_time

START = datetime(2020, 1, 1, 12)
THIRDS = {"train": 0.5, "val": 0.25, "test": 0.25}


def rows_of(days):
    return pa.table(
        {
            "capture_event_id": pa.array([f"e{n}" for n in range(len(days))], pa.string()),
            "captured_at": pa.array(
                [None if d is None else START + timedelta(days=d) for d in days],
                pa.timestamp("us"),
            ),
        }
    )


def test_earliest_days_come_first():
    splits = split_by_time(rows_of([3, 0, 1, 2]), THIRDS, undated="error")
    assert splits.to_pylist() == ["test", "train", "train", "val"]


@given(st.lists(st.integers(-5, 20), max_size=40))
def test_no_day_is_in_two_splits_and_later_splits_have_later_days(days):
    splits = split_by_time(rows_of(days), THIRDS, undated="error").to_pylist()
    order = list(THIRDS)
    by_day = sorted({(day, order.index(name)) for day, name in zip(days, splits, strict=True)})
    assert len(by_day) == len(set(days))
    assert [index for _, index in by_day] == sorted(index for _, index in by_day)


def test_undated_events_follow_the_policy():
    rows = rows_of([0, 1, None, 2, 3])
    with pytest.raises(ConfigError, match="1 of 5 capture events have no time"):
        split_by_time(rows, THIRDS, undated="error")
    assert split_by_time(rows, THIRDS, undated="train")[2].as_py() == "train"
    assert split_by_time(rows, THIRDS, undated="drop")[2].as_py() is None
