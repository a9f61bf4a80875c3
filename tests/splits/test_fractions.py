import pytest

from ctc_ray.errors import ConfigError
from ctc_ray.splits.fractions import cumulative_shares


def test_split_with_share_zero_is_left_out():
    assert cumulative_shares({"a": 0.25, "none": 0, "b": 0.75}) == (["a", "b"], [0.25, 1.0])


def test_shares_add_up_to_one():
    with pytest.raises(ConfigError, match=r"add up to 0\.9, not to 1"):
        cumulative_shares({"a": 0.9})
