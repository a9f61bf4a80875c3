"""The work of a stage in its output folder: begun, gone on with, or finished.

`_work/work.json` says what the work is: a run with another configuration stops instead of mixing.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ctc_ray.errors import ConfigError
from ctc_ray.files import parquet, storage
from ctc_ray.runs.append_journal import (
    end_append,
)
from ctc_ray.runs.layout import WORK_FOLDER
from ctc_ray.runs.manifest import MADE_BY, MANIFEST_NAME, Kind, Manifest, fingerprint

_WORK_FILE = "work.json"
_PLAN = re.compile(f"{WORK_FOLDER}/(.+)/plan-[0-9]+[.]arrow")


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
            f"({difference(found['work'], work)}); "
            "choose another --output-uri, or --overwrite to delete it"
        )
    return storage.exists(storage.join(output_uri, MANIFEST_NAME))


def is_begun(output_uri: str) -> bool:
    """Whether a command of ours has begun or finished its work in the folder.

    Raises:
        ConfigError: another program's folder of the same name.
    """
    return storage.is_folder(output_uri) and _found_work(output_uri) is not None


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
    n_planned = sum(parquet.count_batches(storage.join(output_uri, plan)) for plan in plans)
    n_files = sum(name.rpartition("/")[0] in folders for name in results)
    return Begun(found["kind"], n_files, n_planned)


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """The first key whose value differs, with both values, and how many more there are."""
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


def finish_work(output_uri: str, manifest: Manifest) -> None:
    """Declare the output complete, then clear the plan away; `work.json` stays."""
    _delete_half_written(output_uri)
    manifest.write(output_uri)
    end_append(output_uri)


def _delete_half_written(output_uri: str) -> None:
    """Delete what processes that were killed have left beside the results; a store has none."""
    if storage.is_remote(output_uri):
        return
    for uri in list(storage.list_files(output_uri)):
        if storage.HALF_WRITTEN.fullmatch(os.path.basename(storage.local_path(uri))):
            storage.delete_file(uri)
