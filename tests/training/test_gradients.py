"""Workers that share the rows of a step make the step of one worker that has them all."""

import pytest
import torch
from gloo_steps import KINDS, N_PARTS, SHARES, Moved, moved_by_one, moved_by_workers


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
    assert torch.allclose(moved[n_workers, kind, n_parts, missing], alone, atol=1e-5, rtol=0)
