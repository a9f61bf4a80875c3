import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from builders import bytes_below, photograph

from ctc_ray.config.prediction import ExportConfig
from ctc_ray.images.resize import to_input
from ctc_ray.models.bundle import load_bundle
from ctc_ray.models.classifier import predict_probs
from ctc_ray.runs.manifest import read_manifest
from ctc_ray.schemas import Failure
from ctc_ray.stages import export


@pytest.fixture(scope="module")
def exported(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "onnx"
    export.run(ExportConfig(bundle_uri=str(bundle), output_uri=str(folder)))
    return folder


def test_onnxruntime_gives_the_bundles_own_numbers(bundle: Path, exported: Path) -> None:
    loaded = load_bundle(str(bundle))
    raws = [photograph(c, seed=i) for i, c in enumerate(("red", "green", "blue"))]
    images = [
        to_input(raw, image_size=32, keep_aspect=False, max_pixels=10**8, truncated="fail")
        for raw in raws
    ]
    assert not any(isinstance(image, Failure) for image in images)
    batch = np.stack(images)
    session = onnxruntime.InferenceSession(exported / "model.onnx")
    answers = session.run([f"probs_{head}" for head in loaded.label_space.heads], {"images": batch})
    own = predict_probs(loaded, batch)
    for head, probs in zip(loaded.label_space.heads, answers, strict=True):
        np.testing.assert_allclose(probs, own[head], atol=1e-5)


def test_labels_lie_beside_the_file_and_in_it(bundle: Path, exported: Path) -> None:
    classes = read_manifest(str(bundle), "bundle").classes
    assert json.loads((exported / "labels.json").read_text()) == classes
    meta = onnxruntime.InferenceSession(exported / "model.onnx").get_modelmeta()
    assert any(json.dumps(classes["species"])[1:-1] in v for v in meta.custom_metadata_map.values())


def test_same_bundle_gives_the_same_bytes(bundle: Path, exported: Path, tmp_path: Path) -> None:
    export.run(ExportConfig(bundle_uri=str(bundle), output_uri=str(tmp_path / "again")))
    assert bytes_below(tmp_path / "again") == bytes_below(exported)


def test_torch_export_is_the_other_format(bundle: Path, tmp_path: Path) -> None:
    config = ExportConfig(
        bundle_uri=str(bundle), output_uri=str(tmp_path / "pt2"), format="torch-export"
    )
    assert export.run(config).summary["file"] == "model.pt2"
    assert (tmp_path / "pt2" / "model.pt2").is_file()
