import pytest

from ctc_ray.config.base import build
from ctc_ray.config.training import TrainConfig
from ctc_ray.config.tuning import TuneConfig
from ctc_ray.errors import ConfigError, UsageError


def config(**values) -> TrainConfig:
    base = {"dataset_uri": "dataset", "output_uri": "bundle", "heads": ["species", "count"]}
    return build(TrainConfig, {**base, **values}, where="test")


def test_defaults_are_todays_practice():
    made = config()
    assert (made.optimizer.name, made.schedule.name, made.augment.colour) == (
        "adamw", "cosine", "standard",
    )  # fmt: skip
    assert made.schedule.warmup_epochs == 1
    assert made.augment.gray > 0
    assert (made.batch_size, made.image_choice) == (128, "random")


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ("true", True),
        ("False", False),
        (True, True),
        ("weights/a.safetensors", "weights/a.safetensors"),
    ],
)
def test_pretrained_is_a_switch_or_a_file(given, taken):
    assert config(model={"pretrained": given}).model.pretrained is taken


def test_pretrained_of_another_kind_is_refused():
    with pytest.raises(ConfigError, match=r"model\.pretrained"):
        config(model={"pretrained": 5})


def test_weights_are_given_to_heads_that_are_learnt():
    assert config(loss_weights={"count": 0.5}).loss_weights == {"count": 0.5}
    with pytest.raises(ConfigError, match="loss_weights names sex; heads are species, count"):
        config(loss_weights={"sex": 1})
    with pytest.raises(ConfigError, match="loss_weights must not be negative"):
        config(loss_weights={"count": -1})
    with pytest.raises(ConfigError, match=r"loss_weights\.count is nan"):
        config(loss_weights={"count": float("nan")})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model": {"lora_rank": 4}}, "model.lora_rank needs model.pretrained"),
        (
            {"model": {"lora_rank": 4, "pretrained": True, "wise_ft": 0.5}},
            "give model.lora_rank or model.wise_ft, not both",
        ),
        ({"heads": ["a", "a"]}, "heads is .*twice"),
        ({"heads": []}, "heads is "),
        ({"sampling": "even"}, "sampling is 'even'"),
        (
            {"sampling": "balanced", "sampling_head": "sex"},
            "sampling_head is sex; heads are species, count",
        ),
        ({"stack_first_3": True}, "stack_first_3 needs image_choice stack"),
        ({"sampling_head": "count"}, "sampling_head needs sampling balanced or square-root"),
        ({"augment": {"crop": 0.6}}, "augment.crop is 0.6"),
        ({"augment": {"rotate": 181}}, "augment.rotate is 181"),
        ({"augment": {"colour": "much"}}, "augment.colour is 'much'"),
        ({"optimizer": {"learning_rate": 0}}, "optimizer.learning_rate is 0"),
        ({"optimizer": {"name": "lion"}}, "optimizer.name is 'lion'"),
        ({"optimizer": {"name": "adamw", "nesterov": True}}, "nesterov needs optimizer.name sgd"),
        ({"monitor": "val_accuracy_sex"}, "monitor is val_accuracy_sex; metrics are val_loss,"),
        ({"schedule": {"factor": 1}}, "schedule.factor is 1"),
        ({"model": {"image_size": 8}}, "model.image_size is 8"),
        ({"seed": -1}, "seed is -1"),
        ({"learning_rate": 1}, "learning_rate is not a setting"),
    ],
)
def test_values_out_of_range_are_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        config(**values)


def test_what_says_where_and_how_long_a_training_runs_is_not_part_of_the_work():
    work = config().result_fields()
    assert config(decode_threads=9, cpu_per_worker=3, workers="2:8").result_fields() == work
    assert config(max_epochs=99, early_stopping_patience=3).result_fields() == work
    assert config(batch_size=7).result_fields() != work


def test_a_range_of_workers_is_two_numbers():
    assert [config(workers=given).workers for given in (3, "3", "3:3", "2:8")] == [3, 3, 3, "2:8"]
    assert [config(workers=given).workers_range for given in (3, "2:8")] == [(3, 3), (2, 8)]


@pytest.mark.parametrize("given", [0, -1, "0:2", "3:2", "2:", ":2", "many", "1.5", True, "1:2:3"])
def test_other_numbers_of_workers_are_refused(given: object):
    with pytest.raises(UsageError, match="a number such as 4, or a range such as 2:8"):
        config(workers=given)


def test_the_dataset_and_the_heads_of_a_search_are_those_of_its_trainings():
    named = {"dataset_uri": "d", "heads": ["species"]}
    space = {"seed": {"choice": [1, 2]}}
    short = build(TuneConfig, {"output_uri": "out", "space": space, **named}, where="test")
    long = build(TuneConfig, {"output_uri": "out", "space": space, "train": named}, where="test")
    assert short == long
    assert short.train == named


def test_how_many_trials_run_at_once_is_not_part_of_the_work():
    base = {"output_uri": "out", "train": {}, "space": {"seed": {"choice": [1]}}}
    one, many = (
        build(TuneConfig, {**base, "concurrent_trials": n}, where="test").result_fields()
        for n in (1, 4)
    )
    assert one == many
