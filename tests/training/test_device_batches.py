"""Batches reach the device ahead of the training, and nothing in a step waits for the device."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
import torch
from no_waiting import NoWaiting
from torch import Tensor, nn

from ctc_ray.config.optimization import LossConfig, OptimizerConfig
from ctc_ray.labels import LabelSpace
from ctc_ray.training.batches import IGNORE_INDEX, Batch, LoaderSettings, read_batches
from ctc_ray.training.calibration import CalibrationCounts
from ctc_ray.training.device_batches import ToDevice, arrived
from ctc_ray.training.event_metrics import EventCounts
from ctc_ray.training.loop import EpochSettings, evaluate, train_epoch
from ctc_ray.training.losses import LossSettings, head_settings, label_weights, multi_head_loss
from ctc_ray.training.metrics import MetricCounts
from ctc_ray.training.mixing import mix
from ctc_ray.training.optimizer import make_optimizer
from ctc_ray.training.plans import RowGroup, plan_epoch

MakeDataset = Callable[..., list[RowGroup]]
Decode = Callable[[bytes, int], npt.NDArray[np.uint8]]
EVENTS = [(f"e{i:03d}", [None, None]) for i in range(24)]


def loader(label_space: LabelSpace, decode: Decode) -> LoaderSettings:
    return LoaderSettings(label_space, decode, batch_size=5)


def read(make_dataset: MakeDataset, settings: LoaderSettings) -> list[Batch]:
    plan = plan_epoch(make_dataset(EVENTS), image_choice="all", seed=3, epoch=0)
    return list(read_batches(plan, settings))


def images_and_labels(n: int = 6) -> tuple[Tensor, dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (n, 3, 8, 8), generator=generator, dtype=torch.uint8)
    species = torch.tensor([0, 1, 2, IGNORE_INDEX, 1, 0])
    return images, {"species": species, "sex": torch.tensor([0, 1, IGNORE_INDEX] * 2)}


def test_batches_for_a_cpu_are_the_ones_that_were_read(
    make_dataset: MakeDataset, label_space: LabelSpace, decode: Decode
) -> None:
    to_device = ToDevice("cpu")
    for batch in read(make_dataset, loader(label_space, decode)):
        assert to_device.send(batch) is batch
        images, labels = arrived(batch, "cpu")
        assert images is batch.images_BCHW
        assert all(labels[head] is part for head, part in batch.labels.items())


def test_a_batch_is_sent_by_the_thread_that_has_made_it(
    make_dataset: MakeDataset, label_space: LabelSpace, decode: Decode
) -> None:
    senders: list[threading.Thread] = []

    def send(batch: Batch) -> Batch:
        senders.append(threading.current_thread())
        return replace(batch, seeds=(7,) * len(batch.seeds))

    settings = replace(loader(label_space, decode), send=send)
    sent = read(make_dataset, settings)
    assert len(senders) == len(sent)
    assert threading.main_thread() not in senders
    assert {batch.seeds for batch in sent} == {(7,) * len(batch.seeds) for batch in sent}


def test_images_that_are_decoded_together_are_those_decoded_one_by_one(
    make_dataset: MakeDataset, label_space: LabelSpace, decode: Decode
) -> None:
    def decode_all(jpegs: list[bytes], seeds: tuple[int, ...]) -> Tensor:
        assert len(jpegs) == len(seeds)
        return torch.stack([torch.from_numpy(decode(raw, 0).copy()) for raw in jpegs]).permute(
            0, 3, 1, 2
        )

    one_by_one = loader(label_space, decode)
    together = replace(one_by_one, decode_all=decode_all)
    for one, other in zip(
        read(make_dataset, one_by_one), read(make_dataset, together), strict=True
    ):
        assert torch.equal(one.images_BCHW, other.images_BCHW)
        assert (one.image_ids, one.seeds) == (other.image_ids, other.seeds)


@pytest.mark.parametrize("focal_gamma", [0.0, 2.0])
@pytest.mark.parametrize("kind", ["none", "mixup", "cutmix"])
def test_a_step_needs_no_value_on_the_cpu(
    label_space: LabelSpace, kind: str, focal_gamma: float
) -> None:
    """So a GPU never stands still between two steps."""
    images, labels = images_and_labels()
    config = LossConfig(
        class_weights="inverse", logit_adjustment=1, focal_gamma=focal_gamma, label_smoothing=0.1
    )
    heads = {head: head_settings(config, [3] * label_space.n_classes(head)) for head in labels}
    settings = LossSettings(heads=heads)
    counts = MetricCounts(label_space)
    logits = {
        head: torch.rand(6, label_space.n_classes(head), requires_grad=True) for head in labels
    }
    with NoWaiting():
        _, targets = mix(images, labels, range(6), kind=kind, alpha=1.0)
        weights = label_weights(targets, settings)
        multi_head_loss(logits, targets, settings, weights).backward()
        counts.update({head: part.detach() for head, part in logits.items()}, labels)


def test_counts_of_an_evaluation_need_no_value_of_the_device(label_space: LabelSpace) -> None:
    _, labels = images_and_labels()
    logits = {head: torch.rand(6, label_space.n_classes(head)) for head in labels}
    counted = (MetricCounts(label_space), CalibrationCounts(label_space))
    with NoWaiting():
        for counts in counted:
            counts.update(logits, labels)


# -- with a GPU ------------------------------------------------------------------------------------


class Tiny(nn.Module):
    def __init__(self, label_space: LabelSpace) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.heads = nn.ModuleDict(
            {head: nn.Linear(3, label_space.n_classes(head)) for head in label_space.heads}
        )

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        means = (images.float() / 255).mean(dim=(2, 3))
        return {head: layer(means) for head, layer in self.heads.items()}


@contextmanager
def no_synchronisation() -> Iterator[None]:
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
def test_batches_arrive_on_a_gpu_as_they_were_read(
    make_dataset: MakeDataset, label_space: LabelSpace, decode: Decode
) -> None:
    settings = loader(label_space, decode)
    sent = read(make_dataset, replace(settings, send=ToDevice("cuda").send))
    for batch, other in zip(sent, read(make_dataset, settings), strict=True):
        images, labels = arrived(batch, "cuda")
        assert images.is_cuda
        assert images.stride() == other.images_BCHW.stride()
        assert torch.equal(images.cpu(), other.images_BCHW)
        assert all(torch.equal(part.cpu(), other.labels[head]) for head, part in labels.items())


@pytest.mark.gpu
def test_an_epoch_with_batches_that_are_sent_ahead_gives_the_same_bits(
    make_dataset: MakeDataset, label_space: LabelSpace, decode: Decode
) -> None:
    settings = loader(label_space, decode)
    epoch = EpochSettings(label_space, device="cuda", mix="mixup")
    found = []
    for own in (settings, replace(settings, send=ToDevice("cuda").send)):
        model = Tiny(label_space).cuda()
        optimizer = make_optimizer(model, OptimizerConfig())
        batches = read(make_dataset, own)
        trained = train_epoch(model, batches, optimizer, epoch, epoch=0).compute()
        found.append((trained, evaluate(model, batches, epoch).compute()))
    assert found[0] == found[1]


@pytest.mark.gpu
def test_a_step_on_a_gpu_waits_for_nothing(
    make_dataset: MakeDataset, label_space: LabelSpace, decode: Decode
) -> None:
    settings = loader(label_space, decode)
    batches = read(make_dataset, replace(settings, send=ToDevice("cuda").send))
    epoch = EpochSettings(label_space, device="cuda", mix="cutmix")
    model = Tiny(label_space).cuda()
    optimizer = make_optimizer(model, OptimizerConfig())
    train_epoch(model, batches, optimizer, epoch, epoch=0)  # libraries begin
    seen: list[int] = []

    def observed() -> Iterator[Batch]:
        for batch in batches:  # the check of finite losses waits once, after the last batch
            with no_synchronisation():
                yield batch
            seen.append(len(batch.seeds))

    train_epoch(model, observed(), optimizer, epoch, epoch=1)
    assert sum(seen) == 48
    events = EventCounts(label_space, device="cuda")
    with no_synchronisation():
        evaluate(model, batches, epoch, events=events)
