"""What happens to the weights of a training between its steps and its workers."""

import itertools

import torch
from torch import Tensor, nn
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


class MovingAverage(AveragedModel):
    """As torch's, whose every update copies a counter to the GPU, and waits for it."""

    def update_parameters(self, model: nn.Module) -> None:
        """Move the average towards the model; the first time, take its weights."""
        if self.multi_avg_fn is None or not self.n_averaged:
            super().update_parameters(model)
            return
        mine = itertools.chain(self.module.parameters(), self.module.buffers())
        theirs = itertools.chain(model.parameters(), model.buffers())
        groups: dict[torch.dtype, tuple[list[Tensor], list[Tensor]]] = {}
        for average, weight in zip(mine, theirs, strict=True):
            averages, weights = groups.setdefault(average.dtype, ([], []))
            averages.append(average.detach())
            weights.append(weight.detach())
        for averages, weights in groups.values():
            self.multi_avg_fn(averages, weights, self.n_averaged)  # it does not read the counter
        self.n_averaged += 1


def moving_average(model: MultiHeadModel, decay: float) -> MovingAverage | None:
    """A moving average of the weights and the batch statistics; None: there is none."""
    if not decay:
        return None
    average = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]  # torch has no types
    return MovingAverage(model, multi_avg_fn=average, use_buffers=True)


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
