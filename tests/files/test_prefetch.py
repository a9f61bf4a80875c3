from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from flaky_s3 import Faults

from ctc_ray.files import storage
from ctc_ray.files.prefetch import fetch, prefetch, prefetch_files
from ctc_ray.schemas import Failure


def contents(uris: Sequence[str | Failure], n_threads: int | None) -> Iterator[bytes | Failure]:
    return (file.raw for group in prefetch_files(uris, n_threads) for file in group)


@pytest.mark.parametrize("n_ahead", [1, 3, 20])
def test_prefetched_items_come_in_order_and_all(n_ahead: int) -> None:
    with ThreadPoolExecutor(1) as pool:
        assert list(prefetch(iter(range(10)), pool, n_ahead=n_ahead)) == list(range(10))


def test_no_more_items_are_made_than_were_asked_for_and_ahead() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for number in range(50):
            made.append(number)
            yield number

    with ThreadPoolExecutor(1) as pool:
        ahead = prefetch(items(), pool, n_ahead=3)
        assert [next(ahead), next(ahead)] == [0, 1]
        ahead.close()  # type: ignore[attr-defined]  # it is a generator
    assert len(made) <= 2 + 3


def test_error_of_an_item_comes_after_the_items_before_it() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ZeroDivisionError("item")

    with ThreadPoolExecutor(1) as pool:
        ahead = prefetch(items(), pool, n_ahead=2)
        assert next(ahead) == 1
        with pytest.raises(ZeroDivisionError, match="item"):
            next(ahead)


def test_files_are_read_ahead_in_order_and_failures_are_values(tmp_path: Path) -> None:
    names = [tmp_path / str(i) for i in range(50)]
    for path in names[::2]:
        path.write_text(path.name)
    got = list(contents([str(path) for path in names], 4))
    assert got == [str(i).encode() if i % 2 == 0 else Failure.MISSING for i in range(50)]


@pytest.mark.parametrize("n_threads", [1, 3, 16])
def test_small_files_come_in_groups_and_large_ones_alone(tmp_path: Path, n_threads: int) -> None:
    sizes = [10, 900_000, 100_000][n_threads % 3 :] * 30 + [20] * 600
    for number, size in enumerate(sizes):
        (tmp_path / f"{number}").write_bytes(number.to_bytes(2, "big") * (size // 2))
    uris = [str(tmp_path / f"{number}") for number in range(len(sizes))]
    groups = list(prefetch_files(uris, n_threads))
    found = [file.raw for group in groups for file in group]
    assert found == [n.to_bytes(2, "big") * (size // 2) for n, size in enumerate(sizes)]
    assert max(len(group) for group in groups) == 16
    assert len(groups[-2]) == 16
    assert [len(group) for group in groups[:n_threads]] == [1] * n_threads


def test_no_more_files_are_read_ahead_than_there_are_threads(tmp_path: Path) -> None:
    names = [tmp_path / str(i) for i in range(50)]
    for path in names:
        path.write_bytes(b"1" * 300_000)
    got = contents([str(path) for path in names], 4)
    assert next(got) == b"1" * 300_000
    for path in names:
        path.unlink()
    later = list(got)
    assert len(later) == 49
    assert set(later[4:]) == {Failure.MISSING}


@pytest.mark.parametrize("n_files", [0, 1, 3])
def test_few_files_are_read_too(tmp_path: Path, n_files: int) -> None:
    (tmp_path / "a").write_text("1")
    assert list(contents([str(tmp_path / "a")] * n_files, None)) == [b"1"] * n_files


@pytest.mark.s3
def test_a_store_that_fails_makes_no_failures(flaky_uri: str, faults: Faults) -> None:
    uris = [storage.join(flaky_uri, name) for name in ("a.jpg", "secret.jpg", "no.jpg")]
    for uri in uris[:2]:
        storage.write_bytes(uri, b"1")
    faults.deny, faults.refuse_every, faults.status = "secret", 3, 400
    assert list(contents(uris, None)) == [b"1", Failure.UNREADABLE, Failure.MISSING]
    faults.refuse_every = 1
    with pytest.raises(ConnectionError, match=r"a\.jpg"):
        list(contents(uris, None))


def test_what_cannot_be_read_is_unreadable(tmp_path: Path) -> None:
    assert fetch(str(tmp_path)) is Failure.UNREADABLE
    assert fetch("https://example.invalid/a.jpg") is Failure.UNREADABLE
