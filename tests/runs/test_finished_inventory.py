"""Rows of an inventory by their number, whatever parts and row groups they lie in."""

import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctc_ray.errors import IncompleteDataError
from ctc_ray.files import parquet, storage
from ctc_ray.runs.finished_inventory import find_rows
from ctc_ray.runs.layout import part_stem
from ctc_ray.runs.manifest import MANIFEST_NAME, Manifest


def lay(folder: str, part_sizes: list[int], rows_per_group: int) -> None:
    """Parts of rows 0, 1, … under a manifest."""
    first = 0
    for number, size in enumerate(part_sizes):
        uri = storage.join(folder, f"part-{number:05d}.parquet")
        values = range(first, first + size)
        rows = pa.table({"place": values, "name": [f"row {k}" for k in values]})
        parquet.write_table(uri, rows, rows_per_group=rows_per_group)
        first += size
    Manifest(kind="inventory", config={}, rows_out=first).write(folder)


@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=4), st.integers(1, 5), st.lists(st.integers(0))
)
def test_rows_come_by_their_number_and_in_that_order(part_sizes, rows_per_group, wanted):
    numbers = list(dict.fromkeys([number % sum(part_sizes) for number in wanted] + [0]))
    with tempfile.TemporaryDirectory() as folder:
        lay(folder, part_sizes, rows_per_group)
        found = find_rows(folder).read(np.array(numbers), ["name", "place"])
    assert found.column_names == ["name", "place"]
    assert found["place"].to_pylist() == numbers
    assert found["name"].to_pylist() == [f"row {number}" for number in numbers]


def test_another_inventory_in_the_same_place_is_told(tmp_path):
    lay(str(tmp_path), [3], 3)
    rows = find_rows(str(tmp_path))
    rows.require_unchanged()
    lay(str(tmp_path), [4], 3)
    with pytest.raises(IncompleteDataError, match="the inventory has changed since"):
        rows.require_unchanged()
    (tmp_path / MANIFEST_NAME).unlink()
    with pytest.raises(IncompleteDataError, match=r"no _manifest\.json"):
        rows.require_unchanged()


@given(st.lists(st.integers(1, 9), min_size=1, max_size=4), st.integers(1, 5))
def test_all_rows_come_in_their_order_a_row_group_at_a_time(part_sizes, rows_per_group):
    with tempfile.TemporaryDirectory() as folder:
        lay(folder, part_sizes, rows_per_group)
        found = find_rows(folder)
        parts = list(found.read_all(["place"]))
    assert found.n_rows == sum(part_sizes)
    assert pa.concat_tables(parts)["place"].to_pylist() == list(range(sum(part_sizes)))
    assert all(0 < part.num_rows <= rows_per_group for part in parts)


def test_rows_keep_their_numbers_in_an_inventory_of_more_than_99_999_files(tmp_path: Path) -> None:
    """A row is found by its number, which counts the files in the order of their names."""
    folder = str(tmp_path)
    for number in (99_998, 99_999, 100_000, 100_001):
        rows = pa.table({"image_uri": [f"{number}/{k}.jpg" for k in range(2)]})
        parquet.write_table(storage.join(folder, f"{part_stem(number)}.parquet"), rows)
    Manifest(kind="inventory", config={}).write(folder)
    found = find_rows(folder).read(np.arange(8), ["image_uri"])["image_uri"].to_pylist()
    assert found == [f"{number}/{k}.jpg" for number in range(99_998, 100_002) for k in range(2)]
