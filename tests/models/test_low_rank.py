"""Matrices of low rank: they alone learn, and their sum with the weights is a plain weight."""

import copy

import pytest
import torch

from ctc_ray.errors import ConfigError
from ctc_ray.labels import LabelSpace
from ctc_ray.models.backbones import make_backbone
from ctc_ray.models.low_rank import add_low_rank, merge_low_rank
from ctc_ray.models.multi_head import MultiHeadModel

LABELS = LabelSpace({"species": ("cat", "dog", "fox"), "count": ("1", "2")})
IMAGES = torch.randint(0, 256, (6, 3, 64, 64), generator=torch.Generator().manual_seed(1))
NAMES = ["test_vit", "test_convnext"]  # of timm, with few weights


def model(name: str, *, rank: int = 4) -> MultiHeadModel:
    torch.manual_seed(0)
    backbone = make_backbone(name, image_size=64)
    if rank:
        add_low_rank(backbone.network, rank, name=name)
    return MultiHeadModel(backbone, LABELS)


def learn(made: MultiHeadModel, n_steps: int = 5) -> None:
    optimizer = torch.optim.SGD([w for w in made.parameters() if w.requires_grad], lr=0.05)
    made.train()
    for _ in range(n_steps):
        optimizer.zero_grad()
        logits = made(IMAGES)
        target = torch.arange(6) % 2
        loss = sum(torch.nn.functional.cross_entropy(part, target) for part in logits.values())
        assert isinstance(loss, torch.Tensor)
        loss.backward()
        optimizer.step()


@pytest.mark.parametrize("name", NAMES)
def test_nothing_changes_at_first_and_only_low_rank_and_heads_learn(name: str) -> None:
    plain, made = model(name, rank=0), model(name)
    heads = {n: v.clone() for n, v in plain.heads.state_dict().items()}
    made.heads.load_state_dict(heads)
    with torch.no_grad():
        for head, logits in made.eval()(IMAGES).items():
            assert torch.equal(logits, plain.eval()(IMAGES)[head])
    before = {n: v.clone() for n, v in made.state_dict().items()}
    learn(made)
    changed = {n for n, v in made.state_dict().items() if not torch.equal(v, before[n])}
    assert changed <= {n for n in before if n.endswith((".up", ".down")) or n.startswith("heads.")}
    assert {n for n in before if n.startswith("heads.")} < changed
    assert any(n.endswith(".up") for n in changed)
    assert sum(w.numel() for w in made.parameters() if w.requires_grad) < 0.5 * sum(
        w.numel() for w in made.parameters()
    )


@pytest.mark.parametrize("name", NAMES)
def test_merged_it_answers_the_same_and_has_the_names_of_the_plain_network(name: str) -> None:
    made = model(name)
    learn(made)
    made.eval()
    merged = copy.deepcopy(made)
    merge_low_rank(merged.backbone)
    plain = model(name, rank=0).eval()
    assert not torch.equal(plain(IMAGES)["species"], made(IMAGES)["species"])
    assert set(merged.state_dict()) == set(plain.state_dict())
    plain.load_state_dict(merged.state_dict())
    for head, logits in made(IMAGES).items():
        assert torch.allclose(plain(IMAGES)[head], logits, rtol=1e-5, atol=1e-5)


def test_a_frozen_backbone_stays_frozen_and_learns_its_matrices_later() -> None:
    made = model("test_vit")
    made.freeze(is_frozen=True)
    assert not any(weight.requires_grad for weight in made.backbone.parameters())
    made.freeze(is_frozen=False)
    learning = {n for n, w in made.backbone.named_parameters() if w.requires_grad}
    names = {name for name, _ in made.backbone.named_parameters()}
    assert learning == {name for name in names if name.endswith((".up", ".down"))}
    assert learning


def test_a_network_without_linear_layers_is_one_line() -> None:
    with pytest.raises(ConfigError, match="small_cnn has no linear layer that is larger than the"):
        add_low_rank(make_backbone("small_cnn").network, 4, name="small_cnn")
    with pytest.raises(ConfigError, match="larger than the rank 1000"):
        add_low_rank(make_backbone("test_vit").network, 1000, name="test_vit")
