"""What is wrong is said in the words of the user; see also `test_base.py`."""

import pytest

from ctc_ray.config.base import build
from ctc_ray.config.dataset import CreateDatasetConfig
from ctc_ray.config.keys import option_name
from ctc_ray.config.prediction import PredictConfig
from ctc_ray.config.training import TrainConfig
from ctc_ray.errors import UsageError

DATASET = {"inventory_uri": "i", "output_uri": "o", "heads": ["a"]}
TRAIN = {"dataset_uri": "d", "output_uri": "o", "heads": ["a"]}
PREDICT = {"bundle_uri": "b", "output_uri": "o", "images_uri": "i"}


@pytest.mark.parametrize(
    ("model", "values", "message"),
    [
        (PREDICT, {"export": ["xml"]}, "export is 'xml'; expected 'table', 'csv' or 'json'"),
        (PREDICT, {"batch_size": 0}, "batch_size is 0; expected more than 0"),
        (PREDICT, {"max_failure_fraction": 2}, "max_failure_fraction is 2; expected 1 or less"),
        (PREDICT, {"gpu_per_worker": -1}, "gpu_per_worker is -1; expected 0 or more"),
        (PREDICT, {"overwrite": "perhaps"}, "overwrite is 'perhaps'; expected true or false"),
        (TRAIN, {"heads": []}, "heads is empty; expected at least one value"),
        (TRAIN, {"model": {"pretrained": 5}}, "model.pretrained is 5; expected text or true or fa"),
        (TRAIN, {"loss_weights": {"a": "x"}}, "loss_weights.a is 'x'; expected a number"),
        (
            DATASET,
            {"balance": {"max_events_per_class": "few"}},
            "balance.max_events_per_class is 'few'; expected a whole number or 'rarest'",
        ),
        (DATASET, {"split": {"fractions": {"a": 0.5}}}, "split.fractions add up to 0.5, not to 1"),
        (DATASET, {"split": {"by": "site"}}, "split.by is 'site': expected event, location, "),
    ],
)
def test_a_wrong_value_is_told_with_what_is_expected(
    model: dict[str, object], values: dict[str, object], message: str
) -> None:
    models = {"inventory_uri": CreateDatasetConfig, "dataset_uri": TrainConfig}
    kind = models.get(next(iter(model)), PredictConfig)
    with pytest.raises(UsageError) as raised:
        build(kind, {**model, **values}, where="x")
    assert str(raised.value).startswith(f"x: {message}")
    assert "Input should" not in str(raised.value)


def test_a_missing_option_is_named_without_a_hint_to_itself() -> None:
    with pytest.raises(UsageError, match=r"^train: --output-uri is required; --dataset-uri is req"):
        build(TrainConfig, {"heads": ["a"]}, where="train", spelt=option_name)
