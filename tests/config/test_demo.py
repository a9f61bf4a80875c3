import pytest

from ctc_ray.config.base import build
from ctc_ray.config.demo import DemoConfig
from ctc_ray.errors import ConfigError


def test_the_demo_needs_no_settings():
    made = build(DemoConfig, {}, where="test")
    assert made.output_uri == "ctc-demo"
    assert made.images is None


@pytest.mark.parametrize(
    "values", [{"max_epochs": 0}, {"image_size": 15}, {"seed": -1}, {"output_uri": ""}]
)
def test_values_out_of_range_are_refused(values):
    with pytest.raises(ConfigError, match=next(iter(values))):
        build(DemoConfig, values, where="test")
