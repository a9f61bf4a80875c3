"""Backbones: small_cnn or any image model of timm, with random or pretrained weights.

B batch, C channels, H height, W width, F features.
"""

import argparse
import difflib
import io
import pickle
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PosixPath, PurePosixPath
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from ctc_ray.errors import ConfigError
from ctc_ray.files import storage
from ctc_ray.models.small_cnn import SmallCnn

SMALL_CNN = "small_cnn"
_SMALL_CNN_SIZE = 64  # the original's 50 x 50 is odd after one halving
_CHECKPOINT_KEYS = ("state_dict_ema", "state_dict", "model_state_dict", "model")  # the best first
_NUMPY_SCALAR = np.float64().__reduce__()[0]
# What training programs save beside the weights; making one of these runs no other code.
_HARMLESS: tuple[Any, ...] = (
    argparse.Namespace,
    PosixPath,
    PurePosixPath,
    np.dtype,
    *(type(np.dtype(kind)) for kind in ("?", "i4", "i8", "f4", "f8")),
    _NUMPY_SCALAR,
    (_NUMPY_SCALAR, "numpy.core.multiarray.scalar"),  # its name before numpy 2
)
_FOREIGN = re.compile(r"\b(?:GLOBAL|class) ([\w.]+)")  # of torch, in an UnpicklingError

ThreeFloats = tuple[float, float, float]


@dataclass(frozen=True)
class Backbone:
    """A network that turns standardised images (B, C, H, W) into features (B, F)."""

    name: str
    network: nn.Module
    num_features: int
    image_size: int  # side of its square input, in pixels
    mean: ThreeFloats  # per channel of pixels in [0, 1], as its weights expect
    std: ThreeFloats  # standard deviation of the channels, likewise


def make_backbone(
    name: str,
    *,
    pretrained: str | bool | Mapping[str, Tensor] = False,
    image_size: int | None = None,
    source: str = "these weights",
    weights_size: int | None = None,
) -> Backbone:
    """The backbone of this name, without its classifier.

    Args:
        name: `small_cnn`, or a model name of timm.
        pretrained: URI of a .safetensors or .pth file with timm's keys for this model, or its
            weights. Keys of its classifier are ignored. The keys may have a prefix, as in a bundle
            or in a checkpoint of Lightning; keys without this prefix are ignored. True downloads
            timm's weights; False gives random weights.
        image_size: side of the square input in pixels; None means the model's default.
        source: what an error calls weights that are given as tensors.
        weights_size: side of the input that the weights were trained with; None means the model's
            default.

    Raises:
        ConfigError: the model or the weights do not exist, or the weights do not fit the model.
    """
    if name == SMALL_CNN:
        if pretrained is True:
            raise ConfigError(
                f"model.pretrained: {SMALL_CNN} has no weights to download; give a file"
            )
        network: nn.Module = SmallCnn()
        cfg: Mapping[str, object] = {}
    else:
        network = _timm_network(name, download=pretrained is True)
        cfg = network.pretrained_cfg  # type: ignore[assignment]  # timm sets it on every model
    default_size = _default_size(cfg)
    in_network = _with_size(network, weights_size or default_size, default_size)
    if isinstance(pretrained, str):
        _load_pretrained(network, name, read_weights(pretrained), cfg.get("classifier"), pretrained)
    elif not isinstance(pretrained, bool):
        _load_pretrained(network, name, pretrained, cfg.get("classifier"), source)
    size = _with_size(network, image_size or default_size, in_network)
    return Backbone(
        name=name,
        network=network,
        num_features=_probe(network, name, size),
        image_size=size,
        mean=_three(cfg.get("mean", (0.5, 0.5, 0.5))),
        std=_three(cfg.get("std", (0.25, 0.25, 0.25))),
    )


def _with_size(network: nn.Module, size: int, old_size: int) -> int:
    """Make the network take images of this size, if it depends on it; the size.

    Transformers do: their position embeddings are scaled.
    """
    resize = getattr(network, "set_input_size", None)
    if resize is not None and size != old_size:
        resize((size, size))
    return size


