"""Weights to begin with: of bundles, and of files that other programs have saved."""

import argparse
from pathlib import Path

import pytest
import torch

from ctc_ray.errors import IncompleteDataError
from ctc_ray.labels import LabelSpace
from ctc_ray.models.backbones import make_backbone, read_weights
from ctc_ray.models.bundle import Bundle, Provenance, save_bundle
from ctc_ray.models.multi_head import MultiHeadModel
from ctc_ray.models.starting_weights import load_heads, read_starting_weights, report

TINY = "test_resnet"
NOTHING = Provenance(config={}, data_fingerprint="f" * 64, metrics={}, n_training_images={})


def model(classes: dict[str, tuple[str, ...]], seed: int) -> MultiHeadModel:
    torch.manual_seed(seed)
    labels = LabelSpace(classes)
    return MultiHeadModel(
        make_backbone("small_cnn", image_size=48), labels, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6)
    )


@pytest.fixture
def bundle(tmp_path: Path) -> str:
    classes = {"species": ("cat", "dog", "fox"), "count": ("1", "2")}
    save_bundle(str(tmp_path / "old"), Bundle(model(classes, 1), 48, False, NOTHING))
    return str(tmp_path / "old")


@pytest.mark.parametrize("name", ["", "/weights.safetensors"])
def test_a_bundle_brings_its_pixels_and_its_size(bundle: str, name: str) -> None:
    start = read_starting_weights(bundle + name)
    assert start.image_size == 48
    assert start.normalisation == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))


def test_heads_are_kept_where_their_classes_agree_in_any_order(bundle: str) -> None:
    start = read_starting_weights(bundle)
    old = start.bundle
    assert old is not None
    new = model({"sex": ("f",), "count": ("1", "2", "3"), "species": ("fox", "cat", "dog")}, 2)
    at_random = {name: value.clone() for name, value in new.state_dict().items()}
    loaded = load_heads(new, start)
    assert loaded.kept == ["species"]
    assert loaded.new == {
        "sex": "the weights have no such head",
        "count": "1 new classes, such as 3",
    }
    features = torch.rand(5, 192)
    before = old.model.heads[0](features)
    after = new.heads[2](features)
    assert torch.equal(after, before[:, [2, 0, 1]])
    for number in (0, 1):
        assert torch.equal(new.heads[number].weight, at_random[f"heads.{number}.weight"])
    assert len(list(report(start, loaded))) == 4


def test_a_folder_that_is_no_bundle_is_told(tmp_path: Path) -> None:
    with pytest.raises(IncompleteDataError, match=r"a folder without bundle.json"):
        read_starting_weights(str(tmp_path))


@pytest.mark.parametrize("kind", ["timm", "timm ema", "parallel", "lightning", "compiled"])
def test_checkpoints_of_other_programs_are_read(tmp_path: Path, kind: str) -> None:
    weights = {**make_backbone(TINY).network.state_dict(), "fc.weight": torch.zeros(7, 9)}
    other = {name: torch.zeros_like(value) for name, value in weights.items()}
    saved: dict[str, object] = {
        "timm": {"epoch": 3, "arch": TINY, "state_dict": weights, "args": argparse.Namespace(lr=1)},
        "timm ema": {"state_dict": other, "state_dict_ema": weights},
        "parallel": {f"module.{name}": value for name, value in weights.items()},
        "lightning": {"state_dict": {f"model.{k}": v for k, v in weights.items()}, "epoch": 1},
        "compiled": {f"_orig_mod.module.{name}": value for name, value in weights.items()},
    }[kind]
    torch.save(saved, tmp_path / "w.ckpt")
    found = read_weights(str(tmp_path / "w.ckpt"))
    assert found.keys() == weights.keys()
    assert all(torch.equal(found[name], weights[name]) for name in weights)


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["ddp.pth", "lightning.ckpt", "timm_train.pth.tar"])
def test_the_cases_of_the_field_are_read(shared_data: Path, name: str) -> None:
    uri = shared_data.parent / "cases" / "19-checkpoints-of-other-tools" / name
    start = read_starting_weights(str(uri))
    make_backbone(TINY, pretrained=start.backbone)
