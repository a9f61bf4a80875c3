"""A model that takes images of any size and returns probabilities; `ctc export` writes it.

Images are scaled by two matrix products. PyTorch, torch.export and ONNX compute matrix products
alike and accept any size; the resize operators of ONNX runtimes differ. The filter is the one of
antialiased bilinear scaling in Pillow and PyTorch: a triangle as wide as an output pixel.

B batch, C channels, H height, W width, S side of the network's input, K classes of a head.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ctc_ray.config.choices import Precision
from ctc_ray.models.bundle import Bundle


class Classifier(nn.Module):
    """Scales and standardises images and returns the softmax probabilities of every head."""

    def __init__(self, bundle: Bundle) -> None:
        super().__init__()
        self.model = bundle.model
        self.image_size = bundle.image_size
        self.keep_aspect = bundle.keep_aspect
        self.temperatures = dict(bundle.temperatures)
        self.eval()

    def forward(self, images_BHWC: Tensor) -> tuple[Tensor, ...]:
        """Probabilities (B, K) of each head, in the order of the label space.

        Args:
            images_BHWC: RGB, uint8, of any height and width.
        """
        height, width = images_BHWC.shape[1], images_BHWC.shape[2]
        if self.keep_aspect:
            shorter: Any = torch.sym_min(height, width)  # an int, or a symbol while exporting
            used_height, used_width = shorter, shorter
        else:
            used_height, used_width = height, width
        device = images_BHWC.device
        images_BCHW = images_BHWC.permute(0, 3, 1, 2).float()
        to_rows_SH = scaling_matrix(height, self.image_size, n_used=used_height, device=device)
        to_columns_SW = scaling_matrix(width, self.image_size, n_used=used_width, device=device)
        narrow_BCHS = _whole_values(images_BCHW @ to_columns_SW.T)
        scaled_BCSS = _whole_values(to_rows_SH @ narrow_BCHS)
        return tuple(_probs(self.model(scaled_BCSS), self.temperatures).values())


class AtOwnSize(nn.Module):
    """As `Classifier`, of images that have the network's own size."""

    def __init__(self, bundle: Bundle) -> None:
        super().__init__()
        self.model = bundle.model
        self.temperatures = dict(bundle.temperatures)
        self.eval()

    def forward(self, images_BSSC: Tensor) -> tuple[Tensor, ...]:
        """Probabilities (B, K) of each head, in the order of the label space."""
        logits = self.model(images_BSSC.permute(0, 3, 1, 2))
        return tuple(_probs(logits, self.temperatures).values())


def _whole_values(pixels: Tensor) -> Tensor:
    """Pillow, which scales for `ctc predict`, keeps whole values: columns first, then rows."""
    return torch.floor(pixels + 0.5)


def scaling_matrix(n_in: int, n_out: int, *, n_used: int, device: torch.device) -> Tensor:
    """The matrix (n_out, n_in) that scales a row of pixels; each of its rows adds up to 1.

    The result shows the `n_used` pixels in the middle; at its edges the filter reaches a little
    beyond them, as in `images/sampling.py`. The matrix cuts the image, because a slice would tie an
    exported model to landscape or portrait format. Without scaling and cutting, the matrix is
    exactly the identity.
    """
    n_left = (n_in - n_used) / 2
    centres_in = torch.arange(n_in, device=device, dtype=torch.float32) + 0.5 - n_left
    centres_out = torch.arange(n_out, device=device, dtype=torch.float32) + 0.5
    scale = n_used / n_out
    width = torch.clamp(torch.ones((), device=device) * scale, min=1.0)
    distance = (centres_in[None, :] - centres_out[:, None] * scale).abs()
    weights = torch.clamp(1 - distance / width, min=0.0)
    return weights / weights.sum(dim=1, keepdim=True)


def predict_probs(
    bundle: Bundle, images_BHWC: npt.NDArray[np.uint8], *, precision: Precision = "float32"
) -> dict[str, npt.NDArray[np.float32]]:
    """Head -> probabilities (B, K) of the images, in the order of the label space.

    Equal batches give equal bits. Images of the network's own size are not scaled.

    Args:
        images_BHWC: RGB images of any height and width; B may be 0.
        precision: of the network; the probabilities follow from its outputs in float32.
    """
    if len(images_BHWC) == 0:
        return bundle.label_space.no_probs()
    side = bundle.image_size
    pixels_BHWC = torch.tensor(images_BHWC).to(bundle.model.mean.device)
    with torch.inference_mode(), _computing(pixels_BHWC.device, precision):
        is_own_size = pixels_BHWC.shape[1:3] == (side, side)
        probs = (AtOwnSize if is_own_size else Classifier)(bundle)(pixels_BHWC)
    return {
        head: probs_BK.cpu().numpy()
        for head, probs_BK in zip(bundle.label_space.heads, probs, strict=True)
    }


def _computing(device: torch.device, precision: Precision) -> AbstractContextManager[object]:
    if precision == "float32":
        return nullcontext()
    return torch.autocast(device.type, dtype=getattr(torch, precision))


def _probs(logits: Mapping[str, Tensor], temperatures: Mapping[str, float]) -> dict[str, Tensor]:
    return {
        head: torch.softmax(logits_BK.float() / temperatures.get(head, 1.0), dim=1)
        for head, logits_BK in logits.items()
    }
