"""`--decode-on gpu`: the pipeline of a GPU, on the CPU of a machine that has none."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from builders import train_config
from pydantic import ValidationError

from ctc_ray.config.training import TrainConfig
from ctc_ray.errors import ConfigError
from ctc_ray.runs.manifest import Manifest, read_manifest
from ctc_ray.stages.train import stage as train
from ctc_ray.stages.train.job import TrainingJob
from ctc_ray.training.epoch_shares import Stretch

STRONG = {"erase": 0.3, "brightness": 0.4, "contrast": 0.4, "saturation": 0.4}
PLAIN = {"colour": "none", "gray": 0.0, "erase": 0.5, "rotate": 10.0}


def job(dataset: Path, output: Path, **fields: Any) -> TrainingJob:
    manifest: Manifest = read_manifest(str(dataset), "dataset")
    config = TrainConfig.model_validate(train_config(dataset, output).model_dump() | fields)
    made = TrainingJob(config, manifest, rank=0, n_workers=1, device="cpu")
    made.wrap(lambda model: model)
    return made


def seen(job: TrainingJob) -> torch.Tensor:
    """The images of the first epoch, as the model sees them."""
    augment = job._settings.augment
    assert augment is not None
    share = (Stretch(1, 0, 0, job._n_items(0)),)
    batches = job._data.batches(share, 0, first_batch=0)
    return torch.cat([augment(batch.images_BCHW, batch.seeds) for batch in batches])


@pytest.mark.parametrize(
    ("augment", "farthest"),
    [(PLAIN, 1), (STRONG, 4), ({"colour": "full_fast", "gray": 0.3}, 2)],
    ids=["no colours", "standard colours", "original colours"],
)
@pytest.mark.parametrize("keep_aspect", [True, False])
def test_a_training_sees_the_images_that_cpus_decode(
    dataset: Path, tmp_path: Path, augment: dict[str, Any], farthest: int, keep_aspect: bool
) -> None:
    fields = {"augment": augment, "model": {"image_size": 32, "keep_aspect": keep_aspect}}
    by_cpu = seen(job(dataset, tmp_path, **fields))
    by_gpu = seen(job(dataset, tmp_path, decode_on="gpu", **fields))
    assert by_cpu.shape == by_gpu.shape
    assert int((by_cpu.int() - by_gpu.int()).abs().max()) <= farthest


def test_a_training_learns_and_resumes_with_the_same_weights(dataset: Path, tmp_path: Path) -> None:
    fields = {"decode_on": "gpu", "max_epochs": 3, "augment": {"mix": "cutmix", "erase": 0.2}}
    whole = job(dataset, tmp_path, **fields)
    parts = job(dataset, tmp_path, **fields)
    while not whole.is_done:
        whole.next_epoch()
        parts.next_epoch()
        state, parts = parts.state(), job(dataset, tmp_path, **fields)
        parts.load_state(state)
    assert whole.history == parts.history
    assert whole.end() == parts.end()
    other = job(dataset, tmp_path, **(fields | {"decode_on": "cpu"}))
    other.next_epoch()
    losses = (whole.history[0]["train_loss"], other.history[0]["train_loss"])
    assert losses[0] == pytest.approx(losses[1], abs=0.05)
    assert losses[0] != losses[1]


def test_validation_is_decoded_as_for_predictions(dataset: Path, tmp_path: Path) -> None:
    parts = [job(dataset, tmp_path, decode_on=where)._data for where in ("cpu", "gpu")]
    batches = [list(data.to_measure("val", rank=0, n_workers=1)) for data in parts]
    for one, other in zip(*batches, strict=True):
        assert torch.equal(one.images_BCHW, other.images_BCHW)


def test_a_machine_without_a_gpu_is_told_before_any_work(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    config = train_config(dataset, tmp_path / "model").replaced(decode_on="gpu")
    for asked in (None, 0):
        with pytest.raises(ConfigError, match=r"--decode-on gpu: no GPU for each of --workers 1"):
            train.run(config.replaced(gpu_per_worker=asked))
    assert not (tmp_path / "model").exists()
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert train.with_gpus(config, on_cluster=False).gpus == 1


@pytest.mark.parametrize("error", [RuntimeError("no nvJPEG"), ImportError("removed")])
def test_a_torchvision_that_cannot_decode_is_told_before_the_first_epoch(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def decode_jpeg(*_: object) -> None:
        raise error

    monkeypatch.setattr(torchvision.io, "decode_jpeg", decode_jpeg)
    with pytest.raises(ConfigError, match=r"--decode-on gpu: torchvision .* does not decode JPEGs"):
        job(dataset, tmp_path, decode_on="gpu")


def test_stacks_are_not_decoded_on_gpus(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="decode_on gpu is for single images"):
        train_config(dataset, tmp_path).replaced(decode_on="gpu", image_choice="stack")


def test_where_images_are_decoded_belongs_to_the_result(dataset: Path, tmp_path: Path) -> None:
    config = train_config(dataset, tmp_path)
    assert config.result_fields() != config.replaced(decode_on="gpu").result_fields()
