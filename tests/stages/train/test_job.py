import re
from pathlib import Path

import torch
from builders import train_config

from ctc_ray.runs.manifest import Manifest, read_manifest
from ctc_ray.stages.train.job import TrainingJob


def job(dataset: Path, output: Path) -> TrainingJob:
    manifest: Manifest = read_manifest(str(dataset), "dataset")
    return TrainingJob(train_config(dataset, output), manifest, rank=0, n_workers=1, device="cpu")


def weights(done: TrainingJob) -> dict[str, torch.Tensor]:
    return done._model.state_dict()


def test_job_that_was_saved_and_loaded_ends_with_the_same_weights(
    dataset: Path, tmp_path: Path
) -> None:
    whole = job(dataset, tmp_path)
    while not whole.is_done:
        whole.next_epoch()
    first = job(dataset, tmp_path)
    first.next_epoch()
    second = job(dataset, tmp_path)
    second.load_state(first.state())
    while not second.is_done:
        second.next_epoch()
    for name, tensor in weights(whole).items():
        assert torch.equal(tensor, weights(second)[name]), name


def test_epoch_in_words_names_every_head(dataset: Path, tmp_path: Path) -> None:
    here = job(dataset, tmp_path)
    line = here.line({**here.next_epoch(), "seconds": 1.0})
    assert line.startswith("epoch 1/6: loss ")
    assert re.search(r"species [01]\.\d", line)
    assert "count" in line


def test_bundle_holds_the_weights_of_the_best_epoch(dataset: Path, tmp_path: Path) -> None:
    here = job(dataset, tmp_path / "model")
    here.next_epoch()
    best = {name: tensor.clone() for name, tensor in weights(here).items()}
    here._stopping.best = -1.0  # no later epoch can be better
    here.next_epoch()
    here.write_bundle()
    for name, tensor in weights(here).items():
        assert torch.equal(tensor, best[name]), name
