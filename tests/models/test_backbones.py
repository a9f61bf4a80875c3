from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import ClassVar

import pytest
import safetensors.torch
import timm
import torch

from ctc_ray.config.model import ModelConfig
from ctc_ray.errors import ConfigError
from ctc_ray.models.backbones import _default_size, make_backbone, read_weights

TINY = "test_efficientnet"  # of timm: 160 pixels, 0.4 million weights


def save(path: Path, weights: dict[str, torch.Tensor]) -> str:
    safetensors.torch.save_file(weights, path)
    return str(path)


def test_small_cnn_sees_64_pixels_by_default() -> None:
    backbone = make_backbone("small_cnn")
    assert (backbone.image_size, backbone.num_features) == (64, 192)


def test_timm_model_brings_its_own_size_and_colours() -> None:
    backbone = make_backbone(TINY)
    assert (backbone.image_size, backbone.mean) == (160, (0.485, 0.456, 0.406))
    assert backbone.network.eval()(torch.zeros(1, 3, 160, 160)).shape == (1, backbone.num_features)


def test_features_are_counted_where_timm_says_another_number() -> None:
    backbone = make_backbone("mobilenetv3_small_050")  # its num_features is 288; its features 1024
    assert backbone.num_features == 1024


def test_transformer_takes_the_image_size_that_is_asked_for() -> None:
    backbone = make_backbone("test_vit", image_size=96)
    assert backbone.network.eval()(torch.zeros(1, 3, 96, 96)).shape == (1, backbone.num_features)


def test_size_that_a_network_cannot_take_is_an_error_with_its_name() -> None:
    with pytest.raises(ConfigError, match=r"image_size: gmixer_12_224 does not take .* 100 pixels"):
        make_backbone("gmixer_12_224", image_size=100)


def test_unknown_name_is_an_error_with_near_matches() -> None:
    with pytest.raises(
        ConfigError, match="'resnet118' is not a model of timm; did you mean resnet18"
    ):
        make_backbone("resnet118")
    with pytest.raises(ConfigError, match="did you mean small_cnn"):
        make_backbone("smal_cnn")
    with pytest.raises(ConfigError, match=r"'ResNet-18' is not .*did you mean .*resnet18"):
        make_backbone("ResNet-18")


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_weights_of_a_file_are_used_and_its_classifier_is_not(tmp_path: Path, suffix: str) -> None:
    weights = make_backbone(TINY).network.state_dict()
    with_classifier = {**weights, "classifier.weight": torch.zeros(9, 9)}
    path = tmp_path / f"weights.{suffix}"
    if suffix == "pth":
        torch.save(with_classifier, path)
    else:
        save(path, with_classifier)
    loaded = make_backbone(TINY, pretrained=str(path)).network.state_dict()
    assert all(torch.equal(loaded[key], weights[key]) for key in weights)


def test_weights_of_a_bundle_are_weights_to_begin_with(tmp_path: Path) -> None:
    weights = make_backbone("small_cnn").network.state_dict()
    bundled = {f"backbone.{key}": value for key, value in weights.items()}
    uri = save(tmp_path / "weights.safetensors", {**bundled, "heads.0.weight": torch.zeros(2, 2)})
    loaded = make_backbone("small_cnn", pretrained=uri).network.state_dict()
    assert all(torch.equal(loaded[key], weights[key]) for key in weights)


def test_missing_and_unexpected_weights_are_named(tmp_path: Path) -> None:
    weights = make_backbone("small_cnn").network.state_dict()
    weights["blocks.9.weight"] = weights.pop("blocks.0.0.weight")
    uri = save(tmp_path / "w.safetensors", weights)
    message = r"missing blocks.0.0.weight; not expected blocks.9.weight"
    with pytest.raises(ConfigError, match=message):
        make_backbone("small_cnn", pretrained=uri)


def test_weights_of_another_shape_are_an_error(tmp_path: Path) -> None:
    weights = make_backbone("small_cnn").network.state_dict()
    weights["blocks.0.0.weight"] = torch.zeros(8, 3, 3, 3)
    uri = save(tmp_path / "w.safetensors", weights)
    with pytest.raises(ConfigError, match=r"does not fit small_cnn: .*blocks.0.0.weight"):
        make_backbone("small_cnn", pretrained=uri)


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth"])
def test_file_that_holds_no_weights_is_an_error(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"no weights at all")
    with pytest.raises(ConfigError, match=f"{name}: not a file of weights"):
        read_weights(str(tmp_path / name))
    with pytest.raises(ConfigError, match="cannot be read"):
        read_weights(str(tmp_path / "nothing.pth"))


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return eval, ("1/0",)


