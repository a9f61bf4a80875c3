"""Weights to begin with: of bundles, and of files that other programs have saved."""

import argparse
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
import torch

from ctc_ray.errors import ConfigError, IncompleteDataError
from ctc_ray.labels import LabelSpace
from ctc_ray.models.backbones import make_backbone
from ctc_ray.models.bundle import Bundle, Provenance, save_bundle
from ctc_ray.models.multi_head import MultiHeadModel
from ctc_ray.models.starting_weights import (
    backbone_to_begin_with,
    load_heads,
    read_starting_weights,
    report,
)

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


@pytest.mark.parametrize("size", [None, 96, 160])
def test_a_transformer_of_another_size_is_weights_to_begin_with(
    tmp_path: Path, size: int | None
) -> None:
    backbone = make_backbone("test_vit", image_size=64)
    labels = LabelSpace({"count": ("1", "2")})
    uri = str(tmp_path / "vit")
    save_bundle(uri, Bundle(MultiHeadModel(backbone, labels), 64, False, NOTHING))
    begun, _ = backbone_to_begin_with("test_vit", pretrained=uri, image_size=size)
    assert begun.image_size == (size or 64)
    before, after = backbone.network.state_dict(), begun.network.state_dict()
    same = {name for name in before if torch.equal(before[name], after[name])}
    assert set(before) - same == (set() if size is None else {"pos_embed"})


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
    assert len(list(report(start, loaded, False))) == 4


def test_a_folder_that_is_no_bundle_is_told(tmp_path: Path) -> None:
    with pytest.raises(IncompleteDataError, match=r"a folder without bundle.json"):
        read_starting_weights(str(tmp_path))


def resnet_weights() -> dict[str, torch.Tensor]:
    """Weights of a ResNet with its classifier, which the backbone does not have."""
    return {**make_backbone(TINY).network.state_dict(), "fc.weight": torch.rand(7, 9)}


def prefixed(prefix: str, weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {prefix + name: value for name, value in weights.items()}


CHECKPOINTS: dict[str, Callable[[dict[str, torch.Tensor]], dict[str, Any]]] = {
    "bare": lambda w: w,
    "timm": lambda w: {"arch": TINY, "state_dict": w, "args": argparse.Namespace(lr=1)},
    "timm ema": lambda w: {
        "state_dict": {name: torch.zeros_like(value) for name, value in w.items()},
        "state_dict_ema": w,
    },
    "numpy metric": lambda w: {"state_dict": w, "metric": np.float64(0.5), "epoch": np.int64(3)},
    "parallel": lambda w: prefixed("module.", w),
    "compiled": lambda w: prefixed("_orig_mod.module.", w),
    "lightning": lambda w: {"state_dict": prefixed("model.", w), "epoch": 1},
    "lightning, its loss and metrics": lambda w: {
        "state_dict": {
            **prefixed("model.", w),
            "criterion.weight": torch.ones(7),
            "val_f1.tp": torch.zeros(7),
        },
        "callbacks": {"checkpoint": {"dirpath": PurePosixPath("/a"), "best": Path("/a/b")}},
    },
    "a name of the user's own": lambda w: {"state_dict": prefixed("encoder.trunk.", w)},
}


@pytest.mark.parametrize("kind", CHECKPOINTS)
def test_checkpoints_of_other_programs_are_read(tmp_path: Path, kind: str) -> None:
    weights = resnet_weights()
    torch.save(CHECKPOINTS[kind](weights), tmp_path / "w.ckpt")
    backbone, _ = backbone_to_begin_with(TINY, pretrained=str(tmp_path / "w.ckpt"), image_size=None)
    found = backbone.network.state_dict()
    assert found
    assert all(torch.equal(found[name], weights[name]) for name in found)


@pytest.mark.parametrize(
    ("saved", "message"),
    [
        (
            lambda w: {**prefixed("a.", w), **prefixed("b.", w)},
            r"several models .*: a, b; save one",
        ),
        (lambda w: {"other.weight": torch.ones(2)}, f"does not hold the weights of {TINY}"),
        (lambda w: {**prefixed("a.", w), "a.more": torch.ones(2)}, "not expected more"),
        (
            lambda w: prefixed("m.", {k: w[k] for k in list(w)[1:]}),  # the first may be missing
            "missing conv1",
        ),
        (lambda w: {"state_dict": w, "cfg": Fraction(1, 2)}, r"objects of fractions\.Fraction"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_in_one_line(
    tmp_path: Path, saved: Callable[..., object], message: str
) -> None:
    uri = str(tmp_path / "w.ckpt")
    torch.save(saved(resnet_weights()), uri)
    with pytest.raises(ConfigError, match=message) as raised:
        backbone_to_begin_with(TINY, pretrained=uri, image_size=None)
    text = str(raised.value)
    assert text.startswith(f"model.pretrained: {uri}")
    assert text.isprintable()  # one line, no colours
    assert len(text) < 500 + len(uri)


@pytest.mark.parametrize("keep_aspect", [False, True])
def test_another_cut_than_that_of_the_weights_is_told(bundle: str, keep_aspect: bool) -> None:
    start = read_starting_weights(bundle)  # its images were squeezed
    lines = list(report(start, load_heads(model({"species": ("a",)}, 2), start), keep_aspect))
    assert any("--model.keep-aspect" in line for line in lines) == keep_aspect


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["ddp.pth", "lightning.ckpt", "timm_train.pth.tar"])
def test_the_cases_of_the_field_are_read(shared_data: Path, name: str) -> None:
    uri = shared_data.parent / "cases" / "19-checkpoints-of-other-tools" / name
    start = read_starting_weights(str(uri))
    make_backbone(TINY, pretrained=start.backbone)
