import pytest
import torch

from ctc_ray.labels import LabelSpace
from ctc_ray.models.backbones import make_backbone
from ctc_ray.models.multi_head import MultiHeadModel

LABELS = LabelSpace({"species": ("cat", "dog", "hare"), "count.1": ("1", "2")})


def images(n: int = 4, size: int = 32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, 3, size, size), dtype=torch.uint8, generator=generator)


def test_gives_logits_for_every_head_in_the_order_of_the_label_space() -> None:
    logits = MultiHeadModel(make_backbone("small_cnn"), LABELS)(images())
    shapes = [(head, part.shape) for head, part in logits.items()]
    assert shapes == [("species", (4, 3)), ("count.1", (4, 2))]


def test_pixels_are_standardised_inside() -> None:
    backbone = make_backbone("small_cnn")
    model = MultiHeadModel(backbone, LABELS, mean=(0.5, 0.25, 0.0), std=(0.5, 0.25, 1.0)).eval()
    gray = torch.full((1, 3, 16, 16), 255, dtype=torch.uint8)  # 1.0: becomes 1, 3 and 1
    expected = torch.tensor([1.0, 3.0, 1.0]).reshape(1, 3, 1, 1).expand(1, 3, 16, 16)
    with torch.no_grad():
        features = backbone.network(expected)
        assert torch.allclose(model(gray)["species"], model.heads[0](features), atol=1e-6)


def test_without_other_colours_those_of_the_backbone_are_used() -> None:
    model = MultiHeadModel(make_backbone("test_efficientnet"), LABELS)
    assert model.pixel_mean == (0.485, 0.456, 0.406)


def test_frozen_backbone_changes_neither_weights_nor_statistics() -> None:
    model = MultiHeadModel(make_backbone("small_cnn"), LABELS, freeze_backbone=True).train()
    before = {key: value.clone() for key, value in model.backbone.state_dict().items()}
    model(images())["species"].sum().backward()
    assert all(torch.equal(before[k], v) for k, v in model.backbone.state_dict().items())
    assert all(weight.grad is None for weight in model.backbone.parameters())
    assert model.heads[0].weight.grad is not None


def test_free_backbone_learns() -> None:
    model = MultiHeadModel(make_backbone("small_cnn"), LABELS).train()
    model(images())["species"].sum().backward()
    assert all(weight.grad is not None for weight in model.backbone.parameters())


def test_dropout_is_for_training_only() -> None:
    model = MultiHeadModel(make_backbone("small_cnn"), LABELS, dropout=0.5)
    with torch.no_grad():
        model.eval()
        assert torch.equal(model(images())["species"], model(images())["species"])
        model.dropout.train()
        assert not torch.equal(model(images())["species"], model(images())["species"])


@pytest.mark.parametrize("freeze", [False, True])
def test_names_of_weights_do_not_depend_on_heads_or_freezing(freeze: bool) -> None:
    model = MultiHeadModel(make_backbone("small_cnn"), LABELS, freeze_backbone=freeze)
    others = {key for key in model.state_dict() if not key.startswith("backbone.")}
    assert others == {"heads.0.weight", "heads.0.bias", "heads.1.weight", "heads.1.bias"}
