from collections import defaultdict

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctc_ray.predictions.regroup import group_by_values, match_images, rows_of

TEXT = pa.large_string()
NO_TIME = pa.timestamp("us")

words = st.one_of(st.none(), st.text("a|?\\é", max_size=3))


@given(st.lists(st.tuples(words, words), min_size=1, max_size=30))
def test_equal_values_and_nothing_else_make_equal_ids(values):
    """? and | may stand in a value, too: null and "?" are two events, ("a|", "") and ("a", "|")."""
    n_images = len(values)
    columns = {name: pa.array([v[i] for v in values], TEXT) for i, name in enumerate("xy")}
    uris = pa.array([f"{n}.jpg" for n in range(n_images)], TEXT)
    found = group_by_values(columns, pa.nulls(n_images, NO_TIME), uris)
    ids = [found.event_ids[event].as_py() for event in found.events]
    assert sorted(found.rows.tolist()) == list(range(n_images))
    assert len(found.event_ids) == len(set(ids)) == len(set(values))
    of_id = defaultdict(set)
    for row, event_id in zip(found.rows.tolist(), ids, strict=True):
        of_id[event_id].add(values[row])
    assert all(len(own) == 1 for own in of_id.values())


times = st.one_of(st.none(), st.integers(0, 3))


@given(st.lists(st.tuples(st.sampled_from("ab"), times), min_size=1, max_size=20),
       st.randoms(use_true_random=False))  # fmt: skip
def test_images_of_an_event_are_by_time_then_by_name_whatever_their_order(images, random):
    named = [(event, time, f"ü{n}.jpg") for n, (event, time) in enumerate(images)]
    random.shuffle(named)
    events, when, uris = zip(*named, strict=True)
    found = group_by_values(
        {"event": pa.array(events, TEXT)}, pa.array(when, NO_TIME), pa.array(uris, TEXT)
    )
    expected = sorted(named, key=lambda i: (i[0], i[1] is None, i[1] or 0, i[2].encode()))
    assert [named[row] for row in found.rows.tolist()] == expected


def test_an_image_that_is_there_twice_counts_once_per_event():
    uris = pa.array(["a", "b", "a", "a"], TEXT)
    found = group_by_values({"e": pa.array(["x", "x", "x", "y"], TEXT)}, pa.nulls(4, NO_TIME), uris)
    assert (found.n_repeated, found.rows.tolist(), found.events.tolist()) == (
        1,
        [0, 1, 3],
        [0, 0, 1],
    )


@given(st.lists(st.text("aé", max_size=3)), st.lists(st.text("aé", max_size=3)))
def test_the_first_row_of_each_text_is_found(values, among):
    found = rows_of(pa.chunked_array([values], pa.string()), pa.chunked_array([among], pa.string()))
    assert found.tolist() == [among.index(v) if v in among else -1 for v in values]


def images(*rows: tuple[str, str]) -> pa.Table:
    ids, uris = zip(*rows, strict=True)
    return pa.table({"image_id": ids, "image_uri": uris})


def test_an_image_is_found_by_its_id_or_else_by_its_name():
    predicted = images(("1", "a"), ("2", "b"), ("3", "b"), ("4", "c"))
    named = images(("3", "b"), ("9", "c"), ("8", "b"), ("7", "z"), ("1", "renamed"))
    assert match_images(named, predicted).tolist() == [2, 3, 1, -1, 0]


@pytest.mark.parametrize("n_images", [0, 1])
def test_few_images(n_images):
    none = pa.array(["x"] * n_images, TEXT)
    found = group_by_values({"e": none}, pa.nulls(n_images, NO_TIME), none)
    assert len(found.event_ids) == len(found.rows) == n_images
