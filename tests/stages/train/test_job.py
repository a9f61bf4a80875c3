import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from builders import train_config
from safetensors.torch import load_file, save_file

import ctc_ray
from ctc_ray.config.training import TrainConfig
from ctc_ray.models.backbones import make_backbone
from ctc_ray.models.bundle import load_bundle, save_bundle
from ctc_ray.runs.manifest import Manifest, read_manifest
from ctc_ray.stages.train import pauses
from ctc_ray.stages.train.job import TrainingJob


def job(dataset: Path, output: Path, **fields: Any) -> TrainingJob:
    manifest: Manifest = read_manifest(str(dataset), "dataset")
    config = TrainConfig.model_validate(train_config(dataset, output).model_dump() | fields)
    made = TrainingJob(config, manifest, rank=0, n_workers=1, device="cpu")
    made.wrap(lambda model: model)
    return made


def weights(done: TrainingJob) -> dict[str, torch.Tensor]:
    return done._measured.state_dict()


def backbone_of(bundle: Path) -> dict[str, torch.Tensor]:
    return load_bundle(str(bundle)).model.backbone.state_dict()


VARIANTS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "accumulated, clipped, warmed up": {
        "accumulate": 2,
        "optimizer": {"name": "sgd", "clip_norm": 0.5, "nesterov": True},
        "schedule": {"name": "cosine", "warmup_epochs": 1.5},
    },
    "average of weights": {"model": {"ema_decay": 0.9, "image_size": 32, "dropout": 0.2}},
    "frozen at first": {
        "model": {"freeze_epochs": 2, "image_size": 32},
        "optimizer": {"name": "adamw", "layer_decay": 0.5, "backbone_rate": 0.1},
    },
    "mixed, one cycle": {
        "augment": {"mix": "cutmix", "mix_alpha": 1.0},
        "schedule": {"name": "one-cycle"},
        "loss": {"class_weights": "inverse", "focal_gamma": 1.0, "logit_adjustment": 1.0},
        "optimizer": {"name": "rmsprop", "learning_rate": 0.001},
    },
    "bfloat16, first images": {"precision": "bfloat16", "image_choice": "first"},
    "balanced classes": {"sampling": "balanced", "sampling_head": "count"},
    "stacks": {"image_choice": "stack", "model": {"image_size": 32, "keep_aspect": True}},
    "plateau of a metric": {
        "monitor": "val_macro_f1_species",
        "schedule": {"name": "plateau", "patience": 0},
    },
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_job_that_was_saved_and_loaded_ends_with_the_same_weights(
    dataset: Path, tmp_path: Path, variant: str
) -> None:
    fields = {"max_epochs": 4, **VARIANTS[variant]}
    whole = job(dataset, tmp_path, **fields)
    while not whole.is_done:
        whole.next_epoch()
    parts = job(dataset, tmp_path, **fields)
    while not parts.is_done:
        parts.next_epoch()
        state, parts = parts.state(), job(dataset, tmp_path, **fields)
        parts.load_state(state)
        assert parts.state() == state
    assert whole._history == parts._history
    assert whole.end() == parts.end()
    for name, tensor in weights(whole).items():
        assert torch.equal(tensor, weights(parts)[name]), name


@pytest.mark.parametrize("variant", VARIANTS)
def test_job_that_goes_on_within_an_epoch_ends_with_the_same_weights(
    dataset: Path, tmp_path: Path, variant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pauses, "_FIRST_AFTER", 1)
    monkeypatch.setattr(pauses, "_EVERY_S", 0)
    fields = {"max_epochs": 2, "batch_size": 5, **VARIANTS[variant]}
    states = []
    whole = job(dataset, tmp_path, **fields)
    while not whole.is_done:
        whole.next_epoch(is_wanted=lambda: True, save=lambda at: states.append(at.state()))
    final = whole.end()
    assert len(states) >= 4
    for state in (states[0], states[-2], states[-1]):
        rest = job(dataset, tmp_path, **fields)
        rest.load_state(state)
        assert rest.n_updates > 0
        while not rest.is_done:
            rest.next_epoch()
        assert rest._history == whole._history
        assert rest.end() == final
        for name, tensor in weights(whole).items():
            assert torch.equal(tensor, weights(rest)[name]), name


