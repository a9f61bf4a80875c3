import pytest

from ctc_ray.config.search import (
    Dimension,
    base_sample,
    draw,
    n_planned,
    nested,
    parse_space,
    train_config,
)
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


@pytest.mark.parametrize(
    ("space", "train", "expected"),
    [
        ({"optimizer.learning_rate": {"loguniform": [1e-3, 0.1]}}, {},
         {"optimizer.learning_rate": 0.01}),
        ({"optimizer.learning_rate": {"loguniform": [0.02, 0.1]}}, {}, None),
        ({"optimizer.learning_rate": {"loguniform": [0.02, 0.1]}},
         {"optimizer": {"learning_rate": 0.1}}, {"optimizer.learning_rate": 0.1}),
        ({"loss_weights.count": {"loguniform": [0.1, 10]}}, {}, {"loss_weights.count": 1.0}),
        ({"loss_weights.count": {"loguniform": [0.1, 10]}}, {"loss_weights": {"count": 11}}, None),
        ({"seed": {"randint": [0, 3]}}, {"seed": 2}, {"seed": 2}),
        ({"seed": {"randint": [0, 3]}}, {"seed": 3}, None),
        ({"augment.flip": {"choice": [True, False]}}, {}, {"augment.flip": True}),
        ({"augment.mix": {"choice": ["mixup", "cutmix"]}}, {}, None),
        ({"batch_size": {"grid": [32, 64]}}, {"batch_size": 32}, None),
        ({"augment.brightness": {"uniform": [0, 0.5]},
          "augment.contrast": {"same_as": "augment.brightness"}}, {},
         {"augment.brightness": 0.2, "augment.contrast": 0.2}),
        ({"augment.brightness": {"uniform": [0, 0.5]},
          "augment.contrast": {"same_as": "augment.brightness"}},
         {"augment": {"contrast": 0.3}}, None),
        ({"augment.brightness": {"uniform": [0, 0.5]},
          "augment.hue": {"same_as": "augment.brightness", "times": 0.1}}, {},
         {"augment.brightness": 0.2, "augment.hue": 0.02}),
        ({"augment.brightness": {"uniform": [0, 0.5]},
          "augment.hue": {"same_as": "augment.brightness", "times": 0.2}}, {}, None),
        ({"optimizer.name": {"choice": ["adamw", "sgd"]},
          "optimizer.momentum": {"uniform": [0.5, 0.6], "when": {"optimizer.name": "sgd"}}}, {},
         {"optimizer.name": "adamw"}),
        ({"optimizer.name": {"choice": ["adamw", "sgd"]},
          "optimizer.momentum": {"uniform": [0.5, 0.6], "when": {"optimizer.name": "sgd"}}},
         {"optimizer": {"name": "sgd"}}, None),
    ],
)  # fmt: skip
def test_the_configuration_as_it_is_is_a_sample_where_the_space_holds_it(
    space: dict[str, object], train: dict[str, object], expected: dict[str, object] | None
) -> None:
    search = config(space, **train)
    assert base_sample(search, parse_space(search)) == expected


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
        ({"batch_size": {"same_as": "seed"}}, "depends on seed, which is not searched"),
        ({"batch_size": {"same_as": ["seed"]}}, "expected a setting"),
        ({"seed": {"randint": [0, 3], "times": 2}}, "expected a number beside same_as, found 2"),
        (
            {"seed": {"randint": [1, 3]}, "batch_size": {"same_as": "seed", "times": "2"}},
            "expected a number beside same_as, found '2'",
        ),
        (
            {
                "augment.flip": {"choice": [True, False]},
                "augment.gray": {"same_as": "augment.flip", "times": 0.5},
            },
            "times: True is no number to multiply",
        ),
        (
            {
                "augment.zoom": {"uniform": [0, 0.4]},
                "augment.rotate": {"same_as": "augment.zoom", "times": 500},
            },
            "expected 180 or less",
        ),
        ({"seed": {"choice": [1], "when": {"seed": 1}}}, "each depends on another one"),
        (
            {"seed": {"grid": [1], "when": {}}, "batch_size": {"grid": [1], "when": {"seed": 1}}},
            "a grid has no `when`",
        ),
        ({}, "expected settings to search, or --preset"),
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


def test_a_sample_depends_on_the_seed_and_its_number_alone() -> None:
    space = {
        "optimizer.learning_rate": {"loguniform": [1e-4, 1e-1]},
        "augment.rotate": {"uniform": [0, 15]},
        "batch_size": {"randint": [8, 64]},
        "augment.colour": {"choice": ["none", "standard"]},
    }
    dimensions = parse_space(config(space))
    samples = [draw(dimensions, seed=1, number=number) for number in range(400)]
    assert samples == [draw(dimensions, seed=1, number=number) for number in range(400)]
    assert samples != [draw(dimensions, seed=2, number=number) for number in range(400)]
    alone = parse_space(config({"augment.rotate": {"uniform": [0, 15]}}))
    assert draw(alone, seed=1, number=7)["augment.rotate"] == samples[7]["augment.rotate"]
    rates = sorted(sample["optimizer.learning_rate"] for sample in samples)
    assert 1e-4 <= rates[0] < 2e-4 < 3e-3 / 2 < rates[200] < 6e-3 < 5e-2 < rates[-1] < 1e-1
    assert {sample["batch_size"] for sample in samples} == set(range(8, 64))
    n_none = sum(sample["augment.colour"] == "none" for sample in samples)
    assert 150 < n_none < 250


