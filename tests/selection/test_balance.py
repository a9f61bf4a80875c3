import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctc_ray.errors import ConfigError
from ctc_ray.selection.balance import Limit, balanced


def rows_of(events):
    """Of (event, class, split), two images each."""
    twice = [event for event in events for _ in range(2)]
    table = pa.table(
        {
            "capture_event_id": pa.array([e[0] for e in twice], pa.string()),
            "label_s": pa.array([e[1] for e in twice], pa.string()),
        }
    )
    return table, pa.array([e[2] for e in twice], pa.string())


events = st.dictionaries(
    st.text("abc", min_size=1, max_size=4),
    st.tuples(st.sampled_from(["x", "y", None]), st.sampled_from(["train", "val"])),
    max_size=25,
).map(lambda found: [("first", "x", "train"), *((k, *v) for k, v in found.items())])


@given(events, st.randoms(), st.sampled_from([1, 3, "rarest"]))
def test_whole_events_stay_whatever_the_order(events, random, most):
    limit = Limit("s", most)
    kept = set()
    for _ in range(2):
        rows, splits = rows_of(events)
        stays = balanced(rows, splits, limit)
        assert (stays[::2] == stays[1::2]).all()
        now = {event[0] for event, stay in zip(events, stays[::2], strict=True) if stay}
        assert not kept or now == kept
        kept = now
        random.shuffle(events)
    counts = {c: sum(e[1:] == (c, "train") for e in events) for c in ("x", "y")}
    allowed = min(n for n in counts.values() if n) if most == "rarest" else most
    for name, n in counts.items():
        left = sum(e[1:] == (name, "train") and e[0] in kept for e in events)
        assert left == min(n, allowed)
    assert all(e[0] in kept for e in events if e[1] is None or e[2] == "val")


def test_split_that_is_not_there_is_an_error():
    with pytest.raises(ConfigError, match="'test' is no split with images; splits are train"):
        balanced(*rows_of([("e", "x", "train")]), Limit("s", 1, splits=("test",)))