def test_matrices_of_low_rank_resume_and_become_plain_weights(
    dataset: Path, tmp_path: Path
) -> None:
    torch.manual_seed(1)
    start = str(tmp_path / "start.safetensors")
    save_file(make_backbone("test_vit").network.state_dict(), start)
    model = {
        "backbone": "test_vit",
        "image_size": 160,
        "pretrained": start,
        "lora_rank": 2,
        "freeze_epochs": 1,
        "ema_decay": 0.5,
    }
    whole = job(dataset, tmp_path / "whole", model=model, max_epochs=3)
    parts = job(dataset, tmp_path / "parts", model=model, max_epochs=3)
    while not whole.is_done:
        metrics = whole.next_epoch()
        parts.next_epoch()
        state, parts = parts.state(), job(dataset, tmp_path / "parts", model=model, max_epochs=3)
        parts.load_state(state)
    kept = min(range(3), key=lambda epoch: whole.history[epoch]["val_loss"])
    final = whole.end()
    assert final == parts.end()
    assert final.val.metrics["loss"] == pytest.approx(whole.history[kept]["val_loss"], abs=1e-5)
    assert metrics["val_loss"] != whole.history[0]["val_loss"]
    whole.write_bundle(final)
    weights = load_bundle(str(tmp_path / "whole")).model.backbone.state_dict()
    changed = {n for n, v in load_file(start).items() if not torch.equal(weights[n], v)}
    assert changed
    assert all(weights[name].ndim == 2 for name in changed)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_a_network_that_computes_with_fewer_bits_learns(
    dataset: Path, tmp_path: Path, precision: str
) -> None:
    here = job(dataset, tmp_path, precision=precision, max_epochs=6)
    while not here.is_done:
        metrics = here.next_epoch()
    assert metrics["val_accuracy_species"] == 1
    assert {tensor.dtype for tensor in here._model.parameters()} == {torch.float32}


def test_a_backbone_that_is_frozen_at_first_learns_later(dataset: Path, tmp_path: Path) -> None:
    here = job(dataset, tmp_path, model={"freeze_epochs": 1, "image_size": 32}, max_epochs=2)
    start = {name: tensor.clone() for name, tensor in here._model.backbone.state_dict().items()}
    heads = here._model.heads[0].weight.detach().clone()
    here.next_epoch()
    frozen = here._model.backbone.state_dict()
    assert all(torch.equal(frozen[name], tensor) for name, tensor in start.items())
    assert not torch.equal(here._model.heads[0].weight, heads)
    here.next_epoch()
    later = here._model.backbone.state_dict()
    assert not any(torch.equal(later[n], t) for n, t in start.items() if t.ndim == 4)


def test_the_average_of_weights_is_measured_and_kept(dataset: Path, tmp_path: Path) -> None:
    here = job(dataset, tmp_path / "model", model={"ema_decay": 0.9, "image_size": 32})
    metrics = here.next_epoch()
    final = here.end()
    here.write_bundle(final)
    kept = load_bundle(str(tmp_path / "model")).model.state_dict()
    assert any(not torch.equal(kept[n], t) for n, t in here._model.state_dict().items())
    assert final.val.metrics["loss"] == pytest.approx(metrics["val_loss"])


def test_pixels_of_the_dataset_are_taken_as_they_are_and_measured_where_it_has_none(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = read_manifest(str(dataset), "dataset")
    kept = manifest.pixels_of(["train"])
    assert kept is not None
    config = train_config(dataset, tmp_path)
    older = manifest.model_copy(update={"pixels": {}})
    measured = TrainingJob(config, older, rank=0, n_workers=1, device="cpu")._model
    assert measured.pixel_mean == pytest.approx(kept.mean, abs=0.1)  # one image of each event
    assert measured.pixel_mean != kept.mean
    monkeypatch.setattr("ctc_ray.stages.train.data.read_batches", None)
    taken = TrainingJob(config, manifest, rank=0, n_workers=1, device="cpu")._model
    assert (taken.pixel_mean, taken.pixel_std) == (kept.mean, kept.std)


@pytest.mark.parametrize(
    ("model", "whose"),
    [
        ({}, "dataset"),
        ({"normalisation": "backbone"}, "backbone"),
        ({"pretrained": "bundle"}, "bundle"),
        ({"pretrained": "bundle", "normalisation": "backbone"}, "bundle"),
        ({"pretrained": "bundle", "normalisation": "dataset"}, "dataset"),
    ],
)
def test_pixels_are_normalised_by_the_dataset_or_as_the_weights_expect(
    bundle: Path, dataset: Path, tmp_path: Path, model: dict[str, str], whose: str
) -> None:
    start = tmp_path / "start"
    old = load_bundle(str(bundle))
    old.model.pixel_mean, old.model.pixel_std = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
    save_bundle(str(start), old)
    if "pretrained" in model:
        model = {**model, "pretrained": str(start)}
    made = job(dataset, tmp_path, model={"image_size": 32, **model})._model
    pixels = read_manifest(str(dataset), "dataset").pixels_of(["train"])
    assert pixels is not None
    expected = {
        "dataset": (pixels.mean, pixels.std),
        "backbone": ((0.5, 0.5, 0.5), (0.25, 0.25, 0.25)),
        "bundle": ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6)),
    }
    assert (made.pixel_mean, made.pixel_std) == expected[whose]


