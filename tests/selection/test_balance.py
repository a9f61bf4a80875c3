import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctc_ray.errors import ConfigError
from ctc_ray.selection.balance import ClassCap, within_class_cap


def rows_of(events):
    """Rows and splits of events (event, class, split), two images each."""
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
def test_whole_events_are_kept_in_any_row_order(events, random, most):
    cap = ClassCap("s", most)
    kept = set()
    for _ in range(2):
        rows, splits = rows_of(events)
        is_kept = within_class_cap(rows, splits, cap)
        assert (is_kept[::2] == is_kept[1::2]).all()
        now = {event[0] for event, keep in zip(events, is_kept[::2], strict=True) if keep}
        assert not kept or now == kept
        kept = now
        random.shuffle(events)
    counts = {c: sum(e[1:] == (c, "train") for e in events) for c in ("x", "y")}
    allowed = min(n for n in counts.values() if n) if most == "rarest" else most
    for name, n in counts.items():
        left = sum(e[1:] == (name, "train") and e[0] in kept for e in events)
        assert left == min(n, allowed)
    assert all(e[0] in kept for e in events if e[1] is None or e[2] == "val")


def test_unknown_split_or_head_is_an_error():
    rows, splits = rows_of([("e", "x", "train")])
    with pytest.raises(ConfigError, match="split 'test' has no image; splits are train"):
        within_class_cap(rows, splits, ClassCap("s", 1, splits=("test",)))
    with pytest.raises(ConfigError, match=r"balance\.head: head 't' not found; heads are s"):
        within_class_cap(rows, splits, ClassCap("t", 1))
