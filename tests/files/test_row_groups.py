"""Row groups of files on a disk and in a store, one request each."""

import re
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from flaky_s3 import Faults

from ctc_ray.errors import SchemaError
from ctc_ray.files import parquet, storage
from ctc_ray.files.row_groups import RowGroupReader

COLUMNS = ["id", "jpeg", "label"]
N_GROUPS = 3


def group(number: int, *, n_rows: int = 40, meta_bytes: int = 200) -> pa.Table:
    """Rows with text that nobody asks for between the columns that are read."""
    rng = np.random.default_rng(number)
    return pa.table(
        {
            "id": [f"{number}-{i}" for i in range(n_rows)],
            "meta": [rng.bytes(meta_bytes // 2).hex() for _ in range(n_rows)],
            "label": pa.array(["cat", None] * (n_rows // 2), pa.string()),
            "jpeg": [rng.bytes(3000) for _ in range(n_rows)],
            "nested": [{"x": i, "jpeg": "no"} for i in range(n_rows)],
        }
    )


GROUPS = [group(number, meta_bytes=2000) for number in range(N_GROUPS)]


def write(uri: str, groups: list[pa.Table] = GROUPS) -> bytes:
    content = bytes(parquet.row_group_bytes(groups, raw_column="jpeg"))
    storage.write_bytes(uri, content)
    return content


def n_requests(faults: Faults) -> int:
    """Requests since the last call, this call's own look not counted."""
    asked = next(faults.requests) - 1
    faults.requests = iter(range(1, 1 << 40))
    return asked


@pytest.fixture
def counted(flaky_uri: str, faults: Faults) -> str:
    """A bucket whose requests are counted."""
    faults.refuse_every = 1 << 40
    return flaky_uri


def test_a_row_group_is_what_pyarrow_reads(folder_uri: str) -> None:
    uri = storage.join(folder_uri, "a.parquet")
    content = write(uri)
    whole = pq.ParquetFile(pa.BufferReader(content))
    reader = RowGroupReader()
    for index in (2, 0, 1, 0):
        expected = whole.read_row_group(index, columns=COLUMNS)
        assert reader.read(uri, index, COLUMNS).equals(expected)


@pytest.mark.s3
def test_each_row_group_of_a_store_is_one_request_and_each_footer_one_more(
    counted: str, faults: Faults
) -> None:
    uris = [f"{counted}/{name}" for name in "ab"]
    for uri in uris:
        write(uri)
    reader = RowGroupReader()
    n_requests(faults)
    asked = []
    for index in (0, 1, 2, 0):
        for uri in uris:
            assert reader.read(uri, index, COLUMNS).equals(GROUPS[index].select(COLUMNS))
            asked.append(n_requests(faults))
    assert asked == [2, 2, 1, 1, 1, 1, 1, 1]


@pytest.mark.s3
def test_a_footer_longer_than_what_comes_with_the_size_is_kept_too(
    counted: str, faults: Faults
) -> None:
    groups = [group(number, n_rows=2) for number in range(150)]
    content = write(f"{counted}/a", groups)
    assert pq.read_metadata(pa.BufferReader(content)).serialized_size > 64 << 10
    reader = RowGroupReader()
    reader.read(f"{counted}/a", 0, COLUMNS)
    n_requests(faults)
    assert reader.read(f"{counted}/a", 77, COLUMNS).equals(groups[77].select(COLUMNS))
    assert n_requests(faults) == 1


@pytest.mark.s3
def test_only_so_many_bytes_of_footers_are_kept_those_used_last(
    counted: str, faults: Faults
) -> None:
    uris = [f"{counted}/{name}" for name in "abc"]
    sizes = [pq.read_metadata(pa.BufferReader(write(uri))).serialized_size for uri in uris]
    reader = RowGroupReader(footer_bytes=2 * sum(sizes[:2]))  # twice as many in memory
    asked = []
    n_requests(faults)
    for name in "abacab":  # c takes the room of b
        reader.read(f"{counted}/{name}", 1, COLUMNS)
        asked.append(n_requests(faults))
    assert asked == [2, 2, 1, 2, 1, 2]
    nothing_kept = RowGroupReader(footer_bytes=0)
    for _ in range(2):
        nothing_kept.read(uris[0], 0, COLUMNS)
        assert n_requests(faults) == 2


@pytest.mark.s3
@pytest.mark.parametrize("status", [400, 500, 503])
def test_what_a_store_refuses_or_cuts_short_is_asked_for_again(
    flaky_uri: str, faults: Faults, status: int
) -> None:
    for name in "abcd":
        write(f"{flaky_uri}/{name}")
    faults.refuse_every, faults.status, faults.cut_every = 7, status, 9
    reader = RowGroupReader()
    wanted = [(f"{flaky_uri}/{name}", k) for k in range(N_GROUPS) for name in "abcd"] * 2
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda part: reader.read(*part, COLUMNS), wanted))
    for (_, index), rows in zip(wanted, found, strict=True):
        assert rows.equals(GROUPS[index].select(COLUMNS))
    assert faults.refused > 2
    assert faults.cut > 1


@pytest.mark.s3
def test_a_store_that_stays_away_is_a_connection_error_and_not_a_damaged_file(
    flaky_uri: str, faults: Faults
) -> None:
    uri = f"{flaky_uri}/a"
    write(uri)
    reader = RowGroupReader()
    reader.read(uri, 0, COLUMNS)
    faults.refuse_every, faults.status = 1, 400
    with pytest.raises(ConnectionError, match=f"^{re.escape(uri)}: the object store fails"):
        reader.read(uri, 1, COLUMNS)


def moved(content: bytes) -> bytes:
    """A footer that is sound, and says that a row group lies beyond the file's end."""
    n_footer = int.from_bytes(content[-8:-4], "little")
    rest = content[-8 - n_footer :]
    start = pq.read_metadata(pa.BufferReader(content)).row_group(1).column(0).data_page_offset
    return content[: start + 100] + bytes(len(rest)) + rest


def damaged_page(content: bytes) -> bytes:
    begin = pq.read_metadata(pa.BufferReader(content)).row_group(1).column(0).data_page_offset
    return content[:begin] + bytes(40) + content[begin + 40 :]


DAMAGES = {
    "damaged": damaged_page,
    "Parquet magic bytes": lambda content: content[:-3],
    "Parquet file size is 0": lambda content: b"",
    "smaller than the size reported": lambda content: content[-2500:],
    "is not inside the file": moved,
}


@pytest.mark.parametrize("what", DAMAGES)
def test_a_damaged_file_fails_at_once_with_one_line_that_names_it(
    folder_uri: str, faults: Faults, request: pytest.FixtureRequest, what: str
) -> None:
    is_remote = storage.is_remote(folder_uri)
    if is_remote:
        folder_uri = request.getfixturevalue("flaky_uri")
        faults.refuse_every = 1 << 40
    uri = storage.join(folder_uri, "a.parquet")
    content = write(uri)
    storage.write_bytes(uri, DAMAGES[what](content))
    n_requests(faults)
    pattern = what if is_remote else "damaged|Parquet"
    with pytest.raises(SchemaError, match=f"^{re.escape(uri)}: .*({pattern})") as raised:
        RowGroupReader().read(uri, 1, COLUMNS)
    assert str(raised.value).isprintable()
    assert n_requests(faults) <= 3


@pytest.mark.parametrize(
    ("index", "columns", "text"),
    [(0, ["id", "age"], "column 'age' not found"), (9, ["id"], "row group 9 not found; it has 3")],
)
def test_what_the_file_does_not_have_is_a_schema_error(
    folder_uri: str, index: int, columns: list[str], text: str
) -> None:
    uri = storage.join(folder_uri, "a.parquet")
    write(uri)
    with pytest.raises(SchemaError, match=f"^{re.escape(uri)}: {text}"):
        RowGroupReader().read(uri, index, columns)


def test_a_file_that_is_not_there_is_not_found(folder_uri: str) -> None:
    with pytest.raises(FileNotFoundError):
        RowGroupReader().read(storage.join(folder_uri, "a.parquet"), 0, COLUMNS)


def test_a_network_disk_that_fails_once_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(str(tmp_path / "a"))
    lock, n_asked = threading.Lock(), 0

    def stale(name: str, uri: str, call):  # type: ignore[no-untyped-def]
        nonlocal n_asked
        with lock:
            n_asked += 1
            if n_asked == 2:
                raise OSError(116, "stale", uri)
        return call()

    monkeypatch.setattr(storage, "operation", stale)
    rows = RowGroupReader().read(str(tmp_path / "a"), 1, COLUMNS)
    assert rows.equals(GROUPS[1].select(COLUMNS))
