"""One step of training on one worker, and shared by several processes of torch.distributed.

A module of its own, because a new process must be able to import it.
"""

import itertools

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ctc_ray.config.choices import Mixing
from ctc_ray.config.optimization import LossConfig
from ctc_ray.labels import LabelSpace
from ctc_ray.training.batches import IGNORE_INDEX, Batch
from ctc_ray.training.loop import EpochSettings, train_epoch
from ctc_ray.training.losses import LossSettings, Workers, head_settings

LABELS = LabelSpace({"species": ("a", "b", "c", "d"), "young": ("no", "yes"), "count": ("1", "2")})
KINDS = {
    "plain": LossConfig(label_smoothing=0),
    "default": LossConfig(),
    "weighted": LossConfig(class_weights="inverse", label_smoothing=0.1),
    "focal": LossConfig(
        class_weights="effective-number", focal_gamma=2, logit_adjustment=1, label_smoothing=0
    ),
}
MIXED: tuple[Mixing, ...] = ("none", "mixup", "cutmix")
HEAD_WEIGHTS = {"young": 2.0}
N_PARTS = (1, 3)  # batches per step
SHARES = (0.0, 0.5, 0.97, 0.99, 1.0)
N_ROWS, N_WORKERS = 64, 4


class Linear(nn.Module):
    """One layer per head: every gradient is a sum over rows."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.heads = nn.ModuleDict({h: nn.Linear(12, LABELS.n_classes(h)) for h in LABELS.heads})

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        flat = images.float().flatten(1) / 255
        return {head: layer(flat) for head, layer in self.heads.items()}


def rows(missing: float) -> Batch:
    """A batch of which this share of the labels of the second head is missing."""
    generator = torch.Generator().manual_seed(int(missing * 1000))
    images = torch.randint(0, 256, (N_ROWS, 3, 2, 2), dtype=torch.uint8, generator=generator)
    labels = {
        head: torch.randint(0, LABELS.n_classes(head), (N_ROWS,), generator=generator)
        for head in LABELS.heads
    }
    lost = torch.randperm(N_ROWS, generator=generator)[: round(missing * N_ROWS)]
    labels["young"][lost] = IGNORE_INDEX
    labels["count"][: N_ROWS // 2] = IGNORE_INDEX  # some workers have none at all
    names = tuple(map(str, range(N_ROWS)))
    return Batch(images, labels, tuple(range(N_ROWS)), names, names)


def parts(batch: Batch, n: int) -> list[Batch]:
    """The batch in n batches of different sizes."""
    cuts = [0, *sorted({1 + len(batch.seeds) * k * k // (n * n) for k in range(1, n)})]
    return [cut(batch, a, b) for a, b in itertools.pairwise([*cuts, len(batch.seeds)])]


def share(batch: Batch, rank: int, n_workers: int) -> Batch:
    return cut(batch, rank * N_ROWS // n_workers, (rank + 1) * N_ROWS // n_workers)


def cut(batch: Batch, first: int, last: int) -> Batch:
    part = slice(first, last)
    return Batch(
        batch.images_BCHW[part],
        {head: values[part] for head, values in batch.labels.items()},
        batch.seeds[part],
        batch.image_ids[part],
        batch.capture_event_ids[part],
    )


def n_images_of(head: str) -> range:
    """Training images of each class, which the class weights are made of."""
    return range(5, 5 + LABELS.n_classes(head))


def step(
    model: nn.Module,
    batches: list[Batch],
    kind: str,
    mix: Mixing = "none",
    workers: Workers | None = None,
) -> None:
    """One step of plain SGD with a rate of 1: the weights move by the gradient."""
    heads = {head: head_settings(KINDS[kind], n_images_of(head)) for head in LABELS.heads}
    loss = LossSettings(HEAD_WEIGHTS, heads, workers)
    settings = EpochSettings(LABELS, loss, accumulate=len(batches), mix=mix, mix_alpha=1.0)
    train_epoch(model, batches, torch.optim.SGD(model.parameters(), lr=1.0), settings, epoch=0)


def moved(model: nn.Module) -> Tensor:
    before, after = Linear().state_dict(), model.state_dict()
    return torch.cat([(after[name] - before[name]).flatten() for name in before])


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    store = f"file://{folder}/store"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=N_WORKERS)
    found = {}
    for n_workers in (2, 4):
        group = dist.new_group(list(range(n_workers)))
        cases = list(itertools.product(KINDS, MIXED, N_PARTS, SHARES))
        for kind, mix, n_parts, missing in cases if rank < n_workers else ():
            model = Linear()

            def total(values: Tensor, group: dist.ProcessGroup = group) -> Tensor:
                dist.all_reduce(values, group=group)
                return values

            wrapped = DistributedDataParallel(model, process_group=group)
            part = share(rows(missing), rank, n_workers)
            step(wrapped, parts(part, n_parts), kind, mix, Workers(n_workers, total))
            found[n_workers, kind, mix, n_parts, missing] = moved(model)
    if rank == 0:
        torch.save(found, f"{folder}/moved.pt")
    dist.barrier()
    dist.destroy_process_group()


Moved = dict[tuple[int, str, Mixing, int, float], Tensor]


def moved_by_workers(folder: str) -> Moved:
    """How the weights moved, by the case.

    Returns:
        workers, kind of loss, mixing, batches per step, share of missing labels -> the change.
    """
    mp.spawn(work, (folder,), nprocs=N_WORKERS)
    found: Moved = torch.load(f"{folder}/moved.pt", weights_only=True)
    return found


def moved_by_one(kind: str, missing: float, mix: Mixing = "none", n_parts: int = 1) -> Tensor:
    """How the weights of a worker move that has all rows."""
    model = Linear()
    step(model, parts(rows(missing), n_parts), kind, mix)
    return moved(model)
