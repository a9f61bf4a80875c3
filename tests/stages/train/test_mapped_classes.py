"""A training with other classes than its dataset: as if the dataset had been made with them."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from builders import train_config

from ctc_ray.config.training import TrainConfig
from ctc_ray.errors import ConfigError
from ctc_ray.files import parquet
from ctc_ray.models.bundle import load_bundle
from ctc_ray.stages.train import stage as train
from ctc_ray.stages.train.job import TrainingJob
from ctc_ray.training.batches import Batch, read_batches
from ctc_ray.training.epoch_shares import Stretch

MAPPING = "species: {red: warm, green: cold}\n"


def config(dataset: Path, tmp_path: Path, mapping: str, **fields: Any) -> TrainConfig:
    (tmp_path / "mapping.yaml").write_text(mapping)
    return train_config(dataset, tmp_path / "model").replaced(
        mapping_uri=str(tmp_path / "mapping.yaml"), max_epochs=8, **fields
    )


def labels(dataset: Path, split: str) -> Counter[str | None]:
    rows = parquet.read_folder(str(dataset / f"split={split}"))
    usable = rows.filter(pa.compute.is_null(rows["failure"]))
    return Counter(usable["label_species"].to_pylist())


def test_classes_are_merged_and_others_are_kept(dataset: Path, tmp_path: Path) -> None:
    made = train.run(config(dataset, tmp_path, "species: {red: warm, green: warm}\n"))
    assert made.classes == {"species": ["blue", "warm"], "count": ["1", "2"]}
    n = labels(dataset, "train")
    trained = load_bundle(str(tmp_path / "model")).provenance.n_training_images["species"]
    assert trained == {"blue": n["blue"], "warm": n["red"] + n["green"]}
    (row,) = [r for r in made.summary["on the validation split"] if r["head"] == "species"]
    assert row["n"] == sum(c for name, c in labels(dataset, "val").items() if name is not None)
    assert row["accuracy"] == 1.0


def test_classes_that_are_not_named_may_be_left_unlabelled(dataset: Path, tmp_path: Path) -> None:
    made = train.run(config(dataset, tmp_path, MAPPING, unmapped="drop"))
    assert made.classes == {"species": ["cold", "warm"], "count": ["1", "2"]}
    (row,) = [r for r in made.summary["on the validation split"] if r["head"] == "species"]
    n = labels(dataset, "val")
    assert row["n"] == n["red"] + n["green"]


def test_an_empty_target_is_no_label(dataset: Path, tmp_path: Path) -> None:
    made = train.run(config(dataset, tmp_path, "species: {blue: ''}\n"))
    assert made.classes["species"] == ["green", "red"]


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ("sex: {f: m}\n", "head 'sex' is not trained; heads are species, count"),
        ("species: {yellow: warm}\n", "has no class 'yellow'; its classes are blue, green, red"),
        ("species: {red: green, green: blue}\n", "green"),
        ("species: {red: '', green: '', blue: ''}\n", "'species' has no class"),
    ],
)
def test_a_mapping_that_does_not_fit_is_refused(
    dataset: Path, tmp_path: Path, mapping: str, message: str
) -> None:
    with pytest.raises(Exception, match=message):
        train.run(config(dataset, tmp_path, mapping))
    assert not (tmp_path / "model").exists()


def test_a_rule_needs_a_mapping(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unmapped needs mapping_uri"):
        train_config(dataset, tmp_path).replaced(unmapped="drop")


def test_another_mapping_is_another_model(dataset: Path, tmp_path: Path) -> None:
    train.run(config(dataset, tmp_path, MAPPING))
    with pytest.raises(ConfigError, match="another configuration"):
        train.run(config(dataset, tmp_path, "species: {red: hot, green: cold}\n"))


def test_classes_are_sampled_as_they_are_mapped_and_in_training_alone(
    dataset: Path, tmp_path: Path
) -> None:
    """The whole training split is one window, so each class gets its share exactly."""
    merged = "species: {green: cold, blue: cold}\n"
    asked = config(dataset, tmp_path, merged, sampling="balanced", heads=("species",))
    job = TrainingJob(asked, train.check_dataset(asked), rank=0, n_workers=1, device="cpu")

    def shares(batches: Iterable[Batch]) -> list[float]:
        seen = [code for batch in batches for code in batch.labels["species"]]
        return np.bincount(np.array(seen)) / len(seen)

    n = labels(dataset, "train")
    share = n["red"] / (n["red"] + n["green"] + n["blue"])
    plan = job._data.plan(0, rank=0, n_workers=1)
    usual = read_batches(plan, job._data._loader_settings())
    sampled = job._data.batches((Stretch(1, 0, 0, plan.n_items),), 0, first_batch=0)
    assert share < 0.3
    assert shares(usual) == pytest.approx([1 - share, share])
    assert shares(sampled) == pytest.approx([0.5, 0.5], abs=0.05)
