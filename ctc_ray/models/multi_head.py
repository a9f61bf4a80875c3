"""A network with one output per head on a shared backbone.

B batch, C channels, H height, W width, K classes of a head, F features.
"""

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor, nn

from ctc_ray.labels import LabelSpace
from ctc_ray.models.backbones import Backbone
from ctc_ray.models.low_rank import has_low_rank, learn_low_rank


class MultiHeadModel(nn.Module):
    """Backbone, dropout, and one linear layer per head of the label space.

    The names of the weights do not depend on the names of the heads: `backbone.…` and
    `heads.<index>.…`.
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
        """Put the network together.

        Args:
            backbone: gives the features; its weights are used, not copied.
            label_space: heads and classes of the outputs.
            mean: per channel of pixels in [0, 1]; None means the backbone's.
            std: likewise.
            dropout: share of features that training drops, in [0, 1).
            freeze_backbone: train the heads only.
        """
        super().__init__()
        self.backbone_name = backbone.name
        self.label_space = label_space
        self.backbone = backbone.network
        self.lay_out(channels_last=True)
        self.dropout = nn.Dropout(dropout)
        self.heads = nn.ModuleList(
            nn.Linear(backbone.num_features, label_space.n_classes(head))
            for head in label_space.heads
        )
        self.pixel_mean = tuple(mean or backbone.mean)
        self.pixel_std = tuple(std or backbone.std)
        self.register_buffer("mean", _per_channel(self.pixel_mean), persistent=False)
        self.register_buffer("std", _per_channel(self.pixel_std), persistent=False)
        self.freeze(is_frozen=freeze_backbone)

    @property
    def _has_low_rank(self) -> bool:
        return has_low_rank(self.backbone)

    def lay_out(self, *, channels_last: bool) -> None:
        """Choose how images and weights lie in memory; it changes the speed alone."""
        self._memory = torch.channels_last if channels_last else torch.contiguous_format
        self.backbone.to(memory_format=self._memory)

    def freeze(self, *, is_frozen: bool) -> None:
        """Train the heads only, or the backbone, too; see `add_low_rank` for which of its weights.

        A frozen backbone keeps its batch statistics.
        """
        self.freeze_backbone = is_frozen
        self.backbone.requires_grad_(not is_frozen)
        if self._has_low_rank and not is_frozen:
            learn_low_rank(self.backbone)
        self.train()

    def train(self, mode: bool = True) -> Self:
        """Set training mode; a backbone whose own weights are frozen stays in evaluation mode."""
        super().train(mode)
        if self.freeze_backbone or self._has_low_rank:
            self.backbone.eval()
        return self

    def forward(self, images_BCHW: Tensor) -> dict[str, Tensor]:
        """Head -> logits (B, K), in the order of the label space.

        Args:
            images_BCHW: RGB from 0 to 255, as uint8 or floats.
        """
        standardised_BCHW = (images_BCHW.float() / 255 - self.mean) / self.std
        standardised_BCHW = standardised_BCHW.contiguous(memory_format=self._memory)
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
