"""Failures of a run: counted in the footers of its files, listed in one table."""

import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ctc_ray.columns.threads import map_ahead
from ctc_ray.errors import CtcError, TooManyFailuresError
from ctc_ray.files import parquet, storage
from ctc_ray.files.image_uris import wrong_root
from ctc_ray.runs.units import Unit
from ctc_ray.schemas import Failure, failure_schema

_FILES_AT_ONCE = 8


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
                # intern: of 100,000 files most say the same
                sys.intern(k.decode()): sys.intern(v.decode())
                for k, v in (file.schema_arrow.metadata or {}).items()
            }
            return Footer(unit.name, file.metadata.num_rows, failed, metadata)

    with ThreadPoolExecutor(16) as pool:
        return list(pool.map(read, units))


def _n_null_failures(row_group: Any) -> int:
    columns = (row_group.column(index) for index in range(row_group.num_columns))
    column = next(column for column in columns if column.path_in_schema == "failure")
    return int(column.statistics.null_count)


@dataclass(frozen=True)
class Failures:
    """The failed rows of a run, counted."""

    counts: dict[str, int]
    """Failure code -> rows, in the order of `Failure`; no zeros."""
    first_missing: str | None
    """`image_uri` of the first image that is missing; None: none is missing."""


def write_failures(uri: str, output_uri: str, footers: Sequence[Footer]) -> Failures:
    """List the failed rows of the units' files in one table; a few files are in memory at a time.

    Args:
        uri: of the table.
    """
    counts, first = Counter[str](), list[str]()

    def counted() -> Iterator[pa.Table]:
        for rows in _read_failures(output_uri, footers):
            counts.update(count_failures(rows))
            missing = pc.equal(rows["failure"], Failure.MISSING.value)
            if not first:
                first.extend(rows["image_uri"].filter(missing).slice(0, 1).to_pylist())
            yield rows

    parquet.write_parts(uri, failure_schema(), counted())
    in_order = {code.value: counts[code.value] for code in Failure if counts[code.value]}
    return Failures(in_order, first[0] if first else None)


def _read_failures(output_uri: str, footers: Sequence[Footer]) -> Iterator[pa.Table]:
    schema = failure_schema()

    def read(footer: Footer) -> pa.Table:
        rows = parquet.read_table(storage.join(output_uri, footer.name), columns=schema.names)
        return rows.filter(pc.is_valid(rows["failure"])).cast(schema)

    return map_ahead(read, (one for one in footers if one.n_failed), n_threads=_FILES_AT_ONCE)


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


def check_failures(
    failures_uri: str, failures: Failures, n_rows: int, allowed: float, *, root_uri: str | None
) -> None:
    """Stop if too many rows failed.

    Args:
        failures_uri: the failures table, which lists them.
        root_uri: below which the images are.

    Raises:
        TooManyFailuresError: names the failures table and the way out.
    """
    counts = failures.counts
    n_failed = sum(counts.values())
    if not n_rows or n_failed / n_rows <= allowed:
        return
    failed = (
        f"{n_failed:,} of {n_rows:,} images failed ({counts_to_text(counts)}), more than "
        f"max_failure_fraction {allowed:g}; see {failures_uri}. "
    )
    first = failures.first_missing
    tried = None if first is None else storage.under_root(root_uri, first)
    if tried is not None and counts.get(Failure.MISSING.value) == n_rows:
        raise TooManyFailuresError(
            f"{failed}No image was found, {wrong_root(tried)} Every worker must see it; "
            "run again with --overwrite"
        )
    named = "" if tried is None else f"The first that is missing: {tried}. "
    raise TooManyFailuresError(
        f"{failed}{named}What is done is kept: run again with a larger --max-failure-fraction to "
        "finish, or with --overwrite to read all images again"
    )


def counts_to_text(counts: Mapping[str, int]) -> str:
    """Counts in words, e.g. `missing 2, truncated 1`; `none` if there are none."""
    return ", ".join(f"{name} {n:,}" for name, n in counts.items() if n) or "none"