@pytest.mark.parametrize("share", [0.25, 1.0])
def test_a_share_of_the_starting_weights_is_kept(
    bundle: Path, dataset: Path, tmp_path: Path, share: float
) -> None:
    here = job(
        dataset,
        tmp_path / "model",
        model={"pretrained": str(bundle), "wise_ft": share, "image_size": 32},
        augment={"rotate": 30.0},
        max_epochs=1,
    )
    here.next_epoch()
    trained = {n: t.clone() for n, t in here._model.backbone.state_dict().items()}
    here.write_bundle(here.end())
    start, kept = backbone_of(bundle), backbone_of(tmp_path / "model")
    for name, tensor in trained.items():
        if tensor.is_floating_point():
            expected = (1 - share) * start[name] + share * tensor
            assert torch.allclose(kept[name], expected, atol=1e-6), name


def test_files_say_how_every_class_is_answered(dataset: Path, tmp_path: Path) -> None:
    here = job(dataset, tmp_path / "model")
    here.next_epoch()
    final = here.end()
    here.write_bundle(final)
    found = json.loads((tmp_path / "model" / "metrics.json").read_text())
    assert (found["epoch"], found["monitor"], found["split"]) == (1, "val_loss", "val")
    species = found["heads"]["species"]
    assert species["accuracy"] == final.val.metrics["accuracy_species"]
    assert [row["class"] for row in species["classes"]] == ["blue", "green", "red"]
    assert sum(row["images"] for row in species["classes"]) == species["n"]
    recalls = [row["recall"] for row in species["classes"] if row["images"]]
    assert sum(recalls) / len(recalls) == pytest.approx(species["balanced_accuracy"])
    assert species["temperature"] == 1.0  # there are too few images
    assert "ece_species" in load_bundle(str(tmp_path / "model")).provenance.metrics


def test_the_temperature_of_a_bundle_makes_its_scores_less_sure(
    bundle: Path, tmp_path: Path
) -> None:
    loaded = load_bundle(str(bundle))
    save_bundle(str(tmp_path / "model"), replace(loaded, temperatures={"species": 3.0}))
    image = np.full((40, 50, 3), 90, np.uint8)
    image[:, :, 1] = 180
    sure, less, raw = (
        ctc_ray.load_bundle(uri, calibrated=calibrated).predict([image])["species"].probs[0]
        for uri, calibrated in (
            (bundle, True),
            (tmp_path / "model", True),
            (tmp_path / "model", False),
        )
    )
    assert raw == pytest.approx(sure)
    odds = np.log(less) - np.log(less).mean()
    assert odds == pytest.approx((np.log(sure) - np.log(sure).mean()) / 3, abs=1e-4)


def test_epoch_in_words_names_every_head(dataset: Path, tmp_path: Path) -> None:
    here = job(dataset, tmp_path)
    metrics = here.next_epoch() | here.speed(1.0)
    line = here.line(metrics)
    assert line.startswith("epoch 1/6: loss ")
    assert "count" in line
    of_images, of_events = metrics["val_accuracy_species"], metrics["val_event_accuracy_species"]
    assert f"val accuracy: species {of_images:.3f} (events {of_events:.3f}), count" in line
    single = metrics | {"val_n_species": 9.0, "val_event_n_species": 9.0}
    assert f"species {of_images:.3f}, count" in here.line(single)


def test_bundle_holds_the_weights_of_the_best_epoch(dataset: Path, tmp_path: Path) -> None:
    here = job(dataset, tmp_path / "model")
    here.next_epoch()
    best = {name: tensor.clone() for name, tensor in weights(here).items()}
    here._stopping.best = -1.0  # no later epoch can be better
    here.next_epoch()
    here.write_bundle(here.end())
    for name, tensor in weights(here).items():
        assert torch.equal(tensor, best[name]), name


def test_the_user_is_told_what_is_trained_and_why_it_ends(dataset: Path, tmp_path: Path) -> None:
    here = job(dataset, tmp_path, max_epochs=3)
    assert re.fullmatch(
        r"train: species \(3 classes\), count \(2 classes\); small_cnn at 32 pixels; \d+ images "
        r"per epoch, \d+ to validate; 1 worker on CPU, \d batches of \d",
        here.about(),
    )
    for _ in range(3):
        here.next_epoch()
    best = 1 + min(range(3), key=lambda epoch: here._history[epoch]["val_loss"])
    value = here._history[best - 1]["val_loss"]
    assert here.ending() == (
        f"all 3 epochs are done; epoch {best} is kept, with val_loss {value:.4f}"
    )
    stopped = job(dataset, tmp_path, max_epochs=9, early_stopping_patience=1)
    stopped.next_epoch()
    stopped._stopping.best = -1.0
    stopped.next_epoch()
    assert stopped.is_done
    assert stopped.ending().startswith("val_loss has not become better for 1 epochs; epoch 1 is")
