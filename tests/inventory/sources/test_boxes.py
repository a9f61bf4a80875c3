"""Boxes stay with their image, in their order; null is not an empty list."""

import numpy as np
import pyarrow as pa

from ctc_ray.inventory.events.assemble import TEXT
from ctc_ray.inventory.sources.boxes import box_lists, is_beyond_image, parse_boxes
from ctc_ray.schemas import BOX


def test_image_without_box_has_an_empty_list_and_an_unsearched_image_null():
    boxes = np.array([[0.5, 0.5, 0.25, 0.5], [0, 0, 1, 1]])
    names = pa.array(["fox", "dog"], TEXT)

    lists = box_lists(np.array([2, 0]), boxes, names, None, np.array([True, True, True, False]))

    assert lists.type == pa.list_(BOX)
    dog, nothing, fox, unknown = lists.to_pylist()
    assert (nothing, unknown) == ([], None)
    assert dog == [{"category": "dog", "confidence": None, "x": 0, "y": 0, "w": 1, "h": 1}]
    assert [box["category"] for box in fox] == ["fox"]


def test_only_four_finite_numbers_are_a_box():
    bad = [None, [], [1, 2, 3], [1, 2, 3, "x"], [1, 2, 3, float("inf")], "1234", [1, 2, 3, True]]
    assert np.isnan(parse_boxes(bad)).all()
    assert parse_boxes([[1, 2, 3, 4.5], ["1", "2", 3, "4.5"]]).tolist() == [[1, 2, 3, 4.5]] * 2


def test_box_that_leaves_the_image_or_has_no_area_is_found():
    boxes = np.array([[0, 0, 1, 1], [0.5, 0, 0.6, 0.1], [-0.1, 0, 0.5, 0.5], [0.1, 0.1, 0, 0.1]])
    assert is_beyond_image(boxes).tolist() == [False, True, True, True]
