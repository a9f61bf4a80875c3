"""Names of backbones: those of camera-trap-classifier are other names of models of timm."""

from collections.abc import Mapping

BACKBONES_OF_ORIGINAL: Mapping[str, str] = {
    "ResNet18": "resnet18",
    "ResNet34": "resnet34",
    "ResNet50": "resnet50",
    "ResNet101": "resnet101",
    "ResNet152": "resnet152",
    "Xception": "legacy_xception",
    "InceptionResNetV2": "inception_resnet_v2",
    "small_cnn": "small_cnn",
}
"""Name there -> name here. Their inputs are those of the original (224 pixels; Xception and
InceptionResNetV2 299), but for small_cnn: 64 instead of 50, which is odd after one halving."""

_BY_LOWER_CASE = {name.lower(): here for name, here in BACKBONES_OF_ORIGINAL.items()}


def backbone_name(name: str) -> str:
    """The name here of a backbone, whether it is named as here or, in any case, as there."""
    return _BY_LOWER_CASE.get(name.lower(), name)
