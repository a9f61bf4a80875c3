"""ONNX Runtime beside PyTorch: the same answers, in workers that need no torch."""

import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import AtMost, StoppedError, bytes_below, untrained_bundle

from ctc_ray.config.prediction import PredictConfig
from ctc_ray.errors import ConfigError
from ctc_ray.files import parquet
from ctc_ray.models import exporters
from ctc_ray.models.bundle import load_bundle
from ctc_ray.models.classifier import predict_probs
from ctc_ray.models.onnx_scorer import OnnxScorer
from ctc_ray.runs.executor import Beside, InProcess
from ctc_ray.stages.predict import engine
from ctc_ray.stages.predict import stage as predict
from ctc_ray.stages.predict.scoring import UnitScorer

Make = Callable[..., PredictConfig]


@pytest.fixture
def make(bundle: Path, photos: Path, inventory: Path, tmp_path: Path) -> Make:
    """Configurations of 48 drawn photographs in units of 10 and batches of 4."""

    def config(name: str, **fields: Any) -> PredictConfig:
        values = {
            "bundle_uri": str(bundle),
            "output_uri": str(tmp_path / name),
            "inventory_uri": str(inventory),
            "image_root_uri": str(photos),
            "batch_size": 4,
            "images_per_unit": 10,
            "max_failure_fraction": 1.0,
            **fields,
        }
        return PredictConfig.model_validate(values)

    return config


def run(config: PredictConfig, n_threads: int = 1) -> Path:
    predict.run(config, executor=InProcess(n_threads))
    return Path(config.output_uri)


def require_alike(one: Path, other: Path) -> None:
    """All but the last digits of scores is equal."""
    for folder in ("images", "events"):
        a, b = (parquet.read_folder(str(path / folder)) for path in (one, other))
        assert a.schema.names == b.schema.names
        for name in a.schema.names:
            if name.startswith(("score_", "margin_")):
                assert a[name].null_count == b[name].null_count
                numbers = (x[name].drop_null().to_numpy() for x in (a, b))
                np.testing.assert_allclose(*numbers, atol=2e-5)
            elif name.startswith("probs_"):
                flat = (x[name].combine_chunks().flatten().to_numpy() for x in (a, b))
                np.testing.assert_allclose(*flat, atol=1e-5)
            else:
                assert a[name] == b[name], name


@pytest.mark.parametrize("uncalibrated", [True, False])
def test_both_engines_give_the_same_answers(make: Make, *, uncalibrated: bool) -> None:
    one = run(make("torch", engine="torch", uncalibrated=uncalibrated))
    other = run(make("onnx", engine="onnx", uncalibrated=uncalibrated))
    assert bytes_below(one / "images") != bytes_below(other / "images")
    require_alike(one, other)


def test_short_numbers_give_nearly_the_same_scores_by_pytorch(make: Make) -> None:
    exact = run(make("exact", engine="torch"))
    short = run(make("short", precision="bfloat16"))
    names = ["image_id", "probs_species"]
    one, other = (parquet.read_folder(str(path / "images"), names) for path in (exact, short))
    assert one["image_id"] == other["image_id"]
    flat = [x["probs_species"].combine_chunks().flatten().to_numpy() for x in (one, other)]
    assert 1e-6 < np.abs(flat[0] - flat[1]).max() < 0.02
    again = run(make("again", precision="bfloat16"), n_threads=3)
    assert bytes_below(again / "images") == bytes_below(short / "images")


def test_threads_batches_and_a_resumed_run_change_nothing(make: Make) -> None:
    whole = bytes_below(run(make("whole", engine="onnx")) / "images")
    assert bytes_below(run(make("threads", engine="onnx"), n_threads=3) / "images") == whole
    cut = make("cut", engine="onnx")
    with pytest.raises(StoppedError):
        predict.run(cut, executor=AtMost(2))
    assert bytes_below(run(cut) / "images") == whole
    require_alike(run(make("one", engine="onnx", batch_size=1)), run(make("whole", engine="onnx")))


@pytest.mark.parametrize("name", ["onnx", "torch"])
def test_a_process_beside_the_command_writes_the_same_bytes(make: Make, name: str) -> None:
    whole = run(make("whole", engine=name))
    config = make("beside", engine=name, workers=2)
    predict.run(config, executor=Beside())
    for folder in ("images", "events"):
        assert bytes_below(Path(config.output_uri) / folder) == bytes_below(whole / folder)


