import json
from pathlib import Path

import pytest
import safetensors.torch
import torch

from ctc_ray.errors import IncompleteDataError, SchemaError
from ctc_ray.files import storage
from ctc_ray.labels import LabelSpace
from ctc_ray.models.backbones import make_backbone
from ctc_ray.models.bundle import Bundle, Provenance, bundle_fingerprint, load_bundle, save_bundle
from ctc_ray.models.multi_head import MultiHeadModel

PROVENANCE = Provenance(
    config={"seed": 3, "heads": ["species"]},
    data_fingerprint="f" * 64,
    metrics={"loss": 1 / 3},
    n_training_images={"species": {"cat": 2, "dög": 1}},
)


def bundle(backbone: str = "small_cnn", size: int = 32) -> Bundle:
    torch.manual_seed(0)
    labels = LabelSpace({"species": ("cat", "dög"), "count": ("1", "10", "2")})
    model = MultiHeadModel(
        make_backbone(backbone, image_size=size),
        labels,
        mean=(0.1, 0.2, 0.3),
        std=(0.4, 0.5, 1 / 3),
        dropout=0.25,
    )
    model(torch.randint(0, 256, (4, 3, size, size), dtype=torch.uint8))  # moves batch statistics
    return Bundle(model=model, image_size=size, keep_aspect=True, provenance=PROVENANCE)


@pytest.mark.parametrize(("backbone", "size"), [("small_cnn", 32), ("test_vit", 96)])
def test_save_then_load_is_identity_to_the_bit(tmp_path: Path, backbone: str, size: int) -> None:
    saved = bundle(backbone, size)
    save_bundle(str(tmp_path), saved)
    loaded = load_bundle(str(tmp_path))
    images = torch.randint(0, 256, (2, 3, size, size), dtype=torch.uint8)
    with torch.no_grad():
        before, after = saved.model.eval()(images), loaded.model(images)
    assert all(torch.equal(before[head], after[head]) for head in ("species", "count"))
    assert loaded.label_space == saved.label_space
    assert loaded.provenance == PROVENANCE
    assert (loaded.image_size, loaded.keep_aspect) == (size, True)
    assert loaded.model.dropout.p == 0.25


def test_loaded_model_is_in_evaluation_mode(tmp_path: Path) -> None:
    save_bundle(str(tmp_path), bundle())
    assert not any(module.training for module in load_bundle(str(tmp_path)).model.modules())


def test_same_bundle_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        save_bundle(str(tmp_path / name), bundle())
    save_bundle(str(tmp_path / "three"), load_bundle(str(tmp_path / "one")))
    for file in ("weights.safetensors", "bundle.json", "README.md"):
        one = (tmp_path / "one" / file).read_bytes()
        assert one == (tmp_path / "two" / file).read_bytes()
        assert one == (tmp_path / "three" / file).read_bytes()


def test_folder_holds_weights_description_and_card_only(tmp_path: Path) -> None:
    save_bundle(str(tmp_path), bundle())
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["README.md", "bundle.json", "weights.safetensors"]
    assert "dög" in (tmp_path / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["bundle.json", "weights.safetensors"])
def test_missing_file_is_an_unfinished_bundle(tmp_path: Path, name: str) -> None:
    save_bundle(str(tmp_path), bundle())
    (tmp_path / name).unlink()
    with pytest.raises(IncompleteDataError, match=f"no {name}, so this is not a finished bundle"):
        load_bundle(str(tmp_path))


def test_weights_of_another_model_do_not_fit(tmp_path: Path) -> None:
    save_bundle(str(tmp_path), bundle())
    weights = safetensors.torch.load_file(tmp_path / "weights.safetensors")
    weights["heads.0.weight"] = torch.zeros(2, 191)
    storage.write_bytes(str(tmp_path / "weights.safetensors"), safetensors.torch.save(weights))
    with pytest.raises(SchemaError, match=r"not the weights that bundle.json describes: .*heads.0"):
        load_bundle(str(tmp_path))


