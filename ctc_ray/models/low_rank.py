"""Fine-tuning of a few weights: a matrix of low rank is added to that of each linear layer (LoRA).

E. J. Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022. The sum is a plain
weight again at the end, so no other part of the program knows of it.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ctc_ray.errors import ConfigError


class _PlusLowRank(nn.Module):
    """Adds `up @ down` to a weight; `up` begins at 0, so nothing changes at first."""

    def __init__(self, weight: Tensor, rank: int) -> None:
        super().__init__()
        n_out, n_in = weight.shape
        self.down = nn.Parameter(weight.new_empty(rank, n_in))
        self.up = nn.Parameter(weight.new_zeros(n_out, rank))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))  # as a linear layer of torch begins

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.up @ self.down


def add_low_rank(network: nn.Module, rank: int, *, name: str) -> None:
    """Add a matrix of this rank to each linear layer of the network, in place.

    Layers without more rows and columns than the rank stay as they are.

    Args:
        name: of the network, for the error.

    Raises:
        ConfigError: it has no such layer; networks of convolutions have none.
    """
    layers = [
        module
        for module in network.modules()
        if type(module) is nn.Linear and min(module.weight.shape) > rank
    ]
    if not layers:
        raise ConfigError(
            f"model.lora_rank: {name} has no linear layer that is larger than the rank {rank}; "
            "take a transformer or a convnext, or leave it out"
        )
    for layer in layers:
        parametrize.register_parametrization(layer, "weight", _PlusLowRank(layer.weight, rank))


def has_low_rank(network: nn.Module) -> bool:
    """Whether matrices of low rank are added to the network."""
    return any(isinstance(module, _PlusLowRank) for module in network.modules())


def learn_low_rank(network: nn.Module) -> None:
    """Let the matrices of low rank learn, and no other weight."""
    network.requires_grad_(False)
    for module in network.modules():
        if isinstance(module, _PlusLowRank):
            module.requires_grad_(True)


@torch.no_grad()
def merge_low_rank(network: nn.Module) -> None:
    """Make plain weights of the sums, with the names that they had before, in place.

    Layers are replaced: to remove what was added would also change copies of the network, which
    share its classes.
    """
    for parent in list(network.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, nn.Linear) and parametrize.is_parametrized(layer, "weight"):
                plain = nn.Linear(
                    layer.in_features, layer.out_features, layer.bias is not None, device="meta"
                )
                plain.weight = nn.Parameter(layer.weight.detach())
                plain.bias = layer.bias
                setattr(parent, name, plain.train(layer.training))
