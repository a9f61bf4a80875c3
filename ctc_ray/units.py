"""A stage's work as numbered units of whole capture events; what is still missing.

A unit's rows wait in a plan file below `_work/` of the output folder; its result is one file of the
same name. A run does the units whose file is missing, so a killed run goes on where it was.
`_work/work.json` says what the work is: a run with another configuration stops instead of mixing.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs

from ctc_ray import storage, tables
from ctc_ray.errors import ConfigError
from ctc_ray.manifest import MADE_BY, MANIFEST_NAME, Kind, Manifest, fingerprint

WORK_FOLDER = "_work"
_WORK_FILE = "work.json"
_PLAN = re.compile(f"{WORK_FOLDER}/(.+)/plan-[0-9]+[.]parquet")
_UNITS_PER_PLAN_FILE = 64  # a task reads one row group; the footer it reads first stays small


@dataclass(frozen=True)
class Unit:
    """A slice of whole capture events; its result is the file `name` below the output folder."""

    name: str  # e.g. split=train/part-00000.parquet
    plan_file: str  # below the output folder
    row_group: int
    n_rows: int


def cut_by_events(
    event_ids: pa.Array | pa.ChunkedArray, images_per_unit: int
) -> list[tuple[int, int]]:
    """Row ranges [start, stop) of about `images_per_unit` rows that never split an event.

    Rows of an event must be neighbours. A longer event is a unit of its own.
    """
    starts = event_starts(event_ids)
    n_rows = len(event_ids)
    cuts, start = [], 0
    while start < n_rows:
        place = int(np.searchsorted(starts, start + images_per_unit, side="right")) - 1
        stop = int(starts[place]) if starts[place] > start else _next_start(starts, start, n_rows)
        if n_rows - start <= images_per_unit:
            stop = n_rows
        cuts.append((start, stop))
        start = stop
    return cuts


def _next_start(starts: npt.NDArray[np.int64], start: int, n_rows: int) -> int:
    place = int(np.searchsorted(starts, start, side="right"))
    return int(starts[place]) if place < len(starts) else n_rows


def event_starts(event_ids: pa.Array | pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """The row at which each run of equal event ids begins."""
    if len(event_ids) == 0:
        return np.zeros(0, np.int64)
    changes = pc.not_equal(event_ids[1:], event_ids[:-1])
    return np.concatenate([[0], np.flatnonzero(np.asarray(changes)) + 1]).astype(np.int64)


def begin_work(output_uri: str, kind: Kind, work: Mapping[str, Any], *, overwrite: bool) -> bool:
    """Open the output folder for this work; True if the work in it is already complete.

    Args:
        kind: what the work makes; work of another kind is never overwritten.

    Raises:
        ConfigError: the folder is a file, or holds other data, work of another kind or
            configuration, or (overwriting) an input of this work.
    """
    work_uri = storage.join(output_uri, WORK_FOLDER, _WORK_FILE)
    mine = {"kind": kind, "fingerprint": fingerprint(work), "work": dict(work)}
    if storage.is_file(output_uri):
        raise ConfigError(f"{output_uri}: is a file; --output-uri names a folder")
    if overwrite:
        _require_no_input(output_uri, work.get("inputs", {}))
        _require_ours(output_uri, kind)
        # The manifest first: a run killed in between must not leave a folder that looks complete.
        storage.delete_file(storage.join(output_uri, MANIFEST_NAME))
        storage.clear_folder(output_uri)
    found = _found_work(output_uri)
    if found is None:
        _require_empty(output_uri)
        storage.write_json(work_uri, mine)
        return False
    _require_kind(output_uri, kind, found)
    if found["fingerprint"] != mine["fingerprint"]:
        raise ConfigError(
            f"{output_uri}: holds work of another configuration "
            f"({_difference(found['work'], work)}); "
            "choose another --output-uri, or --overwrite to delete it"
        )
    return storage.exists(storage.join(output_uri, MANIFEST_NAME))


def _require_no_input(output_uri: str, inputs: Mapping[str, Any]) -> None:
    folder = output_uri.rstrip("/") + "/"
    for uri in inputs:
        if f"{uri.rstrip('/')}/".startswith(folder):
            raise ConfigError(
                f"{output_uri}: --overwrite would delete the input {uri}; "
                "choose another --output-uri"
            )


def _require_empty(output_uri: str) -> None:
    if storage.is_folder(output_uri) and _holds_files(output_uri):
        raise ConfigError(
            f"{output_uri}: holds files that no ctc command wrote; choose another --output-uri"
        )


def _require_ours(output_uri: str, kind: Kind) -> None:
    found = _found_work(output_uri)
    if found is None:
        _require_empty(output_uri)
    else:
        _require_kind(output_uri, kind, found)


def _require_kind(output_uri: str, kind: Kind, found: Mapping[str, Any]) -> None:
    if found["kind"] != kind:
        raise ConfigError(
            f"{output_uri}: holds the work of `{MADE_BY[found['kind']]}`, which `{MADE_BY[kind]}` "
            "neither continues nor overwrites; choose another --output-uri"
        )


def _found_work(output_uri: str) -> dict[str, Any] | None:
    """What an earlier run has begun in the folder.

    Raises:
        ConfigError: another program's folder of the same name.
    """
    uri = storage.join(output_uri, WORK_FOLDER, _WORK_FILE)
    try:
        found = json.loads(storage.read_bytes(uri))
    except FileNotFoundError:
        return None
    except ValueError:
        found = None
    if not isinstance(found, dict) or not {"kind", "fingerprint", "work"} <= found.keys():
        raise ConfigError(f"{uri}: no ctc command wrote this; choose another --output-uri")
    return found


def _holds_files(uri: str) -> bool:
    try:
        return next(iter(storage.list_files(uri)), None) is not None
    except ConfigError:
        return False


@dataclass(frozen=True)
class Begun:
    """What a command has done so far in a folder that is not finished."""

    kind: Kind
    n_files: int
    """Files of results."""
    n_planned: int | None
    """Files of results when all is done, as far as that is known."""


def begun_work(output_uri: str) -> Begun | None:
    """What has been begun in the folder; None if no command of ours was at work there.

    Raises:
        ConfigError: another program's folder of the same name.
    """
    found = _found_work(output_uri)
    if found is None:
        return None
    output_uri = storage.absolute(output_uri)
    names = [uri[len(output_uri) + 1 :] for uri in storage.list_files(output_uri)]
    results = [name for name in names if not name.rpartition("/")[2].startswith((".", "_"))]
    plans = [name for name in results if _PLAN.fullmatch(name)]
    if not plans:
        n_files = sum(not name.startswith(f"{WORK_FOLDER}/") for name in results)
        return Begun(found["kind"], n_files, None)
    folders = {_PLAN.sub(r"\1", name) for name in plans}
    n_planned = 0
    for plan in plans:
        with tables.open_parquet(storage.join(output_uri, plan)) as file:
            n_planned += file.num_row_groups
    n_files = sum(name.rpartition("/")[0] in folders for name in results)
    return Begun(found["kind"], n_files, n_planned)


def _difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    there, now = dict(_flatten(old)), dict(_flatten(new))
    keys = [key for key in {**now, **there} if there.get(key) != now.get(key)]
    more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
    return (
        f"{keys[0]}: {there.get(keys[0], 'nothing')} there, {now.get(keys[0], 'nothing')} now{more}"
    )


def _flatten(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Dotted key and JSON of each value: what is equal in Python, like 1 and true, is not here."""
    for key, item in value.items():
        if isinstance(item, Mapping) and item:
            yield from _flatten(item, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", json.dumps(item, sort_keys=True, ensure_ascii=False)


def write_plan(output_uri: str, folder: str, rows: pa.Table, images_per_unit: int) -> list[Unit]:
    """Cut the rows into units and lay them ready; units are numbered in the order of the rows.

    Args:
        folder: where the units' results go, below the output folder, e.g. `split=train`.
        rows: rows of an event are neighbours.
    """
    units: list[Unit] = []
    cuts = cut_by_events(rows["capture_event_id"], images_per_unit)
    for first in range(0, len(cuts), _UNITS_PER_PLAN_FILE):
        plan_file = f"{WORK_FOLDER}/{folder}/plan-{first // _UNITS_PER_PLAN_FILE:05d}.parquet"
        ranges = cuts[first : first + _UNITS_PER_PLAN_FILE]
        plan_uri = storage.join(output_uri, plan_file)
        if not storage.exists(
            plan_uri
        ):  # a killed run has laid it: the work's fingerprint is the same
            tables.write_row_groups(plan_uri, [rows.slice(a, b - a) for a, b in ranges])
        for place, (a, b) in enumerate(ranges):
            name = f"{folder}/part-{first + place:05d}.parquet"
            units.append(Unit(name=name, plan_file=plan_file, row_group=place, n_rows=b - a))
    return units


def read_unit(output_uri: str, unit: Unit) -> pa.Table:
    """The rows of a unit."""
    return tables.read_row_group(storage.join(output_uri, unit.plan_file), unit.row_group)


def missing_units(output_uri: str, units: list[Unit]) -> list[Unit]:
    """The units whose result is not yet there, in their order."""
    if not storage.is_folder(output_uri):
        return units
    output_uri = storage.absolute(output_uri)
    there = set(storage.list_files(output_uri))
    return [unit for unit in units if storage.join(output_uri, unit.name) not in there]


def finish_work(output_uri: str, manifest: Manifest) -> None:
    """Declare the output complete, then clear the plan away; `work.json` stays."""
    manifest.write(output_uri)
    storage.ask(storage.join(output_uri, WORK_FOLDER), _delete_folders_of)


def _delete_folders_of(file_system: pafs.FileSystem, path: str) -> None:
    selector = pafs.FileSelector(path, allow_not_found=True)
    for info in file_system.get_file_info(selector):
        if info.type == pafs.FileType.Directory:
            file_system.delete_dir(info.path)
