"""Weights that a training begins with: those of a bundle, or a file that other programs have saved.

A bundle's weights expect the pixels that it was trained with, so its mean, deviation and size come
with them, and its heads where the classes agree.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ctc_ray.errors import IncompleteDataError
from ctc_ray.files import storage
from ctc_ray.labels import LabelSpace
from ctc_ray.models.backbones import Backbone, ThreeFloats, make_backbone, read_weights
from ctc_ray.models.bundle import BUNDLE_FILE, WEIGHTS_FILE, Bundle, load_bundle
from ctc_ray.models.multi_head import MultiHeadModel


@dataclass(frozen=True)
class StartingWeights:
    """Named tensors to begin with, and what belongs to them."""

    uri: str
    backbone: Mapping[str, Tensor]
    """By the names of the backbone, or of a whole model of timm."""
    bundle: Bundle | None = None
    """The bundle that they are from."""

    @property
    def image_size(self) -> int | None:
        """Side of the input that they were trained with, if that is known."""
        return None if self.bundle is None else self.bundle.image_size

    @property
    def normalisation(self) -> tuple[ThreeFloats, ThreeFloats] | None:
        """Mean and deviation of the pixels that they were trained with, if these are known."""
        if self.bundle is None:
            return None
        mean, std = self.bundle.model.pixel_mean, self.bundle.model.pixel_std
        return (mean[0], mean[1], mean[2]), (std[0], std[1], std[2])


@dataclass(frozen=True)
class LoadedHeads:
    """Which heads begin with weights of a bundle."""

    kept: list[str] = field(default_factory=list)
    new: dict[str, str] = field(default_factory=dict)
    """Head -> why it begins at random."""


def read_starting_weights(uri: str) -> StartingWeights:
    """The weights of a bundle (its folder or its file of weights), or of any other file.

    Raises:
        ConfigError: the file cannot be read, or holds no weights.
        SchemaError: a bundle is damaged.
        IncompleteDataError: the folder holds no bundle.
    """
    folder = _bundle_folder(uri)
    if folder is None:
        return StartingWeights(uri, read_weights(uri))
    bundle = load_bundle(folder)
    return StartingWeights(uri, bundle.model.backbone.state_dict(), bundle)


def backbone_to_begin_with(
    name: str, *, pretrained: str | bool, image_size: int | None
) -> tuple[Backbone, StartingWeights | None]:
    """The backbone of this name, and the weights of a file or bundle that it begins with.

    Args:
        pretrained: see `make_backbone`; a URI may also name a bundle's folder.
        image_size: None: that of the bundle, else the backbone's own.

    Raises:
        ConfigError: there is no such backbone, or the weights do not fit it.
    """
    if isinstance(pretrained, bool):
        return make_backbone(name, pretrained=pretrained, image_size=image_size), None
    start = read_starting_weights(pretrained)
    size = image_size or start.image_size
    backbone = make_backbone(
        name,
        pretrained=start.backbone,
        image_size=size,
        source=start.uri,
        weights_size=start.image_size,
    )
    return backbone, start


def _bundle_folder(uri: str) -> str | None:
    """The folder of the bundle that the URI names; None for another file."""
    if storage.is_folder(uri):
        if storage.is_file(storage.join(uri, BUNDLE_FILE)):
            return uri
        raise IncompleteDataError(f"model.pretrained: {uri}: a folder without {BUNDLE_FILE}")
    folder, _, name = uri.rpartition("/")
    is_of_bundle = name == WEIGHTS_FILE and storage.is_file(storage.join(folder, BUNDLE_FILE))
    return folder if is_of_bundle else None


def weights_files(uri: str) -> list[str]:
    """The files that determine the weights and what comes with them."""
    folder = _bundle_folder(uri)
    if folder is None:
        return [uri]
    return [storage.join(folder, name) for name in (BUNDLE_FILE, WEIGHTS_FILE)]


def load_heads(model: MultiHeadModel, start: StartingWeights) -> LoadedHeads:
    """Give the model's heads the weights of the bundle's heads with the same name and classes.

    The classes may have another order.
    """
    loaded = LoadedHeads()
    old = start.bundle
    for number, head in enumerate(model.label_space.heads):
        if old is None or head not in old.label_space.classes:
            loaded.new[head] = "the weights have no such head"
            continue
        reason = _difference(old.label_space, model.label_space, head)
        if reason:
            loaded.new[head] = reason
            continue
        there = old.label_space.classes[head]
        order = torch.tensor([there.index(name) for name in model.label_space.classes[head]])
        layer = old.model.heads[old.label_space.heads.index(head)].state_dict()
        model.heads[number].load_state_dict({k: v[order] for k, v in layer.items()})
        loaded.kept.append(head)
    return loaded


def _difference(old: LabelSpace, new: LabelSpace, head: str) -> str:
    there, here = set(old.classes[head]), set(new.classes[head])
    if there == here:
        return ""
    added, gone = sorted(here - there), sorted(there - here)
    parts = [f"{len(added)} new classes, such as {added[0]}"] if added else []
    parts += [f"{len(gone)} classes less, such as {gone[0]}"] if gone else []
    return " and ".join(parts)


def report(start: StartingWeights, loaded: LoadedHeads, keep_aspect: bool) -> Iterator[str]:
    """What was loaded, a line each.

    Args:
        keep_aspect: how the new model's images are cut.
    """
    bundle = start.bundle
    what = "the backbone" if bundle is None else (
        f"the backbone, its input of {bundle.image_size} pixels, its mean and deviation"
    )  # fmt: skip
    yield f"weights of {start.uri}: {what}"
    if bundle is not None and bundle.keep_aspect != keep_aspect:
        was, now = ("cropped", "squeezed") if bundle.keep_aspect else ("squeezed", "cropped")
        yield (
            f"  its images were {was} to a square, those of this training are {now} "
            f"(--model.keep-aspect {str(bundle.keep_aspect).lower()} to keep it)"
        )
    for head in loaded.kept:
        yield f"  head {head}: its weights, too"
    for head, reason in loaded.new.items():
        yield f"  head {head}: begins at random ({reason})"