def test_pickled_code_in_a_pth_file_is_not_run(tmp_path: Path) -> None:
    torch.save({"weight": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(ConfigError, match="not a file of weights"):
        read_weights(str(tmp_path / "evil.pth"))


def test_pth_file_with_anything_but_tensors_is_an_error(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "w.pth")
    with pytest.raises(ConfigError, match="expected named tensors only"):
        read_weights(str(tmp_path / "w.pth"))


def test_small_cnn_has_no_weights_to_download() -> None:
    with pytest.raises(ConfigError, match="small_cnn has no weights to download; give a file"):
        make_backbone("small_cnn", pretrained=True)


class CountingProxy(BaseHTTPRequestHandler):
    """Lets nobody through, and counts who has asked."""

    asked: ClassVar[list[str]] = []

    def do_CONNECT(self) -> None:
        self.asked.append(self.path)
        self.send_error(503)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[str]]:
    """Empty caches, and a proxy that refuses; the requests that it was sent."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("torch.hub._hub_dir", str(tmp_path / "torch"))
    monkeypatch.setattr("urllib.request._opener", None)  # it has the proxies of its first request
    server = ThreadingHTTPServer(("127.0.0.1", 0), CountingProxy)
    Thread(target=server.serve_forever, daemon=True).start()
    for name in ("https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{server.server_port}")
    for name in ("no_proxy", "NO_PROXY", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    CountingProxy.asked.clear()
    yield CountingProxy.asked
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("name", "server"), [(TINY, "huggingface.co"), ("legacy_xception", "github.com")]
)
def test_without_network_one_request_and_one_line_say_to_give_a_file(
    no_network: list[str], name: str, server: str
) -> None:
    with pytest.raises(ConfigError) as error:
        make_backbone(name, pretrained=True)
    assert "\n" not in str(error.value)
    assert f"https://{server} does not answer" in str(error.value)
    assert no_network == [f"{server}:443"]
    assert "--model.pretrained FILE.safetensors" in str(error.value)


@pytest.mark.parametrize("name", [TINY, "legacy_xception"])
def test_weights_that_were_downloaded_before_need_no_network(
    no_network: list[str], tmp_path: Path, name: str
) -> None:
    weights = make_backbone(name).network.state_dict()
    if name == TINY:
        cached = tmp_path / "hub" / "models--timm--test_efficientnet.r160_in1k"
        (cached / "refs").mkdir(parents=True)
        (cached / "refs" / "main").write_text("abc")
        (cached / "snapshots" / "abc").mkdir(parents=True)
        save(cached / "snapshots" / "abc" / "model.safetensors", weights)
    else:
        folder = tmp_path / "torch" / "checkpoints"
        folder.mkdir(parents=True)
        torch.save(weights, folder / "xception-43020ad28.pth")
    loaded = make_backbone(name, pretrained=True).network.state_dict()
    assert no_network == []
    assert all(torch.equal(loaded[key], weights[key]) for key in weights)


def test_a_model_whose_weights_timm_does_not_offer_is_one_line(no_network: list[str]) -> None:
    with pytest.raises(ConfigError, match="timm has no weights of convnextv2_small"):
        make_backbone("convnextv2_small", pretrained=True)
    assert no_network == []


@pytest.mark.parametrize(
    ("name", "here", "size"),
    [
        ("ResNet18", "resnet18", 224),
        ("ResNet34", "resnet34", 224),
        ("ResNet50", "resnet50", 224),
        ("resnet101", "resnet101", 224),
        ("RESNET152", "resnet152", 224),
        ("Xception", "legacy_xception", 299),
        ("xception", "legacy_xception", 299),
        ("InceptionResNetV2", "inception_resnet_v2", 299),
        ("small_cnn", "small_cnn", 64),
        ("xception41", "xception41", 299),
    ],
)
def test_names_of_the_original_are_models_with_its_input_size(
    name: str, here: str, size: int
) -> None:
    config = ModelConfig(backbone=name)
    assert config.backbone == here
    cfg = {} if here == "small_cnn" else timm.get_pretrained_cfg(here).to_dict()
    assert _default_size(cfg) == size


@pytest.mark.real_data
def test_real_weights_fit_the_model_that_they_are_named_after(shared_data: Path) -> None:
    name = "tf_efficientnet_lite0"
    backbone = make_backbone(name, pretrained=f"{shared_data}/backbones/{name}.safetensors")
    assert (backbone.num_features, backbone.image_size) == (1280, 224)
