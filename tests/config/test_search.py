import pytest

from ctc_ray.config.search import Dimension, nested, parse_space, train_config
from ctc_ray.config.tuning import TuneConfig
from ctc_ray.errors import ConfigError


def config(space: dict[str, object], **train: object) -> TuneConfig:
    return TuneConfig.model_validate(
        {
            "output_uri": "out",
            "train": {"dataset_uri": "d", "heads": ["species", "count"], **train},
            "space": space,
        }
    )


def test_dotted_and_nested_names_are_the_same() -> None:
    dotted = parse_space(config({"optimizer.learning_rate": {"loguniform": [0.001, 0.1]}}))
    deep = parse_space(config({"optimizer": {"learning_rate": {"loguniform": [0.001, 0.1]}}}))
    assert dotted == deep
    assert dotted == {"optimizer.learning_rate": Dimension("loguniform", (0.001, 0.1))}


def test_sample_is_laid_over_the_train_configuration() -> None:
    base = config({"batch_size": {"choice": [8]}}, loss_weights={"species": 2})
    made = train_config(base, {"loss_weights.count": 0.5, "batch_size": 8}, output_uri="o")
    assert made.loss_weights == {"species": 2, "count": 0.5}
    assert (made.batch_size, made.output_uri) == (8, "o")


def test_a_head_with_a_dot_in_its_name_has_a_loss_weight() -> None:
    base = config(
        {"loss_weights.a.b": {"uniform": [0, 1]}}, heads=["a.b", "c"], loss_weights={"a.b": 2}
    )
    assert list(parse_space(base)) == ["loss_weights.a.b"]
    assert train_config(base, {"loss_weights.a.b": 0.5}).loss_weights == {"a.b": 0.5}


def test_nested_makes_mappings_in_mappings() -> None:
    assert nested("a.b.c", 1) == {"a": {"b": {"c": 1}}}


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"batch_size": {"among": [1]}}, "batch_size.among"),
        ({"batch_size": 3}, "expected one of choice, grid"),
        ({"batch_size": {"choice": []}}, "expected a list"),
        ({"batch_size": {"choice": "abc"}}, "expected a list"),
        ({"batch_size": {"randint": [8, 2]}}, "low < high"),
        ({"batch_size": {"randint": [1.5, 4]}}, "whole numbers"),
        ({"optimizer.learning_rate": {"loguniform": [0, 1]}}, "low must be above 0"),
        ({"augment.rotate": {"uniform": [0, 500]}}, "expected 180 or less"),
        ({"augment.colour": {"choice": ["little", "lots"]}}, "colour"),
        ({"loss_weights.genus": {"uniform": [0, 1]}}, "loss_weights names genus"),
    ],
)
def test_wrong_space_is_named_before_any_trial(space: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        parse_space(config(space))
    assert "\n" not in str(error.value)
