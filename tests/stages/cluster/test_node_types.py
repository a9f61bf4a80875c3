from pathlib import Path

import pytest
import yaml

from ctc_ray.errors import ConfigError
from ctc_ray.stages.cluster import connect, node_types
from ctc_ray.stages.cluster.node_types import NodeType, why_impossible

CHECKOUT = Path(__file__).resolve().parents[3]
AWS = CHECKOUT / "cluster" / "aws.yaml"


def running(folder: Path, *words: str) -> None:
    """A process with this command line, as the system shows it."""
    folder.mkdir(parents=True)
    (folder / "cmdline").write_bytes("\0".join([*words, ""]).encode())


@pytest.fixture
def processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(node_types, "_PROCESSES", tmp_path)
    (tmp_path / "self").mkdir()
    for number in range(20, 40):  # of the logs: they have the address, and no configuration
        running(tmp_path / f"{number}", "python", "/ray/log_monitor.py",
                "--gcs-address=10.0.0.1:6379")  # fmt: skip
    running(tmp_path / "11", "python", "/ray/dashboard.py", "--gcs-address=10.0.0.1:6379")
    running(tmp_path / "12", "python", "/ray/autoscaler/_private/monitor.py",
            "--gcs-address=10.0.0.2:6379", "--autoscaling-config=/another.yaml")  # fmt: skip
    running(tmp_path / "13", "python", "/ray/autoscaler/_private/monitor.py",
            "--gcs-address=10.0.0.1:6379", f"--autoscaling-config={AWS}")  # fmt: skip
    return tmp_path


def test_the_node_types_are_those_of_the_autoscaler_of_this_cluster(processes: Path) -> None:
    types = node_types.node_types("10.0.0.1:6379")
    assert types is not None
    written = yaml.safe_load(AWS.read_text())["available_node_types"]
    assert {t.name: dict(t.resources) for t in types} == {
        name: kind["resources"] for name, kind in written.items()
    }
    assert {t.name: t.most for t in types} == {"head": 1, "cpu": 8, "gpu": 4}


def test_without_an_autoscaler_nothing_is_said_of_what_can_come(processes: Path) -> None:
    assert node_types.node_types("10.0.0.3:6379") is None
    running(processes / "14", "python", "monitor.py", "--gcs-address=10.0.0.3:6379")
    assert node_types.node_types("10.0.0.3:6379") is None
    (processes / "bad.yaml").write_text("max_workers: [")
    for number, name in ((15, "none.yaml"), (16, "bad.yaml")):
        path = processes / name
        running(processes / f"{number}", "python", "monitor.py",
                f"--gcs-address=10.0.0.{number}:6379", f"--autoscaling-config={path}")  # fmt: skip
        assert node_types.node_types(f"10.0.0.{number}:6379") is None


TYPES = [NodeType("cpu", {"CPU": 16}, 8), NodeType("gpu", {"CPU": 8, "GPU": 1}, 4)]


@pytest.mark.parametrize(
    ("bundle", "n", "reason"),
    [
        ({"CPU": 1}, 160, None),
        ({"CPU": 1}, 161, "have 1 CPU 160 times at most"),
        ({"CPU": 16}, 8, None),
        ({"CPU": 16}, 9, "have 16 CPUs 8 times at most"),
        ({"CPU": 17}, 1, "no node type has 17 CPUs on one node"),
        ({"CPU": 6, "GPU": 1}, 4, None),
        ({"CPU": 9, "GPU": 1}, 1, "no node type has 9 CPUs and 1 GPU on one node"),
        ({"CPU": 1, "GPU": 2}, 1, "no node type has 1 CPU and 2 GPUs on one node"),
        ({"CPU": 1, "GPU": 0.5}, 8, None),
        ({"CPU": 1, "GPU": 0.5}, 9, "8 times at most; there are cpu 16 CPUs, at most 8; gpu 8"),
        ({"CPU": 0.1}, 1280 + 320, None),
        ({"CPU": 0, "GPU": 0}, 1000, None),
    ],
)
def test_what_no_growth_can_give_is_known(
    bundle: dict[str, float], n: int, reason: str | None
) -> None:
    found = why_impossible(TYPES, bundle, n=n)
    assert found is None if reason is None else reason in (found or "")


@pytest.mark.parametrize(("gpus", "is_possible"), [(4, True), (5, False)])
def test_a_request_that_no_growth_can_meet_is_an_error_at_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, gpus: int, is_possible: bool
) -> None:
    class Head:
        gcs_address = "10.0.0.1:6379"

    monkeypatch.setattr(connect, "is_local", lambda: False)
    monkeypatch.setattr(connect, "connect", lambda: None)
    monkeypatch.setattr(connect, "_node", Head)
    monkeypatch.setattr(connect, "there", lambda: {"CPU": 0.0})
    monkeypatch.setattr(connect, "node_types", lambda address: TYPES)
    what = f"--workers {gpus}, --gpu-per-worker 1"
    if is_possible:
        connect.require(what, cpus=gpus, gpus=gpus, n_workers=gpus)
        assert "waiting until its autoscaler" in caplog.messages[-1]
    else:
        with pytest.raises(ConfigError, match=r"can never give that: .* 4 times at most") as raised:
            connect.require(what, cpus=gpus, gpus=gpus, n_workers=gpus)
        assert "\n" not in str(raised.value)
