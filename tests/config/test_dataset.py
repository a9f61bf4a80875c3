import json

import pytest

from ctc_ray.config.base import build
from ctc_ray.config.dataset import CreateDatasetConfig
from ctc_ray.errors import ConfigError
from ctc_ray.runs.manifest import fingerprint


def config(**values) -> CreateDatasetConfig:
    base = {"inventory_uri": "inventory", "output_uri": "dataset", "heads": ["species"]}
    return build(CreateDatasetConfig, {**base, **values}, where="test")


def test_defaults_are_the_originals_split_and_documented_sizes():
    made = config()
    assert made.split.fractions == {"train": 0.9, "val": 0.05, "test": 0.05}
    assert (made.resize.smallest_side, made.resize.quality) == (400, 75)


@pytest.mark.parametrize(
    "fractions",
    [
        {"train": 0.7, "val": 0.2, "test": 0.1},  # 0.7 + 0.2 + 0.1 is not 1 in floating point
        {"train": 0.6, "val": 0.3, "test": 0.1},
        {"all": 1},
        {"a": 1 / 3, "b": 1 / 3, "c": 1 / 3},
        {"train": 1.0, "none": 0.0},
    ],
)
def test_fractions_that_add_up_in_decimal_are_accepted(fractions):
    assert config(split={"fractions": fractions}).split.fractions == fractions


def test_order_of_the_splits_is_part_of_the_work_and_survives_it():
    one = config(split={"fractions": {"train": 0.5, "val": 0.5}})
    other = config(split={"fractions": {"val": 0.5, "train": 0.5}})
    assert fingerprint(one.result_fields()) != fingerprint(other.result_fields())
    for made in (one, other):
        again = config(split=json.loads(json.dumps(made.result_fields()["split"], sort_keys=True)))
        assert list(again.split.fractions.items()) == list(made.split.fractions.items())


@pytest.mark.parametrize(
    ("fractions", "message"),
    [
        ({"train": 0.9, "val": 0.05}, "add up to 0.95, not to 1"),
        ({}, "add up to 0, not to 1"),
        ({"train": 1.5, "val": -0.5}, "must be between 0 and 1"),
        ({"train": float("nan"), "val": 1}, "split.fractions.train is nan"),
    ],
)
def test_other_fractions_are_refused(fractions, message):
    with pytest.raises(ConfigError, match=message):
        config(split={"fractions": fractions})


@pytest.mark.parametrize(
    ("split", "shares"),
    [
        ({"folds": 4}, {"fold-0": 0.25, "fold-1": 0.25, "fold-2": 0.25, "fold-3": 0.25}),
        (
            {"folds": "2", "fractions": {"test": "0.5"}},
            {"fold-0": 0.25, "fold-1": 0.25, "test": 0.5},
        ),
        ({"folds": 2, "fractions": [["a", 0.25]]}, {"fold-0": 0.375, "fold-1": 0.375, "a": 0.25}),
    ],
)
def test_folds_share_evenly_what_other_splits_leave(split, shares):
    made = config(split=split)
    assert made.split.fractions == shares
    assert made.split.by == "location"
    assert config(split={**split, "by": "event"}).split.by == "event"
    assert made.replaced() == made
    assert config(split=json.loads(json.dumps(made.result_fields()["split"]))) == made


@pytest.mark.parametrize("n_folds", [3, 7, 10, 49])
def test_any_number_of_folds_adds_up(n_folds):
    fractions = config(split={"folds": n_folds, "fractions": {"test": 0.1}}).split.fractions
    assert list(fractions) == [*(f"fold-{k}" for k in range(n_folds)), "test"]
    assert sum(fractions.values()) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ({"folds": 1}, "split.folds is 1"),
        ({"folds": "five"}, "split.folds is 'five'"),
        ({"folds": 3, "fractions": {"test": "a"}}, "split.fractions.test is 'a'"),
        ({"folds": 3, "fractions": 0.1}, "split.fractions is 0.1"),
        ({"folds": 3, "fractions": {"test": 1}}, "split.fractions leave nothing for split.folds"),
        ({"folds": 3, "fractions": {"test": 1.5}}, "must be between 0 and 1|leave nothing"),
        ({"folds": 3, "by": "meta:site"}, "give split.folds or split.by meta:FIELD"),
    ],
)
def test_folds_that_cannot_be_are_refused(split, message):
    with pytest.raises(ConfigError, match=message):
        config(split=split)


@pytest.mark.parametrize("by", ["event", "location", "meta:season", "meta: a b"])
def test_ways_to_split(by):
    assert config(split={"by": by}).split.by == by


@pytest.mark.parametrize("by", ["site", "meta:", "events", ""])
def test_other_ways_to_split_are_refused(by):
    with pytest.raises(ConfigError, match=r"split\.by is "):
        config(split={"by": by})


@pytest.mark.parametrize(
    "values",
    [
        {"heads": ["a", "a"]},
        {"resize": {"quality": 101}},
        {"resize": {"smallest_side": 0}},
        {"max_failure_fraction": 1.1},
        {"images_per_unit": 0},
        {"check": 0},
        {"observations": "last"},
    ],
)
def test_values_out_of_range_are_refused(values):
    with pytest.raises(ConfigError, match=next(iter(values))):
        config(**values)


def test_how_fast_it_is_done_is_not_part_of_the_work():
    work = config().result_fields()
    assert config(threads_per_task=9, max_failure_fraction=1, check=7).result_fields() == work
    assert config(images_per_unit=9).result_fields() != work


def test_filters_name_head_and_class():
    assert config(filter={"keep": ["species=a=b"]}).filter.keep == ("species=a=b",)
    for item in ("species", "=lion", "species="):
        with pytest.raises(ConfigError, match="not written as head=class"):
            config(filter={"remove": [item]})


def test_balance_takes_a_number_or_the_rarest():
    assert config(balance={"head": "species", "max_events_per_class": 5}).balance.head == "species"
    for wrong in (0, "most"):
        with pytest.raises(ConfigError, match="max_events_per_class"):
            config(balance={"max_events_per_class": wrong})
