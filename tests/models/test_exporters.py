import io
import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
import torch

from ctc_ray.labels import LabelSpace
from ctc_ray.models.backbones import make_backbone
from ctc_ray.models.bundle import Bundle, Provenance
from ctc_ray.models.classifier import predict_probs
from ctc_ray.models.exporters import export_onnx, export_torch
from ctc_ray.models.multi_head import MultiHeadModel

NOWHERE = Provenance(config={}, data_fingerprint="", metrics={}, n_training_images={})
LABELS = LabelSpace({"species": ("cat", "dög"), "count": ("1", "10", "2")})
SIZES = [(1, 32, 32), (3, 47, 80), (2, 80, 47), (1, 9, 20), (2, 1, 1)]  # batch, height, width


def bundle(*, keep_aspect: bool = False) -> Bundle:
    torch.manual_seed(0)
    model = MultiHeadModel(make_backbone("small_cnn", image_size=32), LABELS, dropout=0.5)
    model(torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8))  # moves batch statistics
    return Bundle(model.eval(), image_size=32, keep_aspect=keep_aspect, provenance=NOWHERE)


def photos(n: int, height: int, width: int) -> npt.NDArray[np.uint8]:
    rng = np.random.default_rng(height)
    return rng.integers(0, 256, (n, height, width, 3), dtype=np.uint8)


@pytest.fixture(scope="module", params=[False, True], ids=["squeezed", "cut"])
def a_bundle(request: pytest.FixtureRequest) -> Bundle:
    return bundle(keep_aspect=request.param)


@pytest.fixture(scope="module")
def onnx_file(a_bundle: Bundle) -> bytes:
    return export_onnx(a_bundle)


@pytest.fixture(scope="module")
def torch_file(a_bundle: Bundle) -> bytes:
    return export_torch(a_bundle)


def test_onnx_agrees_with_the_bundle_for_images_of_any_size(
    a_bundle: Bundle, onnx_file: bytes
) -> None:
    session = onnxruntime.InferenceSession(onnx_file)
    assert [output.name for output in session.get_outputs()] == ["probs_species", "probs_count"]
    assert session.get_inputs()[0].shape == ["batch", "height", "width", 3]
    assert [output.shape[0] for output in session.get_outputs()] == ["batch", "batch"]
    for size in SIZES:
        images = photos(*size)
        theirs = session.run(None, {"images": images})
        ours = predict_probs(a_bundle, images)
        for probs, head in zip(theirs, LABELS.heads, strict=True):
            assert np.abs(probs - ours[head]).max() < 1e-4


def test_torch_export_agrees_with_the_bundle_for_images_of_any_size(
    a_bundle: Bundle, torch_file: bytes
) -> None:
    module = torch.export.load(io.BytesIO(torch_file)).module()
    for size in SIZES:
        images = photos(*size)
        with torch.no_grad():
            theirs = module(torch.from_numpy(images))
        ours = predict_probs(a_bundle, images)
        for probs, head in zip(theirs, LABELS.heads, strict=True):
            assert np.abs(probs.numpy() - ours[head]).max() < 1e-4


def test_exported_files_know_their_classes(onnx_file: bytes, torch_file: bytes) -> None:
    model = onnx.load_from_string(onnx_file)
    known = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(known["labels"]) == {"species": ["cat", "dög"], "count": ["1", "10", "2"]}
    assert known["image_size"] == "32"
    assert known["ctc_version"]
    assert "uint8" in known["images"]
    assert next(o.version for o in model.opset_import if not o.domain) >= 18
    extra = {"labels": ""}
    torch.export.load(io.BytesIO(torch_file), extra_files=extra)
    assert extra["labels"] == known["labels"]


def test_exports_hold_no_path_of_this_machine(onnx_file: bytes, torch_file: bytes) -> None:
    for content in (onnx_file, torch_file):
        assert str(Path(__file__).parents[2]).encode() not in content


def test_exporting_twice_gives_the_same_bytes_and_says_nothing(
    capfd: pytest.CaptureFixture[str],
) -> None:
    some = bundle()
    assert export_torch(some) == export_torch(some)
    assert capfd.readouterr() == ("", "")


def test_predict_probs_takes_no_image_and_read_only_images() -> None:
    some = bundle()
    assert predict_probs(some, photos(0, 32, 32))["count"].shape == (0, 3)
    frozen = np.frombuffer(photos(2, 32, 32).tobytes(), np.uint8).reshape(2, 32, 32, 3)
    assert predict_probs(some, frozen)["species"].shape == (2, 2)


def test_predict_probs_gives_the_same_bits_for_the_same_batch() -> None:
    one, two = (predict_probs(bundle(), photos(3, 32, 32)) for _ in range(2))
    assert all(np.array_equal(one[head], two[head]) for head in LABELS.heads)


@pytest.mark.slow
@pytest.mark.real_data
def test_efficientnet_with_real_weights_exports_faithfully(shared_data: Path) -> None:
    name = "tf_efficientnet_lite0"
    weights = f"{shared_data}/backbones/{name}.safetensors"
    model = MultiHeadModel(make_backbone(name, pretrained=weights, image_size=96), LABELS)
    real = Bundle(model.eval(), image_size=96, keep_aspect=False, provenance=NOWHERE)
    session = onnxruntime.InferenceSession(export_onnx(real))
    images = photos(2, 130, 170)
    for probs, head in zip(session.run(None, {"images": images}), LABELS.heads, strict=True):
        assert np.abs(probs - predict_probs(real, images)[head]).max() < 1e-4