@pytest.mark.parametrize(("many", "used"), [(48, True), (49, False)])
def test_onnx_is_used_for_many_images_also_where_a_run_is_resumed(
    make: Make, monkeypatch: pytest.MonkeyPatch, many: int, *, used: bool
) -> None:
    monkeypatch.setattr(engine, "MANY_IMAGES", many)
    by = {name: run(make(name, engine=name)) / "images" for name in ("onnx", "torch")}
    config = make("auto")
    with pytest.raises(StoppedError):
        predict.run(config, executor=AtMost(2))
    images = run(config) / "images"
    assert bytes_below(images) == bytes_below(by["onnx" if used else "torch"])


def test_a_network_that_onnx_cannot_compute_is_computed_by_torch(
    make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: object) -> bytes:
        raise RuntimeError("no such operator: foo\nmuch more")

    monkeypatch.setattr(engine, "MANY_IMAGES", 1)
    for name in ("trace_onnx_at_own_size", "export_onnx_at_own_size"):
        monkeypatch.setattr(exporters, name, fail)
    images = run(make("auto")) / "images"
    assert "ONNX Runtime cannot compute this network, PyTorch does: no such operator" in caplog.text
    assert bytes_below(images) == bytes_below(run(make("torch", engine="torch")) / "images")
    with pytest.raises(ConfigError, match=r"--engine onnx: no such operator: foo; use --engine"):
        run(make("onnx", engine="onnx"))


def test_a_network_that_onnx_computes_otherwise_is_refused(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = load_bundle(str(untrained_bundle(tmp_path / "other")))
    content = exporters.export_onnx_at_own_size(other)
    for name in ("trace_onnx_at_own_size", "export_onnx_at_own_size"):
        monkeypatch.setattr(exporters, name, lambda _: content)
    with pytest.raises(ConfigError, match=r"--engine onnx: scores of \w+ are 0\.\d+ apart"):
        run(make("onnx", engine="onnx"))


def test_a_worker_of_onnx_runtime_loads_no_torch(make: Make, tmp_path: Path) -> None:
    """It is a process of its own on Ray."""
    config = make("out", engine="onnx")
    network = engine.network_of(config, load_bundle(config.bundle_uri), n_images=1)
    assert network.onnx_uri is not None
    code = (
        "import pickle, sys; worker = pickle.load(sys.stdin.buffer).make_worker(1);"
        "print(type(worker).__name__, *sorted({'torch', 'timm', 'ray'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=pickle.dumps(UnitScorer(config, "", network)),
        capture_output=True,
        check=True,
    )
    assert done.stdout.decode().split() == ["_Scorer"]


@pytest.mark.parametrize("fault", ["raises", "is of another network"])
def test_a_network_whose_run_cannot_be_written_down_is_exported_as_a_whole(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    other = load_bundle(str(untrained_bundle(tmp_path / "other")))
    content = exporters.export_onnx_at_own_size(other)

    def traced(_: object) -> bytes:
        if fault == "raises":
            raise RuntimeError("no such operator")
        return content

    monkeypatch.setattr(exporters, "trace_onnx_at_own_size", traced)
    require_alike(run(make("onnx", engine="onnx")), run(make("torch", engine="torch")))


@pytest.mark.parametrize("backbone", ["vit_tiny_patch16_224", "convnext_atto", "resnet10t"])
def test_one_run_is_the_network_for_any_number_of_images(tmp_path: Path, backbone: str) -> None:
    bundle = load_bundle(str(untrained_bundle(tmp_path / "m", backbone=backbone, image_size=64)))
    scorer = OnnxScorer(exporters.trace_onnx_at_own_size(bundle), bundle.label_space)
    side = bundle.image_size
    images = np.random.default_rng(1).integers(0, 256, (5, side, side, 3), np.uint8)
    for n in (1, 2, 3, 5):
        expected = predict_probs(bundle, images[:n])
        for head, probs in scorer.predict_probs(images[:n]).items():
            np.testing.assert_allclose(probs, expected[head], atol=1e-5)


def test_the_library_does_not_report_to_its_maker(make: Make, tmp_path: Path) -> None:
    """ONNX Runtime 1.32 leaves a file `.ses` where it does."""
    config = make("out", engine="onnx")
    engine.network_of(config, load_bundle(config.bundle_uri), n_images=1)
    code = (
        "import sys; from ctc_ray.models.onnx_scorer import OnnxScorer;"
        "from ctc_ray.labels import LabelSpace;"
        "OnnxScorer(open(sys.argv[1], 'rb').read(), LabelSpace({chr(97): (chr(98),)}))"
    )
    network, left = tmp_path / "out" / "_work" / "network.onnx", tmp_path / "left"
    left.mkdir()
    own = {name: value for name, value in os.environ.items() if "TELEMETRY" not in name}
    subprocess.run(
        [sys.executable, "-c", code, str(network)], env={**own, "TMPDIR": str(left)}, check=True
    )
    assert list(left.iterdir()) == []
