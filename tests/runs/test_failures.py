from pathlib import Path

import pyarrow as pa
import pytest

from ctc_ray.errors import CtcError, TooManyFailuresError
from ctc_ray.files import parquet, storage
from ctc_ray.runs.failures import (
    Failures,
    check_failures,
    read_footers,
    require_all_rows,
    write_failures,
)
from ctc_ray.runs.units import Unit
from ctc_ray.schemas import failure_schema


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
    content = parquet.row_group_bytes([rows], metadata={"key": name})
    storage.write_bytes(str(folder / name), content)
    return Unit(name=name, plan_file="", index=0, n_rows=n)


def test_footers_tell_rows_failures_and_metadata(tmp_path: Path) -> None:
    units = [
        unit_file(tmp_path, "a.parquet", [None, "missing", None]),
        unit_file(tmp_path, "b.parquet", [None]),
        unit_file(tmp_path, "c.parquet", ["missing", "truncated"]),
    ]
    footers = read_footers(str(tmp_path), units)
    assert [(f.n_rows, f.n_failed) for f in footers] == [(3, 1), (1, 0), (2, 2)]
    assert footers[1].metadata == {"key": "b.parquet"}
    uri = str(tmp_path / "_failures.parquet")
    found = write_failures(uri, str(tmp_path), footers)
    assert found == Failures({"missing": 2, "truncated": 1}, "a.parquet1")
    table = parquet.read_table(uri)
    assert table.schema == failure_schema()
    assert table["failure"].to_pylist() == ["missing", "missing", "truncated"]


def test_failures_above_the_allowed_share_are_an_error_that_names_the_table() -> None:
    one, two = (Failures({"missing": n}, None) for n in (1, 2))
    check_failures("out/_failures.parquet", one, 10, 0.1, root_uri=None)
    with pytest.raises(
        TooManyFailuresError, match=r"2 of 10 images failed .* out/_failures.* or with --overwrite"
    ):
        check_failures("out/_failures.parquet", two, 10, 0.1, root_uri=None)


def test_missing_rows_are_an_error_and_not_complete() -> None:
    require_all_rows("out", 10, 10)
    with pytest.raises(CtcError, match="9 rows were written for 10 rows"):
        require_all_rows("out", 9, 10)


def test_a_run_that_found_no_image_names_the_first_path_and_never_advises_to_allow_it() -> None:
    with pytest.raises(
        TooManyFailuresError, match=r"No image was found, first /x/a\.jpg: is --im"
    ) as e:
        check_failures("f", Failures({"missing": 9}, "a.jpg"), 9, 0.1, root_uri="/x")
    assert "larger --max-failure-fraction" not in str(e.value)
    with pytest.raises(TooManyFailuresError, match=r"first that is missing: /x/a\.jpg\. What is"):
        check_failures("f", Failures({"missing": 8}, "/x/a.jpg"), 9, 0.1, root_uri=None)
