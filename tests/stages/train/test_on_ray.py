"""Which errors of a worker are worth another attempt; no Ray is started here."""

import pickle

import pytest

from ctc_ray.errors import ConfigError, DivergedError, SchemaError
from ctc_ray.files.retries import UnusableStoreError
from ctc_ray.runs.crashes import picklable
from ctc_ray.stages.train.on_ray import _would_come_again


@pytest.mark.parametrize(
    "error",
    [
        DivergedError("training diverged"),
        SchemaError("a.parquet: damaged"),
        FileNotFoundError("a.parquet"),
        PermissionError("a.parquet"),
        IsADirectoryError("a.parquet"),
        UnusableStoreError("wrong keys"),
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"),
        ZeroDivisionError("division by zero"),
    ],
)
def test_an_error_of_the_code_or_the_data_is_not_tried_again(error: Exception) -> None:
    assert _would_come_again(error)


@pytest.mark.parametrize(
    "error",
    [
        ConnectionResetError("peer"),
        TimeoutError("store"),
        OSError(5, "input/output error"),
        RuntimeError("[gloo] Connection closed by peer [10.0.0.1]:3"),
        RuntimeError("NCCL error: unhandled system error"),
    ],
)
def test_a_lost_worker_node_or_store_is_tried_again(error: Exception) -> None:
    assert not _would_come_again(error)


def test_an_error_that_cannot_be_pickled_keeps_its_text() -> None:
    class LocalError(Exception):
        pass

    assert isinstance(picklable(ConfigError("a")), ConfigError)
    assert str(pickle.loads(pickle.dumps(picklable(LocalError("why"))))) == "LocalError: why"
