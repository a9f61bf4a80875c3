"""Finds operations that would make the CPU wait for a GPU, also where there is none."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

WAITING = {
    "aten._local_scalar_dense.default",  # item(), bool(), float()
    "aten.nonzero.default",
    "aten.masked_select.default",
    "aten.unique_dim.default",
    "aten._unique2.default",
    "aten.is_nonzero.default",
}
INDEXING = {"aten.index.Tensor", "aten.index_put_.default", "aten.index_put.default"}


class NoWaiting(TorchDispatchMode):
    """Within it, an operation whose result size or value the CPU must know is an error."""

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        name = str(func)
        assert name not in WAITING, name
        if name in INDEXING:
            masks = [part for part in args[1] if isinstance(part, Tensor)]
            assert all(mask.dtype != torch.bool for mask in masks), f"{name} with a mask"
        return func(*args, **(kwargs or {}))
