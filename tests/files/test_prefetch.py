from pathlib import Path

import pytest
from flaky_s3 import Faults

from ctc_ray.files import storage
from ctc_ray.files.prefetch import fetch, read_ahead
from ctc_ray.schemas import Failure


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
