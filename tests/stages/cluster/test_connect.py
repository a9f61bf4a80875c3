import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray._private import services
from ray._private.utils import get_ray_address_file

from ctc_ray.errors import ConfigError, CtcError
from ctc_ray.runs import machine
from ctc_ray.stages.cluster import connect, in_process_or_ray


@pytest.fixture
def no_ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is not connected, on a machine where no cluster has been begun."""
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.setattr(connect, "_node", lambda: None)
    monkeypatch.setattr(connect, "_quiet", lambda: None)  # quietens caplog too
    monkeypatch.setattr(connect, "_PAUSE_S", 0.0)
    monkeypatch.setattr(services, "find_gcs_addresses", set)  # of other Rays on this machine
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    (tmp_path / "ray").mkdir()


@pytest.fixture
def listening() -> Iterator[str]:
    """The address of something that takes connections."""
    with socket.create_server(("", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def note_cluster(address: str) -> None:
    """As `ray start` does."""
    Path(get_ray_address_file(None)).write_text(address)


def port(address: str | None) -> str:
    assert address is not None
    return address.rpartition(":")[2]  # Ray puts the machine's own address for 127.0.0.1


@pytest.fixture
def refused() -> str:
    with socket.create_server(("", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


class Starts:
    """In place of ray.init: the first `n_failing` starts fail."""

    def __init__(self, n_failing: int, error: Exception) -> None:
        self.n_failing, self.error, self.calls = n_failing, error, list[dict[str, Any]]()

    def __call__(self, **options: Any) -> None:
        self.calls.append(options)
        if len(self.calls) <= self.n_failing:
            raise self.error


@pytest.mark.parametrize(
    "error",
    [
        Exception("The current node timed out\n  during startup."),
        RuntimeError("Failed to start the dashboard"),
        ConnectionError("no answer"),
        ray.exceptions.RaySystemError("no answer"),
    ],
)
def test_a_start_that_fails_is_tried_again_once_then_one_line_says_so(
    no_ray: None, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    starts = Starts(2, error)
    monkeypatch.setattr(ray, "init", starts)
    with pytest.raises(
        CtcError, match=r"^Ray did not start, twice: .*later \(logs: .*/logs\)$"
    ) as e:
        connect.connect()
    assert "\n" not in str(e.value)
    assert len(starts.calls) == 2


def test_a_start_that_fails_once_is_a_warning(
    no_ray: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    starts = Starts(1, RuntimeError("Failed to start the dashboard"))
    monkeypatch.setattr(ray, "init", starts)
    connect.connect()
    assert len(starts.calls) == 2
    (warning,) = caplog.records
    assert warning.getMessage().endswith("(Failed to start the dashboard); trying once more")


@pytest.mark.parametrize("dashboard", [False, True])
def test_a_local_ray_has_a_dashboard_only_where_it_is_needed(
    no_ray: None, monkeypatch: pytest.MonkeyPatch, dashboard: bool
) -> None:
    starts = Starts(0, ValueError())
    monkeypatch.setattr(ray, "init", starts)
    connect.connect(dashboard=dashboard)
    (options,) = starts.calls
    assert (options["address"], options["include_dashboard"]) == ("local", dashboard)


@pytest.mark.parametrize("is_cluster", [False, True])
def test_a_local_ray_has_the_cpus_that_this_process_may_use(
    no_ray: None, listening: str, monkeypatch: pytest.MonkeyPatch, is_cluster: bool
) -> None:
    """Ray itself counts those of the machine, whatever this process is bound to."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 3, 5}, raising=False)
    monkeypatch.setattr(machine, "_quotas", lambda _: iter(()))  # of where the tests run
    starts = Starts(0, ValueError())
    monkeypatch.setattr(ray, "init", starts)
    if is_cluster:
        note_cluster(listening)
    else:
        with pytest.raises(ConfigError, match=r"needs 4 CPUs, this machine has 3$"):
            connect.require("--workers 4", cpus=4)
        connect.require("--workers 3", cpus=3)
    connect.connect()
    (options,) = starts.calls
    assert options.get("num_cpus") == (None if is_cluster else 3)  # a cluster has its own


def test_without_a_cluster_ray_is_local(no_ray: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert connect.cluster_address() is None
    assert connect.is_local()
    monkeypatch.setenv("RAY_ADDRESS", "local")
    assert connect.cluster_address() is None


def test_on_the_head_of_a_cluster_ray_is_not_local(no_ray: None, listening: str) -> None:
    note_cluster(listening)
    assert port(connect.cluster_address()) == port(listening)
    assert not connect.is_local()
    assert in_process_or_ray.is_on_cluster()


def test_local_is_local_also_on_the_head_of_a_cluster(
    no_ray: None, listening: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    note_cluster(listening)
    monkeypatch.setenv("RAY_ADDRESS", "local")
    assert connect.is_local()
    assert not in_process_or_ray.is_on_cluster()


def test_the_address_of_a_cluster_that_is_gone_is_passed_over(
    no_ray: None, refused: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    note_cluster(refused)
    starts = Starts(0, ValueError())
    monkeypatch.setattr(ray, "init", starts)
    connect.connect()
    assert starts.calls[0]["address"] == "local"
    assert "answers no longer" in caplog.messages[0]


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_a_given_cluster_that_does_not_answer_is_an_error_and_one_that_does_is_used(
    no_ray: None, refused: str, listening: str, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", scheme + refused)
    with pytest.raises(CtcError, match=rf"RAY_ADDRESS={scheme}{refused}: nothing answers there"):
        connect.connect()
    monkeypatch.setenv("RAY_ADDRESS", scheme + listening)
    starts = Starts(0, ValueError())
    monkeypatch.setattr(ray, "init", starts)
    connect.connect()
    assert starts.calls[0]["address"] is None  # Ray takes it from the environment


@pytest.mark.parametrize("given", ["auto", "nonsense"])
def test_an_address_that_leads_nowhere_is_an_error(
    no_ray: None, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", given)
    with pytest.raises(CtcError, match=f"^RAY_ADDRESS={given}: "):
        connect.cluster_address()


@pytest.mark.parametrize("names", [{}, {"RAY_TMPDIR": "/a"}, {"TMPDIR": "/b"}])
def test_rays_own_file_is_looked_at_for_the_last_cluster(
    monkeypatch: pytest.MonkeyPatch, names: dict[str, str]
) -> None:
    for name in ("RAY_TMPDIR", "TMPDIR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in names.items():
        monkeypatch.setenv(name, value)
    assert in_process_or_ray.last_cluster_file() == get_ray_address_file(None)


def test_what_a_cluster_lacks_is_a_warning_and_what_a_machine_lacks_an_error(
    no_ray: None, listening: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(ray, "init", Starts(0, ValueError()))
    with pytest.raises(ConfigError, match=r"--workers 999: needs 999 CPUs, this machine has"):
        connect.require("--workers 999", cpus=999)
    note_cluster(listening)
    connect.require("--workers 999", cpus=999)
    assert "needs 999 CPUs, the cluster now has" in caplog.messages[-1]


@pytest.mark.ray
def test_connecting_twice_keeps_the_first_connection(local_ray: None) -> None:
    connect.connect()
    assert connect.there()["CPU"] >= 1
    assert connect.is_local()
