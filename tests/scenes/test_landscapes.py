"""Drawn landscapes: one per location."""

import numpy as np

from ctc_ray.scenes.landscapes import draw_landscape

SIZE = (160, 120)


def test_a_location_always_looks_the_same() -> None:
    before = np.asarray(draw_landscape(3, SIZE))
    draw_landscape.cache_clear()
    assert np.array_equal(np.asarray(draw_landscape(3, SIZE)), before)


def test_locations_differ_in_colour_and_shape() -> None:
    views = [np.asarray(draw_landscape(k, SIZE), float) for k in range(8)]
    differences = [np.abs(views[i] - views[j]).mean() for i in range(8) for j in range(i)]
    assert min(differences) > 10


def test_the_sky_is_brighter_and_smoother_than_the_ground() -> None:
    for location in range(8):
        view = np.asarray(draw_landscape(location, SIZE), float).mean(axis=2)
        sky, ground = view[:8], view[-40:]
        assert np.median(sky) > np.median(ground)


def test_size_is_width_and_height() -> None:
    assert draw_landscape(0, (64, 48)).size == (64, 48)
