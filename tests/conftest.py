"""Fixtures that several test folders share."""

import json
import logging
import os
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flaky_s3 import Faults, flaky_s3
from hypothesis import HealthCheck, settings

from ctc_ray.files import object_store, retries

# A busy machine is slow, which says nothing about the code; what hangs runs into pytest's timeout.
settings.register_profile("ctc", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("ctc")

# Half of the tests runs beside those with Ray, whose workers would be nice, and wait for it.
os.environ.setdefault("RAY_worker_niceness", "0")

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real photographs and annotations beside the checkout."""
    if not SHARED_DATA.is_dir():
        pytest.skip("../shared/data is not beside this checkout")
    return SHARED_DATA


@pytest.fixture(scope="session")
def goldens(shared_data: Path) -> dict[str, Any]:
    """What the original itself made of its own test files."""
    return json.loads((shared_data.parent / "reference" / "goldens.json").read_text())


@pytest.fixture(scope="session")
def originals(shared_data: Path) -> Path:
    """The folder of the original's test files."""
    return shared_data / "annotations" / "camera_trap_classifier_test_files"


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str | bytes], str]:
    """Writes a file and gives its URI."""

    def written(content: str | bytes) -> str:
        path = tmp_path / "source.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return written


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """The address of an S3 server on loopback."""
    server = pytest.importorskip("moto.server").ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    responses = pytest.importorskip("moto.s3.responses").S3Response
    put_object, one_at_a_time = responses.put_object, threading.Lock()

    def atomic(response: Any) -> Any:
        with one_at_a_time:  # moto looks whether an object is there, and makes it later
            return put_object(response)

    responses.put_object = atomic
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()
    responses.put_object = put_object


@pytest.fixture
def s3_bucket_uri(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A new, empty bucket; the environment says how this process and its children reach it."""
    boto3 = pytest.importorskip("boto3")
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    bucket = f"test-{uuid.uuid4().hex}"
    boto3.client("s3", region_name="us-east-1").create_bucket(Bucket=bucket)
    return f"s3://{bucket}"


@pytest.fixture
def faults() -> Faults:
    """What goes wrong in `flaky_uri`: nothing, until a test sets it."""
    return Faults()


@pytest.fixture
def flaky_uri(
    s3_endpoint: str, s3_bucket_uri: str, faults: Faults, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """A new bucket behind a proxy; what fails there is asked for again without a pause."""
    monkeypatch.setattr(retries, "PAUSES_S", (0.001,) * 5)
    monkeypatch.setattr(object_store, "FIRST_PAUSE_S", 0.001)
    with flaky_s3(s3_endpoint, faults) as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        yield s3_bucket_uri


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.s3)])
def folder_uri(request, tmp_path) -> str:
    """A folder that is not there yet, on the disk and in an object store."""
    if request.param == "s3":
        return request.getfixturevalue("s3_bucket_uri") + "/some/folder"
    return str(tmp_path / "some" / "folder")


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.s3)])
def output_uri(request, tmp_path) -> str:
    """A folder for results that is not there yet, on the disk and in an object store."""
    if request.param == "s3":
        return request.getfixturevalue("s3_bucket_uri") + "/out"
    return str(tmp_path / "out")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what uses the Ray that tests share: `make test` runs these beside the others."""
    for item in items:
        if "local_ray" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.ray)


@pytest.fixture(autouse=True, scope="session")
def no_waiting_for_the_disk() -> Iterator[None]:
    """No test loses power; a thousand small files would wait for whatever else the disk does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


@pytest.fixture(autouse=True)
def messages_reach_caplog(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """A command that a test has run in this process has sent them to stderr alone."""
    caplog.handler.setLevel(logging.NOTSET)  # `connect` has quietened it with Ray's own
    yield
    ours = logging.getLogger("ctc_ray")
    ours.handlers.clear()
    ours.propagate = True