def test_a_description_of_other_classes_is_refused_before_a_network_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_bundle(str(tmp_path), bundle())
    path = tmp_path / "bundle.json"
    value = json.loads(path.read_text())
    monkeypatch.setattr("ctc_ray.models.bundle.make_backbone", None)  # would be called
    many = {"species": [str(n) for n in range(100_000)], "count": ["1", "10", "2"]}
    for classes, named in (
        (many, "2, 3 classes, described are 100000, 3"),
        ({"species": ["cat", "dög"]}, "2, 3 classes, described are 2"),
        (
            {"count": ["1", "10", "2"], "species": ["cat", "dög"]},
            "2, 3 classes, described are 3, 2",
        ),
    ):
        path.write_text(json.dumps(value | {"classes": classes}))
        with pytest.raises(SchemaError, match=named):
            load_bundle(str(tmp_path))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("std", [0.2, 0, 0.2], "std"),
        ("std", [0.2, -1, 0.2], "std"),
        ("mean", [0.2, float("nan"), 0.2], "mean"),
        ("std", [0.2, float("inf"), 0.2], "std"),
        ("image_size", 0, "image_size"),
        ("image_size", 10**9, "image_size"),
        ("dropout", 1.5, "dropout"),
        ("classes", {"species": ["cat", "cat"], "count": ["1", "10", "2"]}, "twice"),
        ("backbone", "resnet81", "resnet"),
    ],
)
def test_a_description_that_cannot_be_is_one_line(
    tmp_path: Path, field: str, value: object, message: str
) -> None:
    save_bundle(str(tmp_path), bundle())
    path = tmp_path / "bundle.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))
    with pytest.raises(SchemaError, match=message) as raised:
        load_bundle(str(tmp_path))
    assert "\n" not in str(raised.value)


def test_brackets_without_end_are_a_schema_error(tmp_path: Path) -> None:
    save_bundle(str(tmp_path), bundle())
    (tmp_path / "bundle.json").write_text("[" * 200_000)
    with pytest.raises(SchemaError, match="too many brackets"):
        load_bundle(str(tmp_path))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(tmp_path: Path, value: float) -> None:
    save_bundle(str(tmp_path), bundle())
    weights = safetensors.torch.load_file(tmp_path / "weights.safetensors")
    weights["heads.1.bias"][2] = value
    storage.write_bytes(str(tmp_path / "weights.safetensors"), safetensors.torch.save(weights))
    with pytest.raises(SchemaError, match=r"heads.1.bias is not finite everywhere"):
        load_bundle(str(tmp_path))


@pytest.mark.parametrize("name", ["bundle.json", "weights.safetensors"])
def test_the_fingerprint_changes_with_every_file_that_answers(tmp_path: Path, name: str) -> None:
    save_bundle(str(tmp_path), bundle())
    first = bundle_fingerprint(str(tmp_path))
    assert first == bundle_fingerprint(str(tmp_path))
    content = bytearray((tmp_path / name).read_bytes())
    content[-3] ^= 1
    (tmp_path / name).write_bytes(content)
    assert bundle_fingerprint(str(tmp_path)) != first


def test_damaged_weights_are_a_schema_error(tmp_path: Path) -> None:
    save_bundle(str(tmp_path), bundle())
    content = (tmp_path / "weights.safetensors").read_bytes()
    (tmp_path / "weights.safetensors").write_bytes(content[: len(content) // 2])
    with pytest.raises(SchemaError, match="not safetensors"):
        load_bundle(str(tmp_path))


def test_damaged_description_is_a_schema_error(tmp_path: Path) -> None:
    save_bundle(str(tmp_path), bundle())
    path = tmp_path / "bundle.json"
    value = json.loads(path.read_text())
    path.write_text(json.dumps(value | {"format_version": 99}))
    with pytest.raises(SchemaError, match="bundle format 99, this ctc reads 1"):
        load_bundle(str(tmp_path))
    path.write_text(json.dumps(value | {"image_size": "large"}))
    with pytest.raises(SchemaError, match="image_size is 'large'"):
        load_bundle(str(tmp_path))
    path.write_text("{")
    with pytest.raises(SchemaError, match="not JSON"):
        load_bundle(str(tmp_path))
