"""How a training computes changes its speed; the weights and their names stay."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed
from builders import train_config
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from ctc_ray.config.training import TrainConfig
from ctc_ray.errors import ConfigError
from ctc_ray.models.bundle import load_bundle
from ctc_ray.runs.manifest import read_manifest
from ctc_ray.stages.train.computing import repeatable
from ctc_ray.stages.train.job import TrainingJob

SGD = {"optimizer": {"name": "sgd", "learning_rate": 0.001}, "schedule": {"name": "constant"}}


def job(dataset: Path, output: Path, **fields: Any) -> TrainingJob:
    config = TrainConfig.model_validate(train_config(dataset, output).model_dump() | fields)
    manifest = read_manifest(str(dataset), "dataset")
    made = TrainingJob(config, manifest, rank=0, n_workers=1, device="cpu")
    made.wrap(lambda model: model)
    return made


def after_an_epoch(dataset: Path, output: Path, **fields: Any) -> dict[str, Tensor]:
    made = job(dataset, output, **{"max_epochs": 1, **SGD, **fields})
    made.next_epoch()
    made.write_bundle(made.end())
    return load_bundle(str(output)).model.state_dict()


def assert_alike(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert list(one) == list(other)
    for name, tensor in one.items():
        assert torch.allclose(tensor, other[name], rtol=1e-5, atol=1e-5), name


def test_channels_last_or_first_give_the_same_weights(dataset: Path, tmp_path: Path) -> None:
    plain = after_an_epoch(dataset, tmp_path / "plain")
    first = after_an_epoch(dataset, tmp_path / "first", channels_last=False)
    assert_alike(plain, first)
    made = job(dataset, tmp_path, channels_last=False)
    four = [weight for weight in made._model.backbone.parameters() if weight.ndim == 4]
    assert all(weight.is_contiguous() for weight in four)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_compiled_backbone_learns_the_same_weights_and_resumes_bit_for_bit(
    dataset: Path, tmp_path: Path
) -> None:
    plain = after_an_epoch(dataset, tmp_path / "plain")
    compiled = after_an_epoch(dataset, tmp_path / "compiled", compile=True)
    assert_alike(plain, compiled)
    fields = {"compile": True, "max_epochs": 3, "model": {"freeze_epochs": 1, "image_size": 32}}
    whole = job(dataset, tmp_path, **fields)
    assert whole._model.backbone._compiled_call_impl is not None
    assert whole.told == []
    states = []
    while not whole.is_done:
        whole.next_epoch()
        states.append(whole.state())
    torch.compiler.reset()  # as in a new process
    later = job(dataset, tmp_path, **fields)
    later.load_state(states[1])
    later.next_epoch()
    expected, found = whole._model.state_dict(), later._model.state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_compiled_backbone_is_shared_by_workers(dataset: Path, tmp_path: Path) -> None:
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1
    )
    try:
        trained = []
        for is_compiled in (False, True):
            made = job(dataset, tmp_path, compile=is_compiled, **SGD)
            made._wrapped = DistributedDataParallel(made._model)
            made.next_epoch()
            trained.append(made._model.state_dict())
    finally:
        torch.distributed.destroy_process_group()
    assert_alike(*trained)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_without_a_compiler_one_line_says_so_and_nothing_is_compiled(tmp_path: Path) -> None:
    code = """
from ctc_ray.labels import LabelSpace
from ctc_ray.models.backbones import make_backbone
from ctc_ray.models.multi_head import MultiHeadModel
from ctc_ray.stages.train.computing import compile_backbone
import torch
model = MultiHeadModel(make_backbone("small_cnn"), LabelSpace({"s": ("a", "b")}))
print(*compile_backbone(model, "cpu"))
print(model.backbone._compiled_call_impl, model(torch.zeros(2, 3, 32, 32))["s"].shape)
"""
    env = os.environ | {"CXX": "no-such-compiler", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    )
    line, rest = done.stdout.splitlines()
    assert line.startswith("--compile: this machine cannot compile (")
    assert line.endswith("); computing without")
    assert rest == "None torch.Size([2, 2])"


def test_repeatable_algorithms_are_asked_for_and_given_back() -> None:
    def state() -> tuple[bool, bool, bool, str | None]:
        cudnn = torch.backends.cudnn
        return (
            torch.are_deterministic_algorithms_enabled(),
            cudnn.deterministic,
            cudnn.benchmark,
            os.environ.get("CUBLAS_WORKSPACE_CONFIG"),
        )

    before = state()
    with repeatable(is_on=False):
        assert state() == before
    with repeatable(is_on=True):
        assert state() == (True, True, False, ":4096:8")
    assert state() == before


def test_an_operation_that_cannot_be_repeated_is_one_line() -> None:
    said = (
        "pool_backward_cuda does not have a deterministic implementation, but you set "
        "'torch.use_deterministic_algorithms(True)'. You can turn off determinism just for this"
    )
    line = r"^--deterministic: pool_backward_cuda does not have .*\)'; train without it$"
    with pytest.raises(ConfigError, match=line), repeatable(is_on=True):
        raise RuntimeError(said)
    with pytest.raises(RuntimeError, match="another"), repeatable(is_on=True):
        raise RuntimeError("another")


def test_a_deterministic_training_gives_the_same_bits(dataset: Path, tmp_path: Path) -> None:
    with repeatable(is_on=True):
        one = after_an_epoch(dataset, tmp_path / "one", deterministic=True)
    plain = after_an_epoch(dataset, tmp_path / "plain")
    assert all(torch.equal(plain[name], tensor) for name, tensor in one.items())
