"""How a training computes: compiled code, and algorithms that repeat their results."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ctc_ray.errors import ConfigError
from ctc_ray.models.multi_head import MultiHeadModel

_CUBLAS = "CUBLAS_WORKSPACE_CONFIG"  # without it matrix products of CUDA are not repeatable


def compile_backbone(model: MultiHeadModel, device: torch.device | str) -> list[str]:
    """Let the backbone run as compiled code, from its first batch of each size on.

    The model stays the same object with the same names of weights. Each size is compiled for
    itself, so the code does not depend on the sizes seen before, and a resumed training computes as
    an uninterrupted one.

    Returns:
        A line for the user if there is no compiler: nothing is compiled then.
    """
    probe = torch.compile(_probe, dynamic=False)
    try:
        probe(torch.ones(8, device=device))
    except (RuntimeError, OSError, ImportError) as error:
        reason = str(error).strip().partition("\n")[0]
        return [f"--compile: this machine cannot compile ({reason}); computing without"]
    model.backbone.compile(dynamic=False)
    return []


def _probe(values: torch.Tensor) -> torch.Tensor:
    return torch.sin(values) + 1


@contextmanager
def repeatable(*, is_on: bool) -> Iterator[None]:
    """Within it, torch takes algorithms whose results are the same bits in every run.

    That holds for the same GPU model, number of workers and versions. CPUs need no such algorithms.

    Raises:
        ConfigError: the network needs an operation that has none.
    """
    if not is_on:
        yield
        return
    cudnn = torch.backends.cudnn
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    before_cudnn, before_cublas = (cudnn.deterministic, cudnn.benchmark), os.environ.get(_CUBLAS)
    os.environ[_CUBLAS] = before_cublas or ":4096:8"
    torch.use_deterministic_algorithms(True)
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        yield
    except RuntimeError as error:
        if "deterministic" not in str(error):
            raise
        reason = str(error).partition(". ")[0]
        raise ConfigError(f"--deterministic: {reason}; train without it") from error
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        cudnn.deterministic, cudnn.benchmark = before_cudnn
        if before_cublas is None:
            del os.environ[_CUBLAS]
