"""Batches on the device of a training: copied while the batch before them is computed.

The thread that makes a batch pins its memory, and starts the copy on a stream of its own. The
thread that trains makes its own stream wait for the copy, and goes on.
"""

import contextlib
from dataclasses import replace

import torch
from torch import Tensor

from ctc_ray.training.batches import Batch


class ToDevice:
    """Starts the copies of batches to a device; batches for a CPU stay as they are."""

    def __init__(self, device: torch.device | str) -> None:
        self.device = torch.device(device)
        self._stream: torch.cuda.Stream | None = None
        if self.device.type == "cuda":
            self._stream = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]

    def beside(self) -> contextlib.AbstractContextManager[object]:
        """Within it, a GPU computes on the stream of the copies, beside the training."""
        if self._stream is None:
            return contextlib.nullcontext()
        return torch.cuda.stream(self._stream)

    def send(self, batch: Batch) -> Batch:
        """The batch with tensors on the device, where they are once `sent` has happened."""
        if self._stream is None:
            return batch
        with self.beside():
            images_BCHW = copied(batch.images_BCHW, self.device)
            labels = {head: copied(part, self.device) for head, part in batch.labels.items()}
            event = self._stream.record_event()
        return replace(batch, images_BCHW=images_BCHW, labels=labels, sent=event)


def arrived(batch: Batch, device: torch.device | str) -> tuple[Tensor, dict[str, Tensor]]:
    """Images and labels of a batch on the device, for what is computed there next.

    Args:
        batch: from `ToDevice.send`, or in the memory of the CPU.
    """
    if batch.sent is None:
        labels = {head: copied(part, device) for head, part in batch.labels.items()}
        return copied(batch.images_BCHW, device), labels
    stream = torch.cuda.current_stream(batch.images_BCHW.device)
    stream.wait_event(batch.sent)
    for tensor in (batch.images_BCHW, *batch.labels.values()):
        tensor.record_stream(stream)  # its memory is not given away before the stream is done
    return batch.images_BCHW, batch.labels


def copied(tensor: Tensor, device: torch.device | str) -> Tensor:
    """The tensor on the device; the CPU does not wait until a GPU has it.

    A copy from ordinary memory would wait until the GPU has done all that it was given before.
    """
    if torch.device(device).type != "cuda" or tensor.device.type == "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
