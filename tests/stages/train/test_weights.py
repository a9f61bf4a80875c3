"""The moving average of the weights is that of torch, bit for bit."""

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ctc_ray.stages.train.weights import MovingAverage

DECAY = 0.9


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(6, 5))


def train(learning: nn.Module, *averages: AveragedModel, n_steps: int) -> None:
    """Weights, batch statistics and the counter of the batch norm change."""
    for step in range(n_steps):
        torch.manual_seed(step)
        device = next(learning.parameters()).device
        learning(torch.rand(2, 3, 8, 8).to(device))
        with torch.no_grad():
            for weight in learning.parameters():
                weight.add_(torch.rand(weight.shape).to(device))
        for average in averages:
            average.update_parameters(learning)


def test_each_update_is_that_of_torch() -> None:
    learning = model()
    ours, torchs = (
        kind(learning, multi_avg_fn=get_ema_multi_avg_fn(DECAY), use_buffers=True)
        for kind in (MovingAverage, AveragedModel)
    )
    for n_steps in (1, 1, 5):
        train(learning, ours, torchs, n_steps=n_steps)
        assert ours.state_dict().keys() == torchs.state_dict().keys()
        for name, value in ours.state_dict().items():
            assert torch.equal(value, torchs.state_dict()[name]), name


@pytest.mark.gpu
def test_an_update_on_a_gpu_waits_for_nothing() -> None:
    learning = model().cuda()
    average = MovingAverage(learning, multi_avg_fn=get_ema_multi_avg_fn(DECAY), use_buffers=True)
    train(learning, average, n_steps=2)
    torch.cuda.set_sync_debug_mode("error")
    try:
        average.update_parameters(learning)
    finally:
        torch.cuda.set_sync_debug_mode("default")
