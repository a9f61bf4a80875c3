"""What happens to the weights of a training between its steps and its workers."""

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ctc_ray.config.choices import Precision
from ctc_ray.models.multi_head import MultiHeadModel


def sum_over_workers(tensor: Tensor) -> Tensor:
    """The sum over all workers, in place; each must call this."""
    torch.distributed.all_reduce(tensor)
    return tensor


def gradient_scaler(precision: Precision, device: torch.device | str) -> torch.amp.GradScaler:
    """What keeps small gradients from becoming 0 in float16; it does nothing for other numbers."""
    return torch.amp.GradScaler(torch.device(device).type, enabled=precision == "float16")


def moving_average(model: MultiHeadModel, decay: float) -> AveragedModel | None:
    """A moving average of the weights and the batch statistics; None: there is none."""
    if not decay:
        return None
    average = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]  # torch has no types
    return AveragedModel(model, multi_avg_fn=average, use_buffers=True)


def between(start: dict[str, Tensor], end: dict[str, Tensor], share: float) -> dict[str, Tensor]:
    """Weights at this share of the way; counters of batch norms are those of the end."""
    return {
        name: torch.lerp(start[name].to(value), value, share)
        if value.is_floating_point()
        else value
        for name, value in end.items()
    }


def copy(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights on the CPU, in memory of their own."""
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in state.items()}
