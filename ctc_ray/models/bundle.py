"""Save and load a trained model as one folder: weights.safetensors, bundle.json and README.md.

README.md is the model card. Loading runs no code and unpickles nothing. `ctc train` adds
_manifest.json last.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from ctc_ray import __version__
from ctc_ray.config.base import Config, build
from ctc_ray.errors import ConfigError, IncompleteDataError, LabelError, SchemaError
from ctc_ray.files import storage
from ctc_ray.labels import LabelSpace
from ctc_ray.models.backbones import Backbone, make_backbone
from ctc_ray.models.card import model_card
from ctc_ray.models.multi_head import MultiHeadModel

FORMAT_VERSION = 1
_SMALLEST, _LARGEST = 16, 2048  # side of the input in pixels, as in `ctc train`
WEIGHTS_FILE, BUNDLE_FILE, CARD_FILE = "weights.safetensors", "bundle.json", "README.md"


class Provenance(Config):
    """Data and configuration that a model was trained with, and its metrics."""

    config: dict[str, Any]
    """The configuration of the run that trained it."""
    data_fingerprint: str
    """Fingerprint of the dataset's manifest."""
    metrics: dict[str, float]
    """Metrics on the validation split, after the epoch of these weights."""
    n_training_images: dict[str, dict[str, int]]
    """Head -> class -> number of images with this label in the training split."""
    test_metrics: dict[str, float] = {}  # noqa: RUF012  # pydantic copies it
    """Metrics on the test split, if they were measured."""


@dataclass(frozen=True, eq=False)
class Bundle:
    """A trained model and all that its use needs; `load_bundle` gives it in evaluation mode."""

    model: MultiHeadModel
    image_size: int
    keep_aspect: bool
    provenance: Provenance
    temperatures: Mapping[str, float] = field(default_factory=dict)
    """Head -> what its logits are divided by before the softmax; 1 if absent."""
    is_stack: bool = False
    """Whether an input is up to three gray images of a capture event, as the channels of one."""

    def require_single_images(self, what: str) -> None:
        """Refuse what is done with single images.

        Raises:
            ConfigError: the model takes stacks.
        """
        if self.is_stack:
            raise ConfigError(
                f"{what}: this model takes stacks of an event's images (--image-choice stack); "
                "`ctc predict` makes them"
            )

    def uncalibrated(self) -> "Bundle":
        """The bundle without temperatures: its probabilities are the softmax of the logits."""
        return replace(self, temperatures={})

    @property
    def label_space(self) -> LabelSpace:
        """Heads and classes of the model, in the order of its outputs."""
        return self.model.label_space


class _BundleFile(Config):
    """The content of bundle.json."""

    format_version: int
    ctc_version: str
    backbone: str
    classes: dict[str, list[str]]
    image_size: int
    keep_aspect: bool
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    dropout: float
    temperatures: dict[str, float] = {}  # noqa: RUF012  # pydantic copies it
    is_stack: bool = False
    provenance: Provenance


def save_bundle(uri: str, bundle: Bundle) -> None:
    """Write the bundle's files into the folder; equal bundles give equal bytes."""
    model = bundle.model
    description = _BundleFile(
        format_version=FORMAT_VERSION,
        ctc_version=__version__,
        backbone=model.backbone_name,
        classes=model.label_space.to_json(),
        image_size=bundle.image_size,
        keep_aspect=bundle.keep_aspect,
        mean=model.pixel_mean,
        std=model.pixel_std,
        dropout=model.dropout.p,
        temperatures=dict(bundle.temperatures),
        is_stack=bundle.is_stack,
        provenance=bundle.provenance,
    ).model_dump(mode="json")
    weights = {
        name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()
    }
    storage.write_bytes(storage.join(uri, WEIGHTS_FILE), safetensors.torch.save(weights))
    storage.write_bytes(storage.join(uri, CARD_FILE), model_card(description).encode())
    storage.write_json(storage.join(uri, BUNDLE_FILE), description)


def load_bundle(uri: str, *, device: str = "cpu") -> Bundle:
    """The bundle in this folder; its model is on the device, in evaluation mode.

    Raises:
        IncompleteDataError: a file is missing.
        SchemaError: a file does not belong to a bundle, or the weights do not fit bundle.json, or
            are not numbers.
    """
    file = _read_description(uri)
    labels = _label_space(uri, file)
    weights = _read_weights(uri)
    _require_fitting(uri, weights, labels)
    model = MultiHeadModel(
        _backbone(uri, file),
        labels,
        mean=file.mean,
        std=file.std,
        dropout=file.dropout,
    )
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        detail = " ".join(str(error).split())[:300]
        raise SchemaError(
            f"{storage.join(uri, WEIGHTS_FILE)}: not the weights that {BUNDLE_FILE} describes: "
            f"{detail}"
        ) from error
    return Bundle(
        model=model.to(device).eval(),
        image_size=file.image_size,
        keep_aspect=file.keep_aspect,
        provenance=file.provenance,
        temperatures=file.temperatures,
        is_stack=file.is_stack,
    )


