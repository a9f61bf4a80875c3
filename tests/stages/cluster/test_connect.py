import logging
from pathlib import Path

import pyarrow as pa
import pytest
from flaky_s3 import Faults

from ctc_ray.errors import TooManyFailuresError
from ctc_ray.files import parquet, storage
from ctc_ray.files.prefetch import fetch, read_ahead
from ctc_ray.runs.failures import check_failures, read_footers, write_failures
from ctc_ray.runs.units import Unit
from ctc_ray.schemas import FAILURES_FILE, Failure
from ctc_ray.stages.cluster.connect import connect, n_cpus
from ctc_ray.stages.cluster.messages import WorkerLogRelay


def test_files_are_read_ahead_in_order_and_failures_are_values(tmp_path: Path) -> None:
    names = [tmp_path / str(i) for i in range(50)]
    for path in names[::2]:
        path.write_text(path.name)
    got = list(read_ahead([str(path) for path in names], 4))
    assert got == [str(i).encode() if i % 2 == 0 else Failure.MISSING for i in range(50)]


def test_no_more_files_are_read_ahead_than_there_are_threads(tmp_path: Path) -> None:
    names = [tmp_path / str(i) for i in range(50)]
    for path in names:
        path.write_text("1")
    got = read_ahead([str(path) for path in names], 4)
    assert next(got) == b"1"
    for path in names:
        path.unlink()
    later = list(got)
    assert len(later) == 49
    assert set(later[4:]) == {Failure.MISSING}


@pytest.mark.parametrize("n_files", [0, 1, 3])
def test_few_files_are_read_too(tmp_path: Path, n_files: int) -> None:
    (tmp_path / "a").write_text("1")
    assert list(read_ahead([str(tmp_path / "a")] * n_files, None)) == [b"1"] * n_files


@pytest.mark.s3
def test_a_store_that_fails_makes_no_failures(flaky_uri: str, faults: Faults) -> None:
    uris = [storage.join(flaky_uri, name) for name in ("a.jpg", "secret.jpg", "no.jpg")]
    for uri in uris[:2]:
        storage.write_bytes(uri, b"1")
    faults.deny, faults.refuse_every, faults.status = "secret", 3, 400
    assert list(read_ahead(uris, None)) == [b"1", Failure.UNREADABLE, Failure.MISSING]
    faults.refuse_every = 1
    with pytest.raises(ConnectionError, match=r"a\.jpg"):
        list(read_ahead(uris, None))


def test_what_cannot_be_read_is_unreadable(tmp_path: Path) -> None:
    assert fetch(str(tmp_path)) is Failure.UNREADABLE
    assert fetch("https://example.invalid/a.jpg") is Failure.UNREADABLE


def unit_file(folder: Path, name: str, failures: list[str | None]) -> Unit:
    n = len(failures)
    columns = {c: [f"{name}{i}" for i in range(n)] for c in ("image_id", "image_uri")}
    rows = pa.table(
        {
            **columns,
            "capture_event_id": ["e"] * n,
            "image_index": pa.array(range(n), pa.int32()),
            "failure": pa.array(failures, pa.string()),
        }
    )
    parquet.write_row_groups(str(folder / name), [rows], metadata={"key": name})
    return Unit(name=name, plan_file="", place=0, n_rows=n)


def test_footers_tell_rows_failures_and_metadata(tmp_path: Path) -> None:
    units = [
        unit_file(tmp_path, "a.parquet", [None, "missing", None]),
        unit_file(tmp_path, "b.parquet", [None]),
        unit_file(tmp_path, "c.parquet", ["missing", "truncated"]),
    ]
    footers = read_footers(str(tmp_path), units)
    assert [(f.n_rows, f.n_failed) for f in footers] == [(3, 1), (1, 0), (2, 2)]
    assert footers[1].metadata == {"key": "b.parquet"}
    counts = write_failures(str(tmp_path), footers)
    assert counts == {"missing": 2, "truncated": 1}
    table = parquet.read_table(str(tmp_path / FAILURES_FILE))
    assert table["failure"].to_pylist() == ["missing", "missing", "truncated"]


def test_failures_above_the_allowed_share_are_an_error_that_names_the_table() -> None:
    check_failures("out", {"missing": 1}, 10, 0.1)
    with pytest.raises(
        TooManyFailuresError, match=r"2 of 10 images failed .* out/_failures.* or with --overwrite"
    ):
        check_failures("out", {"missing": 2}, 10, 0.1)


@pytest.mark.ray
def test_messages_of_workers_are_logged_on_the_driver(
    local_ray: None, caplog: pytest.LogCaptureFixture
) -> None:
    receiver = logging.getLogger("tests.listener")
    with caplog.at_level(logging.INFO), WorkerLogRelay(receiver) as listener:
        for text in ("first", "second"):
            listener.mailbox.put.remote(text)
    assert [record.getMessage() for record in caplog.records] == ["first", "second"]


@pytest.mark.ray
def test_connecting_twice_keeps_the_first_connection(local_ray: None) -> None:
    connect()
    assert n_cpus() >= 1
