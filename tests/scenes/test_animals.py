"""Drawn animals differ in outline and coat."""

import numpy as np
import pytest
from PIL import Image

from ctc_ray.scenes.animals import SPECIES, draw_animal


def animal(species: str, *, stride: float = 0.2, faces_left: bool = False) -> Image.Image:
    return draw_animal(species, body_length=100, stride=stride, faces_left=faces_left)


def seen(image: Image.Image) -> np.ndarray:
    return np.asarray(image.getchannel("A")) > 127


def test_there_are_three_kinds_in_alphabetical_order() -> None:
    assert SPECIES == ("boar", "giraffe", "zebra")


@pytest.mark.parametrize("species", SPECIES)
def test_feet_are_on_the_lower_edge_and_nothing_is_cut_off(species: str) -> None:
    outline = seen(animal(species))
    assert outline[-1].any()
    assert not outline[0].any()
    assert not outline[:, 0].any()
    assert not outline[:, -1].any()


@pytest.mark.parametrize("species", SPECIES)
def test_facing_left_is_the_mirror_image(species: str) -> None:
    right, left = np.asarray(animal(species)), np.asarray(animal(species, faces_left=True))
    assert np.array_equal(left, right[:, ::-1])


@pytest.mark.parametrize("species", SPECIES)
def test_legs_move_and_the_body_does_not(species: str) -> None:
    one, other = seen(animal(species, stride=0)), seen(animal(species, stride=0.25))
    assert np.array_equal(one[: len(one) // 3], other[: len(one) // 3])
    assert not np.array_equal(one, other)


def test_a_giraffe_is_tall_a_boar_is_low_and_dark_and_a_zebra_is_striped() -> None:
    heights = {species: seen(animal(species)).any(axis=1).sum() for species in SPECIES}
    assert heights["boar"] < 0.7 * heights["zebra"] < 0.5 * heights["giraffe"]
    spread = {
        species: np.asarray(animal(species).convert("L"), float)[seen(animal(species))].std()
        for species in SPECIES
    }
    assert spread["zebra"] > 2 * spread["giraffe"] > 2 * spread["boar"]