def _timm_network(name: str, *, download: bool) -> nn.Module:
    import timm  # importing it takes 2 s; small_cnn does not need it

    from ctc_ray.models.downloads import cached_weights

    known = timm.list_models()
    if name.partition(".")[0] not in known:
        near = difflib.get_close_matches(name.lower(), [SMALL_CNN, *known], n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else "see timm.list_models()"
        raise ConfigError(f"model.backbone: {name!r} is not a model of timm; {hint}")
    file = cached_weights(name) if download else None
    overlay = None if file is None else {"file": file, "custom_load": False}
    try:
        network: nn.Module = timm.create_model(
            name, num_classes=0, pretrained=download, pretrained_cfg_overlay=overlay
        )
    except (OSError, RuntimeError) as error:
        first_line = str(error).partition("\n")[0]
        raise ConfigError(
            f"model.backbone: timm cannot make {name}: {first_line} "
            "(without network: give a file of weights with --model.pretrained FILE.safetensors)"
        ) from error
    return network


def _default_size(cfg: Mapping[str, object]) -> int:
    size = cfg.get("input_size")
    return int(size[-1]) if isinstance(size, tuple | list) else _SMALL_CNN_SIZE


def _three(values: object) -> ThreeFloats:
    if not isinstance(values, Iterable):
        raise ConfigError(f"model.backbone: mean and std {values!r} are not one value per channel")
    one, two, three = (float(value) for value in values)
    return one, two, three


def _probe(network: nn.Module, name: str, size: int) -> int:
    """Number of features, measured on one image: timm's own attribute is not always right."""
    was_training = network.training
    network.eval()
    try:
        with torch.no_grad():
            features = network(torch.zeros(1, 3, size, size))
    except (RuntimeError, AssertionError, ValueError) as error:  # timm checks sizes by assert
        raise ConfigError(
            f"model.image_size: {name} does not take images of {size} pixels: {error}"
        ) from error
    network.train(was_training)
    if not isinstance(features, Tensor) or features.ndim != 2:
        raise ConfigError(f"model.backbone: {name} does not give one feature vector per image")
    return features.shape[1]


def _load_pretrained(
    network: nn.Module, name: str, weights: Mapping[str, Tensor], classifier: object, uri: str
) -> None:
    prefix = _prefix(weights, network.state_dict().keys(), uri)
    weights = {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
    names = (classifier,) if isinstance(classifier, str) else classifier or ()
    heads = tuple(f"{head}." for head in names)  # type: ignore[attr-defined]  # str or tuple of str
    weights = {key: value for key, value in weights.items() if not key.startswith(heads)}
    mine = network.state_dict().keys()
    missing = [key for key in mine if key not in weights]
    unexpected = [key for key in weights if key not in mine]
    if missing or unexpected:
        raise ConfigError(
            f"model.pretrained: {uri} does not hold the weights of {name}: "
            f"missing {_first(missing)}; not expected {_first(unexpected)}"
        )
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:  # another shape
        detail = " ".join(str(error).split())
        raise ConfigError(f"model.pretrained: {uri} does not fit {name}: {detail[:300]}") from error


def weight_blocks(backbone: nn.Module) -> dict[nn.Parameter, int]:
    """Each weight of a backbone -> the number of its block, counted from the input."""
    weights = dict(backbone.named_parameters())
    matcher = getattr(backbone, "group_matcher", None)
    if matcher is not None:  # of timm
        from timm.models import group_parameters  # see _timm_network

        numbers = group_parameters(backbone, matcher(coarse=False), reverse=True)
    else:
        blocks = list(dict.fromkeys(_block(name) for name in weights))
        numbers = {name: blocks.index(_block(name)) for name in weights}
    return {weight: numbers[name] for name, weight in weights.items()}


def _block(name: str) -> str:
    """The first two parts of a weight's name, e.g. `blocks.0`."""
    return ".".join(name.split(".")[:2])


def _prefix(weights: Mapping[str, Tensor], names: Iterable[str], uri: str) -> str:
    """What stands before the names of the network in those of the weights, e.g. `model.`.

    Empty where they hold the network under no prefix; else the prefix of most of its names.
    """
    first, *others = names
    found = {
        key.removesuffix(first): sum(key.removesuffix(first) + name in weights for name in others)
        for key in weights
        if f".{key}".endswith(f".{first}")
    }
    whole = sorted(prefix for prefix, n in found.items() if n == len(others))
    if len(whole) > 1 and "" not in whole:
        raise ConfigError(
            f"model.pretrained: {uri}: several models have these weights: "
            f"{', '.join(prefix.rstrip('.') for prefix in whole)}; save one of them alone"
        )
    return "" if "" in whole else max(found, key=lambda prefix: found[prefix], default="")


def _first(keys: list[str]) -> str:
    more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
    return (", ".join(keys[:3]) or "nothing") + more


def read_weights(uri: str) -> dict[str, Tensor]:
    """The tensors of a .safetensors or .pth file by name, on the CPU; runs no code of the file.

    A checkpoint of timm's train script or of Lightning gives the tensors of its model.

    Raises:
        ConfigError: the file cannot be read, or holds other data than named tensors.
    """
    try:
        content = storage.read_bytes(uri)
    except OSError as error:
        raise ConfigError(f"model.pretrained: {uri}: cannot be read: {error}") from error
    try:
        weights = (
            safetensors.torch.load(content)
            if uri.endswith(".safetensors")
            else _unpickled(content, uri)
        )
    except (safetensors.SafetensorError, RuntimeError, EOFError) as error:
        first_line = str(error).partition("\n")[0]
        raise ConfigError(
            f"model.pretrained: {uri}: not a file of weights: {first_line}"
        ) from error
    for key in _CHECKPOINT_KEYS:
        if isinstance(weights, dict) and isinstance(weights.get(key), dict):
            weights = weights[key]
            break
    if not isinstance(weights, dict) or not all(isinstance(v, Tensor) for v in weights.values()):
        raise ConfigError(f"model.pretrained: {uri}: expected named tensors only")
    return weights


def _unpickled(content: bytes, uri: str) -> Any:
    """The content of a .pth file, and of what programs save beside the weights what is harmless."""
    try:
        with torch.serialization.safe_globals(list(_HARMLESS)):
            return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:  # torch's own text says how to run the file's code
        found = _FOREIGN.search(str(error))
        what = f": it also holds objects of {found[1]}; save its state_dict alone" if found else ""
        raise ConfigError(f"model.pretrained: {uri}: not a file of weights{what}") from error
