"""A network with one output per head on a shared backbone.

B batch, C channels, H height, W width, K classes of a head, F features.
"""

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor, nn

from ctc_ray.labels import LabelSpace
from ctc_ray.models.backbones import Backbone


class MultiHeadModel(nn.Module):
    """Backbone, dropout, and one linear layer per head of the label space.

    The weights' names do not depend on the names of heads: `backbone.…` and `heads.<place>.…`.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: Backbone,
        label_space: LabelSpace,
        *,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        dropout: float = 0.0,
        freeze_backbone: bool = False,
    ) -> None:
        """Args are as in `ModelConfig`; mean and std of pixels in [0, 1], None: the backbone's."""
        super().__init__()
        self.backbone_name = backbone.name
        self.label_space = label_space
        self.freeze_backbone = freeze_backbone
        # channels last in memory: on a CPU, a step of resnet18 takes .74 of the time and one of
        # tf_efficientnet_lite0 .55
        self.backbone = backbone.network.to(memory_format=torch.channels_last)
        self.dropout = nn.Dropout(dropout)
        self.heads = nn.ModuleList(
            nn.Linear(backbone.num_features, label_space.n_classes(head))
            for head in label_space.heads
        )
        self.pixel_mean = tuple(mean or backbone.mean)
        self.pixel_std = tuple(std or backbone.std)
        self.register_buffer("mean", _per_channel(self.pixel_mean), persistent=False)
        self.register_buffer("std", _per_channel(self.pixel_std), persistent=False)
        if freeze_backbone:
            self.backbone.requires_grad_(False)
        self.train()

    def train(self, mode: bool = True) -> Self:
        """Set training mode; a frozen backbone stays as it is, its batch statistics too."""
        super().train(mode)
        if self.freeze_backbone:
            self.backbone.eval()
        return self

    def forward(self, images_BCHW: Tensor) -> dict[str, Tensor]:
        """Logits (B, K) per head, in the order of the label space.

        Args:
            images_BCHW: RGB from 0 to 255; uint8, or floats where an image was scaled.
        """
        standardised_BCHW = (images_BCHW.float() / 255 - self.mean) / self.std
        standardised_BCHW = standardised_BCHW.contiguous(memory_format=torch.channels_last)
        if self.freeze_backbone:
            with torch.no_grad():
                features_BF = self.backbone(standardised_BCHW)
        else:
            features_BF = self.backbone(standardised_BCHW)
        features_BF = self.dropout(features_BF)
        return {
            head: layer(features_BF)
            for head, layer in zip(self.label_space.heads, self.heads, strict=True)
        }


def _per_channel(values: Sequence[float]) -> Tensor:
    return torch.tensor(list(values), dtype=torch.float32).reshape(1, 3, 1, 1)
