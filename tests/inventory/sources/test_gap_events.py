import datetime as dt

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from ctc_ray.inventory.sources.gap_events import group_by_gap

NOON = dt.datetime(2024, 5, 1, 12)


def at(*seconds: float | None) -> pa.Array:
    times = [None if s is None else NOON + dt.timedelta(seconds=s) for s in seconds]
    return pa.array(times, pa.timestamp("us"))


def events(
    seconds: list[float | None],
    deployments: list[str | None] | None = None,
    *,
    uris: list[str] | None = None,
    gap_s: float = 60,
    max_images: int | None = None,
) -> list[list[str]]:
    """The URIs of each event, in the order of the result."""
    names = uris or [f"{i:02d}.jpg" for i in range(len(seconds))]
    ids = None if deployments is None else pa.array(deployments, pa.string())
    found = group_by_gap(pa.array(names), at(*seconds), ids, gap_s=gap_s, max_images=max_images)
    grouped: dict[str, list[str]] = {}
    for index, event in zip(found.order, found.event_ids.to_pylist(), strict=True):
        grouped.setdefault(event, []).append(names[index])
    return list(grouped.values())


def test_the_gap_is_measured_from_the_image_before_and_its_end_belongs_to_the_event():
    assert events([0, 60, 120, 180.000001]) == [["00.jpg", "01.jpg", "02.jpg"], ["03.jpg"]]


def test_images_are_ordered_by_time_then_fraction_then_name():
    uris = ["c.jpg", "b.jpg", "a.jpg", "d.jpg"]
    assert events([1, 1, 1.25, 0], uris=uris) == [["d.jpg", "b.jpg", "c.jpg", "a.jpg"]]


def test_an_event_never_crosses_deployments():
    assert events([0, 1, 2], ["A", "B", "A"]) == [["00.jpg", "02.jpg"], ["01.jpg"]]
    assert events([0, 1, 2], [None, "B", None]) == [["01.jpg"], ["00.jpg", "02.jpg"]]


def test_an_undated_image_is_its_own_event():
    assert sorted(map(len, events([0, None, 1, None], ["A"] * 4))) == [1, 1, 2]


def test_a_long_event_is_cut():
    assert [len(e) for e in events([0, 1, 2, 3, 4, 500], max_images=2)] == [2, 2, 1, 1]


def test_no_image_gives_no_event():
    assert events([]) == []


def test_an_id_does_not_change_with_later_images_and_differs_between_deployments():
    def ids(seconds, deployment):
        uris = pa.array([f"{i}.jpg" for i in range(len(seconds))])
        deployments = pa.array([deployment] * len(seconds))
        return group_by_gap(uris, at(*seconds), deployments, gap_s=60).event_ids.to_pylist()

    assert ids([0, 1], "A")[0] == ids([0, 1, 2], "A")[0]
    assert ids([0, 1], "A")[0] != ids([0, 1], "B")[0]


images = st.lists(
    st.tuples(st.sampled_from(["A", "B", None]), st.one_of(st.none(), st.integers(0, 600))),
    max_size=25,
)


@given(images, st.integers(0, 90), st.randoms(use_true_random=False))
def test_every_image_is_in_one_event_and_the_order_of_the_input_does_not_matter(
    rows, gap_s, random
):
    def grouped(order: list[int]) -> dict[str, str]:
        uris = [f"{i}.jpg" for i in order]
        found = group_by_gap(
            pa.array(uris, pa.string()),
            at(*(rows[i][1] for i in order)),
            pa.array([rows[i][0] for i in order], pa.string()),
            gap_s=gap_s,
        )
        assert sorted(found.order.tolist()) == list(range(len(rows)))
        return {uris[p]: e for p, e in zip(found.order, found.event_ids.to_pylist(), strict=True)}

    order = list(range(len(rows)))
    shuffled = order.copy()
    random.shuffle(shuffled)
    first = grouped(order)
    assert first == grouped(shuffled)
    for one in order:
        for other in order:
            together = first[f"{one}.jpg"] == first[f"{other}.jpg"]
            assert not together or one == other or rows[one][0] == rows[other][0]
            assert not together or one == other or None not in (rows[one][1], rows[other][1])


def test_a_gap_of_zero_groups_images_of_one_moment():
    assert [len(e) for e in events([5, 5, 6], gap_s=0)] == [2, 1]


def test_order_is_a_permutation_of_ints():
    found = group_by_gap(pa.array(["a"]), at(0), gap_s=1)
    assert found.order.dtype == np.int64
