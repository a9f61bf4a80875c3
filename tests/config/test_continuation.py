"""`--continue-from`: the settings of a model, below what is given."""

import json
from pathlib import Path
from typing import Any

import pytest

from ctc_ray.config.base import build
from ctc_ray.config.model import ModelConfig
from ctc_ray.config.search import train_config
from ctc_ray.config.training import TrainConfig
from ctc_ray.config.tuning import TuneConfig
from ctc_ray.errors import ConfigError, IncompleteDataError, SchemaError

OLD: dict[str, Any] = {
    "dataset_uri": "old-dataset",
    "output_uri": "old-model",
    "heads": ["species", "count"],
    "loss_weights": {"species": 1.0, "count": 0.5},
    "monitor": "val_macro_f1_count",
    "mapping_uri": "mapping.csv",
    "unmapped": "drop",
    "model": {
        "backbone": "resnet18",
        "pretrained": "older-model",
        "normalisation": "dataset",
        "freeze_epochs": 2,
        "dropout": 0.2,
    },
    "optimizer": {"name": "sgd", "learning_rate": 0.02, "momentum": 0.8},
    "schedule": {"name": "step", "step_epochs": 3},
    "augment": {"colour": "little", "rotate": 20.0},
    "batch_size": 48,
    "max_epochs": 7,
    "seed": 5,
    "workers": 8,
    "gpu_per_worker": 1.0,
    "cpu_per_worker": 4.0,
    "decode_threads": 6,
}


def write(folder: Path, **changes: Any) -> str:
    """The bundle.json of a model trained as in OLD."""
    trained = TrainConfig.model_validate(OLD).model_dump(mode="json")
    content = {
        "backbone": "resnet18",
        "classes": {"species": ["cat", "dog"], "count": ["1", "2"]},
        "image_size": 160,
        "keep_aspect": True,
        "dropout": 0.2,
        "provenance": {"config": trained},
    }
    folder.mkdir(exist_ok=True)
    (folder / "bundle.json").write_text(json.dumps(content | changes))
    return str(folder)


def new(uri: str, **values: Any) -> TrainConfig:
    given = {"dataset_uri": "dataset", "output_uri": "model", "continue_from": uri, **values}
    return build(TrainConfig, given, where="test")


def test_a_training_continues_with_the_settings_of_the_model_but_not_its_machines(
    tmp_path: Path,
) -> None:
    uri = write(tmp_path / "model")
    made = new(uri)
    old = TrainConfig.model_validate(OLD)
    own = {"dataset_uri": "dataset", "output_uri": "model", "workers": 1, "gpu_per_worker": None,
           "cpu_per_worker": 1, "decode_threads": 2}  # fmt: skip
    model = old.model.model_copy(
        update={"pretrained": uri, "normalisation": None, "image_size": 160, "keep_aspect": True}
    )
    assert made == old.model_copy(update={**own, "model": model})


def test_what_is_given_goes_before_the_settings_of_the_model(tmp_path: Path) -> None:
    uri = write(tmp_path / "model")
    made = new(
        uri,
        max_epochs=2,
        optimizer={"learning_rate": 0.001},
        model=ModelConfig(image_size=96),
        mapping_uri=None,
        unmapped="keep",
    )
    assert (made.max_epochs, made.mapping_uri) == (2, None)
    assert (made.optimizer.name, made.optimizer.learning_rate) == ("sgd", 0.001)
    assert (made.model.image_size, made.model.freeze_epochs) == (96, 2)
    assert made.model.pretrained == uri


def test_a_preset_that_is_given_goes_before_the_settings_of_the_model(tmp_path: Path) -> None:
    made = new(write(tmp_path / "model"), preset="original")
    assert (made.optimizer.learning_rate, made.max_epochs) == (0.01, 70)
    assert made.batch_size == 48  # of which the preset says nothing


def test_settings_of_a_head_that_is_not_continued_are_left_out(tmp_path: Path) -> None:
    made = new(write(tmp_path / "model"), heads=["species", "sex"])
    assert (made.heads, made.loss_weights) == (("species", "sex"), {"species": 1.0})
    assert made.monitor == "val_loss"
    assert new(write(tmp_path / "model"), heads=["count"]).monitor == "val_macro_f1_count"


def test_the_configuration_that_was_made_does_not_read_the_model_again(tmp_path: Path) -> None:
    made = new(write(tmp_path / "model"))
    (tmp_path / "model" / "bundle.json").unlink()
    assert TrainConfig.model_validate(made.model_dump(mode="json")) == made
    assert made.replaced(seed=1).optimizer == made.optimizer


def test_trials_of_a_search_may_continue_from_a_model(tmp_path: Path) -> None:
    uri = write(tmp_path / "model")
    search = TuneConfig(
        train={"dataset_uri": "dataset", "continue_from": uri},
        space={"batch_size": {"choice": [8]}},
        output_uri="tuned",
    )
    trial = train_config(search, {"optimizer.learning_rate": 0.5})
    assert (trial.optimizer.learning_rate, trial.optimizer.momentum) == (0.5, 0.8)
    assert trial.model.pretrained == uri


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "bundle.json: not a bundle: Invalid JSON"),
        ("[]", "bundle.json: not a bundle: "),
        ("{}", "bundle.json: not a bundle: backbone: Field required"),
    ],
)
def test_a_broken_model_is_one_line(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "bundle.json").write_text(content)
    with pytest.raises(SchemaError, match=message) as error:
        new(str(tmp_path))
    assert "\n" not in str(error.value)


def test_settings_that_are_none_are_one_line(tmp_path: Path) -> None:
    uri = write(tmp_path / "model", provenance={"config": {"model": 5}})
    with pytest.raises(SchemaError, match=r"not a bundle: provenance\.config\.model: "):
        new(uri)
    uri = write(tmp_path / "model", provenance={"config": {"batch_size": -5}})
    with pytest.raises(ConfigError, match="batch_size is -5"):
        new(uri)


def test_a_folder_without_a_model_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(IncompleteDataError, match=r"continue_from: .*not a finished bundle"):
        new(str(tmp_path))


def test_no_model_and_no_heads_is_the_line_that_names_the_heads() -> None:
    with pytest.raises(ConfigError, match="continue_from is"):
        new("", heads=["species"])
    with pytest.raises(ConfigError, match="credentials in a URI"):
        new("s3://user:secret@bucket/model", heads=["species"])
