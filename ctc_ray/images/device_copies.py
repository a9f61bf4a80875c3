"""Numbers that the CPU has drawn, copied to a device without waiting for it."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


def copied(
    values: npt.NDArray[np.generic], dtype: torch.dtype, device: torch.device | str
) -> Tensor:
    """The values as a tensor on a device.

    A copy from ordinary memory makes the CPU wait until a GPU has done all that it was given
    before; a copy from pinned memory does not.
    """
    tensor = torch.from_numpy(np.ascontiguousarray(values)).to(dtype)
    if torch.device(device).type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