def test_each_run_over_the_grid_covers_it_once() -> None:
    space = {
        "batch_size": {"grid": [8, 16]},
        "augment.rotate": {"uniform": [0, 15]},
        "seed": {"grid": [0, 1, 2]},
    }
    dimensions = parse_space(config(space))
    assert n_planned(dimensions, 2) == 12
    samples = [draw(dimensions, seed=0, number=number) for number in range(12)]
    for part in (samples[:6], samples[6:]):
        pairs = {(sample["batch_size"], sample["seed"]) for sample in part}
        assert pairs == {(size, seed) for size in (8, 16) for seed in (0, 1, 2)}
    assert len({sample["augment.rotate"] for sample in samples}) == 12


def test_a_setting_is_searched_only_when_another_has_a_value() -> None:
    space = {
        "optimizer.momentum": {"uniform": [0.5, 0.99], "when": {"optimizer.name": "sgd"}},
        "optimizer.name": {"choice": ["adamw", "sgd"]},
    }
    dimensions = parse_space(config(space))
    samples = [draw(dimensions, seed=0, number=number) for number in range(50)]
    assert {s["optimizer.name"] for s in samples} == {"adamw", "sgd"}
    for sample in samples:
        assert ("optimizer.momentum" in sample) == (sample["optimizer.name"] == "sgd")


def test_a_setting_may_follow_another() -> None:
    space = {
        "augment.contrast": {"same_as": "augment.brightness"},
        "augment.brightness": {"uniform": [0, 0.5]},
    }
    sample = draw(parse_space(config(space)), seed=0, number=0)
    assert sample["augment.contrast"] == sample["augment.brightness"]


def test_a_setting_may_be_a_multiple_of_another() -> None:
    space = {
        "augment.hue": {"same_as": "augment.brightness", "times": 0.1},
        "augment.brightness": {"uniform": [0, 0.5]},
    }
    samples = [draw(parse_space(config(space)), seed=0, number=number) for number in range(9)]
    assert len({sample["augment.hue"] for sample in samples}) == 9
    for sample in samples:
        assert sample["augment.hue"] == sample["augment.brightness"] * 0.1


def test_what_follows_a_setting_that_is_not_searched_has_its_own_value() -> None:
    space = {
        "augment.mix": {"choice": ["none", "mixup"]},
        "augment.gray": {"uniform": [0, 1], "when": {"augment.mix": "mixup"}},
        "augment.erase": {"same_as": "augment.gray"},
    }
    dimensions = parse_space(config(space))
    samples = [draw(dimensions, seed=0, number=number) for number in range(30)]
    assert {sample["augment.mix"] for sample in samples} == {"none", "mixup"}
    for sample in samples:
        assert ("augment.erase" in sample) == (sample["augment.mix"] == "mixup")


def test_what_follows_a_conditional_setting_is_tried_under_its_condition() -> None:
    """A bound of AdamW's is not one of SGD's."""
    space = {
        "optimizer.name": {"choice": ["adamw", "sgd"]},
        "optimizer.momentum": {"uniform": [0.5, 0.6], "when": {"optimizer.name": "sgd"}},
        "augment.gray": {"same_as": "optimizer.momentum", "times": 0.5},
    }
    dimensions = parse_space(config(space))
    samples = [draw(dimensions, seed=0, number=number) for number in range(30)]
    for sample in samples:
        assert ("augment.gray" in sample) == (sample["optimizer.name"] == "sgd")


def test_the_preset_of_augmentation_holds_the_defaults() -> None:
    values = {"output_uri": "o", "dataset_uri": "d", "heads": ["a"], "preset": "augmentation"}
    made = TuneConfig.model_validate(values)
    sample = base_sample(made, parse_space(made))
    assert sample is not None
    assert train_config(made, sample) == train_config(made, {})


@pytest.mark.parametrize("preset", ["augmentation", "loss-weights", "optimizer"])
def test_presets_are_spaces_whose_samples_are_valid(preset: str) -> None:
    made = TuneConfig.model_validate(
        {"output_uri": "out", "dataset_uri": "d", "heads": ["species", "count"], "preset": preset}
    )
    dimensions = parse_space(made)
    assert len(dimensions) >= 3
    for number in range(50):
        train_config(made, draw(dimensions, seed=0, number=number))


def test_settings_of_the_space_go_before_those_of_the_preset() -> None:
    made = TuneConfig.model_validate(
        {
            "output_uri": "out",
            "dataset_uri": "d",
            "heads": ["species"],
            "preset": "optimizer",
            "space": {"optimizer.learning_rate": {"choice": [0.5]}},
        }
    )
    assert parse_space(made)["optimizer.learning_rate"] == Dimension("choice", (0.5,))
