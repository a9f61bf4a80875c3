"""Failures of a run: counted in the footers of its files, listed in one table."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ctc_ray.errors import CtcError, TooManyFailuresError
from ctc_ray.files import parquet, storage
from ctc_ray.files.image_uris import wrong_root
from ctc_ray.runs.units import Unit
from ctc_ray.schemas import Failure, failure_schema


@dataclass(frozen=True)
class Footer:
    """What the footer of a unit's file says."""

    name: str
    n_rows: int
    n_failed: int
    metadata: dict[str, str]


def read_footers(output_uri: str, units: list[Unit]) -> list[Footer]:
    """The footers of all units' files, in their order; read from the files themselves."""

    def read(unit: Unit) -> Footer:
        with parquet.open_parquet(storage.join(output_uri, unit.name)) as file:
            groups = [file.metadata.row_group(i) for i in range(file.num_row_groups)]
            failed = sum(group.num_rows - _n_null_failures(group) for group in groups)
            metadata = {
                k.decode(): v.decode() for k, v in (file.schema_arrow.metadata or {}).items()
            }
            return Footer(unit.name, file.metadata.num_rows, failed, metadata)

    with ThreadPoolExecutor(16) as pool:
        return list(pool.map(read, units))


def _n_null_failures(row_group: Any) -> int:
    columns = (row_group.column(index) for index in range(row_group.num_columns))
    column = next(column for column in columns if column.path_in_schema == "failure")
    return int(column.statistics.null_count)


def read_failures(output_uri: str, footers: list[Footer]) -> pa.Table:
    """The failed rows of the units' files, as the failures table lists them."""
    schema = failure_schema()
    parts = [schema.empty_table()]
    for footer in footers:
        if footer.n_failed:
            rows = parquet.read_table(storage.join(output_uri, footer.name), columns=schema.names)
            parts.append(rows.filter(pc.is_valid(rows["failure"])).cast(schema))
    return pa.concat_tables(parts)


def count_failures(failures: pa.Table) -> dict[str, int]:
    """Failure code -> its rows in a failures table, in the order of `Failure`; no zeros."""
    counts = {
        row["values"]: row["counts"] for row in pc.value_counts(failures["failure"]).to_pylist()
    }
    return {code.value: counts[code.value] for code in Failure if code.value in counts}


def require_all_rows(output_uri: str, n_out: int, n_in: int) -> None:
    """Check that the files of all units hold a row for every row of the input.

    Raises:
        CtcError: rows are missing or too many: a fault of this program, never of the data.
    """
    if n_out != n_in:
        raise CtcError(
            f"{output_uri}: {n_out:,} rows were written for {n_in:,} rows of the input; please "
            "report this, and run again with --overwrite"
        )


def first_missing(failures: pa.Table, root_uri: str | None) -> str | None:
    """The path that was tried for the first image that is missing; None: none is missing."""
    missing = failures.filter(pc.equal(failures["failure"], Failure.MISSING.value))
    if missing.num_rows == 0:
        return None
    return storage.under_root(root_uri, missing["image_uri"][0].as_py())


def check_failures(
    failures_uri: str,
    failures: Mapping[str, int],
    n_rows: int,
    allowed: float,
    *,
    first_missing: str | None = None,
) -> None:
    """Stop if too many rows failed.

    Args:
        failures_uri: the failures table, which lists them.
        first_missing: the path that was tried for the first image that is missing.

    Raises:
        TooManyFailuresError: names the failures table and the way out.
    """
    n_failed = sum(failures.values())
    if not n_rows or n_failed / n_rows <= allowed:
        return
    failed = (
        f"{n_failed:,} of {n_rows:,} images failed ({counts_to_text(failures)}), more than "
        f"max_failure_fraction {allowed:g}; see {failures_uri}. "
    )
    if first_missing is not None and failures.get(Failure.MISSING.value) == n_rows:
        raise TooManyFailuresError(
            f"{failed}No image was found, {wrong_root(first_missing)} Every worker must see it; "
            "run again with --overwrite"
        )
    named = "" if first_missing is None else f"The first that is missing: {first_missing}. "
    raise TooManyFailuresError(
        f"{failed}{named}What is done is kept: run again with a larger --max-failure-fraction to "
        "finish, or with --overwrite to read all images again"
    )


def counts_to_text(counts: Mapping[str, int]) -> str:
    """Counts in words, e.g. `missing 2, truncated 1`; `none` if there are none."""
    return ", ".join(f"{name} {n:,}" for name, n in counts.items() if n) or "none"
