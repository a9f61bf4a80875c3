"""Workers that share the rows of a step make the step of one worker that has them all."""

import pytest
import torch
from gloo_steps import (
    HEAD_WEIGHTS,
    KINDS,
    LABELS,
    MIXED,
    N_PARTS,
    SHARES,
    Linear,
    Moved,
    moved_by_one,
    moved_by_workers,
    n_images_of,
    parts,
    rows,
    share,
)
from torch import Tensor

from ctc_ray.training.batches import Batch
from ctc_ray.training.mixing import mix as mixed_batch


@pytest.fixture(scope="module")
def moved(
    tmp_path_factory: pytest.TempPathFactory,
) -> Moved:
    return moved_by_workers(str(tmp_path_factory.mktemp("gloo")))


@pytest.mark.parametrize("missing", SHARES)
@pytest.mark.parametrize("n_workers", [2, 4])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n_parts", N_PARTS)
def test_the_gradient_of_several_workers_is_that_of_one(moved, n_workers, kind, n_parts, missing):
    alone = moved_by_one(kind, missing)
    assert float(alone.abs().max()) > 1e-2
    found = moved[n_workers, kind, "none", n_parts, missing]
    assert torch.allclose(found, alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("missing", SHARES)
@pytest.mark.parametrize("n_workers", [1, 2, 4])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mix", MIXED)
@pytest.mark.parametrize("n_parts", N_PARTS)
def test_the_gradient_is_that_of_the_formula(moved, n_workers, kind, mix, n_parts, missing):
    """With class weights, mixed labels, accumulation, and missing labels at once."""
    batches = [
        part
        for rank in range(n_workers)
        for part in parts(share(rows(missing), rank, n_workers), n_parts)
    ]
    expected = -gradient_by_formula(batches, kind, mix)
    if n_workers == 1:
        found = moved_by_one(kind, missing, mix, n_parts)
    else:
        found = moved[n_workers, kind, mix, n_parts, missing]
    assert torch.allclose(found.double(), expected, atol=1e-5, rtol=0)


def gradient_by_formula(batches: list[Batch], kind: str, mix: str) -> Tensor:
    """The gradients of the weighted mean over all labels, each in its share of an image."""
    model = Linear().double()
    total = sum(weight.sum() for weight in model.parameters()) * 0
    for head in LABELS.heads:
        sums = torch.zeros(2, dtype=torch.float64)
        for batch in batches:
            images, targets = mixed_batch(
                batch.images_BCHW, batch.labels, batch.seeds, kind=mix, alpha=1.0
            )
            logits = model.heads[head](images.double().flatten(1) / 255)
            for target in targets:
                known = torch.nonzero(target.labels[head] >= 0).squeeze(1)
                values = by_formula(logits[known], target.labels[head][known], head, kind)
                sums = sums + target.share * torch.stack(values).sum(dim=1)
        if sums[1] > 0:
            total = total + HEAD_WEIGHTS.get(head, 1) * sums[0] / sums[1]
    total.backward()
    return torch.cat([weight.grad.flatten() for weight in model.parameters()])


def by_formula(logits: Tensor, labels: Tensor, head: str, kind: str) -> tuple[Tensor, Tensor]:
    """The loss of each labelled row, and its weight in the mean."""
    n = torch.tensor(list(n_images_of(head)), dtype=torch.float64)
    rows, k = torch.arange(len(labels)), len(n)
    p = torch.softmax(logits, dim=1)
    match kind:
        case "plain":
            return -p[rows, labels].log(), torch.ones(len(rows), dtype=torch.float64)
        case "default":  # labels smoothed by 0.1
            smooth = torch.full_like(p, 0.1 / k)
            smooth[rows, labels] += 0.9
            return -(smooth * p.log()).sum(dim=1), torch.ones(len(rows), dtype=torch.float64)
        case "weighted":  # inverse, with a mean of 1 over images; labels smoothed by 0.1
            weights = n.sum() / (k * n)
            smooth = torch.full_like(p, 0.1 / k)
            smooth[rows, labels] += 0.9
            return -(weights * smooth * p.log()).sum(dim=1), weights[labels]
        case "focal":  # effective numbers, logits adjusted by shares
            p = torch.softmax(logits + (n / n.sum()).log(), dim=1)[rows, labels]
            weights = (1 - 0.999) / (1 - 0.999**n)
            weights = (weights * n.sum() / (weights * n).sum())[labels]
            return -weights * (1 - p) ** 2 * p.log(), weights
    raise AssertionError(kind)
