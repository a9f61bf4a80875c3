"""A model that takes images of any size and returns probabilities; `ctc export` writes it.

Images are scaled by two matrix products. PyTorch, torch.export and ONNX compute matrix products
alike and accept any size; the resize operators of ONNX runtimes differ. The filter is the one of
antialiased bilinear scaling in Pillow and PyTorch: a triangle as wide as an output pixel.

B batch, C channels, H height, W width, S side of the network's input, K classes of a head.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ctc_ray.models.bundle import Bundle
from ctc_ray.models.multi_head import MultiHeadModel


class Classifier(nn.Module):
    """Scales and standardises images and returns the softmax probabilities of every head."""

    def __init__(self, model: MultiHeadModel, *, image_size: int, keep_aspect: bool) -> None:
        super().__init__()
        self.model = model
        self.image_size = image_size
        self.keep_aspect = keep_aspect
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
        logits = self.model(scaled_BCSS)
        return tuple(torch.softmax(logits[head], dim=1) for head in self.model.label_space.heads)


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
    bundle: Bundle, images_BHWC: npt.NDArray[np.uint8]
) -> dict[str, npt.NDArray[np.float32]]:
    """Head -> probabilities (B, K) of the images, in the order of the label space.

    Equal batches give equal bits. Images of the network's own size are not scaled.

    Args:
        images_BHWC: RGB images of any height and width; B may be 0.
    """
    if len(images_BHWC) == 0:
        return {
            head: np.zeros((0, bundle.label_space.n_classes(head)), np.float32)
            for head in bundle.label_space.heads
        }
    side = bundle.image_size
    pixels_BHWC = torch.tensor(images_BHWC).to(bundle.model.mean.device)
    with torch.inference_mode():
        if pixels_BHWC.shape[1:3] == (side, side):
            logits = bundle.model(pixels_BHWC.permute(0, 3, 1, 2))
            probs = [torch.softmax(logits[head], dim=1) for head in bundle.label_space.heads]
        else:
            probs = list(make_classifier(bundle)(pixels_BHWC))
    return {
        head: probs_BK.cpu().numpy()
        for head, probs_BK in zip(bundle.label_space.heads, probs, strict=True)
    }


def make_classifier(bundle: Bundle) -> Classifier:
    """The bundle's model, which scales its images itself."""
    return Classifier(bundle.model, image_size=bundle.image_size, keep_aspect=bundle.keep_aspect)