def read_provenance(uri: str) -> Provenance:
    """Where a bundle comes from; its weights are not read.

    Raises:
        IncompleteDataError: there is no bundle.json.
        SchemaError: it is damaged.
    """
    return _read_description(uri).provenance


def bundle_fingerprint(uri: str) -> str:
    """SHA-256 of all that determines a bundle's answers, 64 hex digits: description and weights.

    Raises:
        IncompleteDataError: a file is missing.
    """
    sha = hashlib.sha256()
    for name in (BUNDLE_FILE, WEIGHTS_FILE):
        sha.update(hashlib.sha256(_read(uri, name)).digest())
    return sha.hexdigest()


def _label_space(uri: str, file: _BundleFile) -> LabelSpace:
    try:
        return LabelSpace.from_json(file.classes)
    except LabelError as error:
        raise SchemaError(f"{storage.join(uri, BUNDLE_FILE)}: {error}") from error


def _backbone(uri: str, file: _BundleFile) -> Backbone:
    try:
        return make_backbone(file.backbone, image_size=file.image_size)
    except ConfigError as error:
        raise SchemaError(f"{storage.join(uri, BUNDLE_FILE)}: {error}") from error


def _require_fitting(uri: str, weights: dict[str, Tensor], labels: LabelSpace) -> None:
    """Check, before a network is built, that the weights are numbers and fit the classes."""
    weights_uri = storage.join(uri, WEIGHTS_FILE)
    layers = {name: tensor for name, tensor in weights.items() if name.startswith("heads.")}
    there = [len(tensor) for name, tensor in sorted(layers.items(), key=_layer) if tensor.ndim == 2]
    described = [labels.n_classes(head) for head in labels.heads]
    if there != described:
        raise SchemaError(
            f"{weights_uri}: not the weights that {BUNDLE_FILE} describes: outputs of "
            f"{_numbers(there)} classes, described are {_numbers(described)}"
        )
    for name, tensor in weights.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise SchemaError(f"{weights_uri}: {name} is not finite everywhere; train again")


def _layer(item: tuple[str, Tensor]) -> tuple[int, str]:
    """Sorts layers of heads, `heads.<index>.<weight or bias>`, by their index."""
    index = item[0].split(".")[1]
    return (int(index) if index.isdecimal() else -1), item[0]


def _numbers(values: list[int]) -> str:
    return ", ".join(map(str, values)) or "no"


def _read_description(uri: str) -> _BundleFile:
    file_uri = storage.join(uri, BUNDLE_FILE)
    try:
        value = json.loads(_read(uri, BUNDLE_FILE))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise SchemaError(f"{file_uri}: not JSON: {error}") from error
    except RecursionError as error:
        raise SchemaError(f"{file_uri}: not a bundle: too many brackets in one another") from error
    version = value.get("format_version") if isinstance(value, dict) else None
    if version != FORMAT_VERSION:
        raise SchemaError(
            f"{file_uri}: bundle format {version}, this ctc reads {FORMAT_VERSION}; train again"
        )
    try:
        file = build(_BundleFile, value, where=file_uri)
    except ConfigError as error:
        raise SchemaError(str(error)) from error
    sound = {
        "image_size": _SMALLEST <= file.image_size <= _LARGEST,
        "mean": all(map(math.isfinite, file.mean)),
        "std": all(math.isfinite(value) and value > 0 for value in file.std),
        "dropout": 0 <= file.dropout < 1,
        "temperatures": all(math.isfinite(t) and t > 0 for t in file.temperatures.values()),
    }
    for name, is_sound in sound.items():
        if not is_sound:
            raise SchemaError(f"{file_uri}: {name} cannot be {getattr(file, name)}")
    return file


def _read_weights(uri: str) -> dict[str, Tensor]:
    try:
        weights: dict[str, Tensor] = safetensors.torch.load(_read(uri, WEIGHTS_FILE))
    except safetensors.SafetensorError as error:
        raise SchemaError(f"{storage.join(uri, WEIGHTS_FILE)}: not safetensors: {error}") from error
    return weights


def _read(uri: str, name: str) -> bytes:
    try:
        return storage.read_bytes(storage.join(uri, name))
    except FileNotFoundError:
        raise IncompleteDataError(
            f"{uri}: no {name}, so this is not a finished bundle (run `ctc train`)"
        ) from None


HISTORY_FILE, METRICS_FILE = "history.csv", "metrics.json"
