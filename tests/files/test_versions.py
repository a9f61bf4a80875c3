import os
from pathlib import Path

import pytest

from ctc_ray.files import storage
from ctc_ray.files.versions import read_with_version, versions_of


def test_the_versions_of_many_files_are_those_of_reading_them(tmp_path: Path) -> None:
    """More files than one task looks at; some are missing, a folder, or no path at all."""
    paths = [str(tmp_path / f"{number:04d}") for number in range(700)]
    for number, path in enumerate(paths):
        if number % 5:
            Path(path).write_bytes(b"x" * number)
        elif number % 2:
            Path(path).mkdir()
    uris = [None if number % 7 == 0 else path for number, path in enumerate(paths)]
    found = versions_of(uris, n_threads=8)
    expected = [
        None if uri is None or number % 5 == 0 else read_with_version(uri)[1]
        for number, uri in enumerate(uris)
    ]
    assert found == expected
    assert len({version for version in found if version is not None}) > 400


def test_a_file_that_is_written_has_another_version(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"1")
    os.utime(path, ns=(0, 1_000))
    (first,) = versions_of([str(path)], n_threads=1)
    path.write_bytes(b"2")
    os.utime(path, ns=(0, 2_000))
    assert versions_of([str(path)], n_threads=1) != [first]
    assert versions_of([f"{path}/b", f"{tmp_path}/{'x' * 300}"], n_threads=1) == [None, None]


@pytest.mark.s3
def test_objects_have_the_versions_that_reading_gives(s3_bucket_uri: str) -> None:
    uris = [f"{s3_bucket_uri}/{number % 3}/{number}" for number in range(20)]
    for number, uri in enumerate(uris[:15]):
        storage.write_bytes(uri, bytes([number]))
    found = versions_of([*uris, "https://example.invalid/a", "ftp://x/y"], n_threads=4)
    assert found[:15] == [read_with_version(uri)[1] for uri in uris[:15]]
    assert found[15:] == [None] * 7
