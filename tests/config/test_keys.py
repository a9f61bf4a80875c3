from ctc_ray.config.base import Config
from ctc_ray.config.keys import is_dict, known_keys, option_name, submodel


class Lens(Config):
    """A part."""

    maker: str = "ours"
    """Name."""


class Camera(Config):
    """A whole."""

    lens: Lens = Lens()
    """Lens."""
    weights: dict[str, float] | None = None
    """Weights."""


def test_options_are_kebab_case_with_dots() -> None:
    assert option_name("output_uri") == "--output-uri"
    assert option_name("optimizer.learning_rate") == "--optimizer.learning-rate"


def test_a_part_is_found_also_where_it_may_be_absent() -> None:
    assert submodel(Lens) is Lens
    assert submodel(Lens | None) is Lens
    assert submodel(str | None) is None
    assert submodel(tuple[str, ...]) is None


def test_keys_of_parts_are_dotted() -> None:
    assert list(known_keys(Camera)) == ["lens", "lens.maker", "weights"]


def test_a_mapping_is_found_also_where_it_may_be_absent() -> None:
    assert is_dict(dict[str, float])
    assert is_dict(dict[str, float] | None)
    assert not is_dict(tuple[str, ...])
