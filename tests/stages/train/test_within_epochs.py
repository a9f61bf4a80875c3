"""Several workers that are killed within an epoch, and go on, also as another number of workers."""

from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pytest
import torch
from builders import train_config
from gloo_training import Part, trained

from ctc_ray.files import parquet
from ctc_ray.stages.train.checkpoints import read_checkpoint

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def fields(dataset: Path, tmp_path: Path) -> dict[str, Any]:
    config = train_config(dataset, tmp_path / "out").replaced(
        max_epochs=2, batch_size=5, model={"image_size": 32, "dropout": 0.3}
    )
    return config.model_dump(mode="json")


@pytest.fixture
def images(dataset: Path) -> Counter[str]:
    rows = parquet.read_folder(str(dataset / "split=train"))
    return Counter(rows.filter(pc.is_null(rows["failure"]))["image_id"].to_pylist())


def test_two_workers_that_were_killed_end_with_the_weights_of_two_that_were_not(
    fields: dict[str, Any], images: Counter[str], tmp_path: Path
) -> None:
    whole = trained(tmp_path / "whole", fields, [Part(2, None)])
    killed = trained(tmp_path / "killed", fields, [Part(2, 2), Part(2, 1), Part(2, None)])
    assert killed["history"] == whole["history"]
    for name, tensor in whole["weights"].items():
        assert torch.equal(tensor, killed["weights"][name]), name
    for epoch in ("0", "1"):
        assert Counter(killed["read"][epoch]) == Counter(whole["read"][epoch])
        assert (Counter(whole["read"][epoch]) - images).total() <= 1


def test_another_number_of_workers_reads_the_rest_of_the_epoch_once(
    fields: dict[str, Any], images: Counter[str], tmp_path: Path
) -> None:
    parts = [Part(2, 2), Part(3, 1), Part(1, None)]
    found = trained(tmp_path / "changed", fields, parts)
    for epoch in ("0", "1"):
        assert found["read"][epoch]
        assert Counter(found["read"][epoch]).keys() == images.keys()
        assert (Counter(found["read"][epoch]) - images).total() <= 1 + 2
    n_labelled = found["history"][0]["train_n_species"]
    assert n_labelled == len(found["read"]["0"])


def test_the_newest_state_is_the_last_one_whatever_the_number_of_updates(tmp_path: Path) -> None:
    folder = tmp_path / "_work" / "checkpoints"
    folder.mkdir(parents=True)
    for number in (9_999_999, 10_000_000):
        (folder / f"epoch-00001-update-{number:07d}.pt").write_bytes(b"%d" % number)
    assert read_checkpoint(str(tmp_path)) == b"10000000"
