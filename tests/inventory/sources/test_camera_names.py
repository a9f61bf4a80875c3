"""The order in which a camera took images of one second, and the folders that it makes."""

import random

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctc_ray.inventory.sources.camera_names import first_numbered_folders, in_camera_order
from ctc_ray.inventory.sources.gap_events import group_by_gap


def ordered(paths: list[str]) -> list[str]:
    in_bytes = pa.array(sorted(paths, key=str.encode), pa.large_string())
    return in_bytes.take(pa.array(in_camera_order(in_bytes, np.array([0])))).to_pylist()


@pytest.mark.parametrize(
    "taken",
    [
        ["IMG_8.JPG", "IMG_9.JPG", "IMG_10.JPG", "IMG_11.JPG"],
        ["IMG_9998.JPG", "IMG_9999.JPG", "IMG_0001.JPG", "IMG_0002.JPG"],
        ["S/100EK113/IMG_9999.JPG", "S/101EK113/IMG_0001.JPG", "S/101EK113/IMG_0002.JPG"],
        ["S\\100EK113\\9.jpg", "S\\100EK113\\10.jpg", "S\\101EK113\\1.jpg"],
        ["2_9.jpg", "2_10.jpg", "10_1.jpg"],
        ["x9.b2.jpg", "x10.b2.jpg"],
        ["IMG_0009.JPG", "IMG_0010.jpg", "IMG_0011.JPG"],
    ],
)
def test_images_of_one_second_are_in_the_order_of_the_counter(taken: list[str]) -> None:
    assert ordered(taken) == taken


@given(
    st.integers(0, 9999),
    st.integers(1, 40),
    st.sampled_from(["IMG_{:04d}.JPG", "a/{:04d}", "RCNX{:04d}_x.jpg"]),
    st.randoms(use_true_random=False),
)
def test_a_counter_that_begins_again_is_followed(
    first: int, n: int, name: str, random: random.Random
) -> None:
    taken = [name.format((first + k) % 10_000) for k in range(n)]
    shuffled = taken.copy()
    random.shuffle(shuffled)
    assert ordered(shuffled) == taken


@given(st.lists(st.text(st.sampled_from("a/\\_.019é"), max_size=12), min_size=1, unique=True))
def test_any_names_are_put_in_one_order(names: list[str]) -> None:
    assert sorted(ordered(names)) == sorted(names)
    assert ordered(names) == ordered(names[::-1])


def test_runs_are_ordered_each_by_itself() -> None:
    paths = pa.array(["2.jpg", "9.jpg", "10.jpg", "9.jpg", "7.jpg"], pa.large_string())
    assert in_camera_order(paths, np.array([0, 1, 3, 4])).tolist() == [0, 1, 2, 3, 4]
    paths = pa.array(["10.jpg", "9.jpg", "10.jpg", "9.jpg"], pa.large_string())
    assert in_camera_order(paths, np.array([0, 2])).tolist() == [1, 0, 3, 2]


def test_folders_of_one_camera_are_known_by_their_letters() -> None:
    folders = [
        "A/DCIM/101EK113",
        "A/DCIM/100EK113",
        "A/DCIM/100_BTCF",
        "B/101EK113",
        "C",
        "099EK113",
    ]
    assert first_numbered_folders(folders) == {
        "A/DCIM/101EK113": "A/DCIM/100EK113",
        "A/DCIM/100EK113": "A/DCIM/100EK113",
        "A/DCIM/100_BTCF": "A/DCIM/100_BTCF",
        "B/101EK113": "B/101EK113",
        "C": "C",
        "099EK113": "099EK113",  # numbers begin at 100
    }


def grouped(events: list[int | None], frames: list[int | None], seconds: list[int]) -> list[str]:
    """Event ids of images of one camera, renamed a, b, … in the order of time."""
    n = len(seconds)
    found = group_by_gap(
        pa.array([f"{k:04d}.jpg" for k in range(n)]),
        pa.array(np.array(seconds, "datetime64[s]").astype("datetime64[us]")),
        pa.array(["A"] * n),
        gap_s=60,
        triggers={"event": pa.array(events, pa.int64()), "frame": pa.array(frames, pa.int64())},
    )
    ids = found.event_ids.to_pylist()
    letters = {one: "abcdefgh"[k] for k, one in enumerate(dict.fromkeys(ids))}
    return [letters[ids[found.order.tolist().index(k)]] for k in range(n)]


def test_event_numbers_of_the_camera_decide_and_not_the_gap() -> None:
    assert grouped([5, 5, 5, 6, 6], [1, 2, 3, 1, 2], [0, 1, 2, 3, 4]) == list("aaabb")
    assert grouped([5, 5], [1, 2], [0, 500]) == list("aa")  # a long series
    assert grouped([1, 1], [1, 1], [0, 30]) == list("ab")  # the camera was reset
    assert grouped([8, 9], [0, 0], [0, 1]) == list("ab")  # no series
    assert grouped([5, None, None], [1, None, None], [0, 30, 50]) == list("aaa")


def test_frames_of_one_second_are_in_the_order_that_the_camera_wrote() -> None:
    found = group_by_gap(
        pa.array(["1.jpg", "2.jpg", "3.jpg"]),
        pa.array(np.zeros(3, "datetime64[us]")),
        gap_s=60,
        triggers={"event": pa.array([7, 7, 7]), "frame": pa.array([3, 1, 2])},
    )
    assert found.order.tolist() == [1, 2, 0]
    assert len(set(found.event_ids.to_pylist())) == 1
