import pytest

from ctc_ray.config.base import build
from ctc_ray.config.show import ShowConfig
from ctc_ray.errors import ConfigError


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "uri is required"),
        ({"uri": "d", "contact_sheet": "sheet.jpg"}, r"'sheet.jpg': .* ends in \.png"),
        ({"uri": "d", "images": 0}, "images is 0"),
        ({"uri": "d", "images": 10_000, "tile": 300}, "10000 images in 8 columns .* too large"),
    ],
)
def test_wrong_values_are_told(values: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(ShowConfig, values, where="show")


def test_as_many_images_as_fit_can_be_drawn() -> None:
    config = build(ShowConfig, {"uri": "d", "contact_sheet": "A.PNG", "images": 960}, where="show")
    assert (config.images, config.columns, config.tile) == (960, 8, 160)
