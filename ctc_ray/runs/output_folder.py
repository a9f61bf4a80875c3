"""A run of a stage in its output folder: begun, resumed or finished, by one owner at a time.

`_work/work.json` says what the run makes: a run with another configuration stops instead of mixing.
"""

import contextlib
import json
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ctc_ray.errors import ConfigError, OutputInUseError
from ctc_ray.files import parquet, storage
from ctc_ray.runs.append_journal import end_append, growing_by, is_growing
from ctc_ray.runs.claim import Claim, claimed, is_claim
from ctc_ray.runs.layout import WORK_FOLDER
from ctc_ray.runs.manifest import (
    MADE_BY,
    MANIFEST_NAME,
    Kind,
    Manifest,
    fingerprint,
    is_complete,
    read_manifest,
)

logger = logging.getLogger(__name__)

_WORK_FILE = "work.json"
_PLAN = re.compile(f"{WORK_FOLDER}/(?:.+/)?([^/]+)/plan-[0-9]+[.]arrow")


@dataclass(frozen=True)
class Run:
    """A stage at work in its output folder, which no other run may write into."""

    output_uri: str
    claim: Claim

    def finish(self, manifest: Manifest) -> Manifest:
        """Declare the output complete, then clear the plan away; `work.json` stays.

        Raises:
            OutputInUseError: another run has taken over.
        """
        storage.delete_half_written(self.output_uri, self.claim.is_over)
        self.claim.require_owner()
        manifest.write(self.output_uri)
        end_append(self.output_uri)
        return manifest

    def tidy(self) -> None:
        """Delete what a run has left that was killed after its manifest."""
        storage.delete_half_written(self.output_uri, self.claim.is_over)
        end_append(self.output_uri)


@contextlib.contextmanager
def open_run(
    output_uri: str,
    kind: Kind,
    fields: Mapping[str, Any],
    *,
    overwrite: bool,
    has_more: Callable[[], bool] = lambda: False,
) -> Iterator[Run | Manifest]:
    """Open the output folder for a run: new, resumed, or finished already.

    Args:
        kind: what the run makes; data of another kind are never overwritten.
        fields: what determines the result; a run with other fields is refused.
        has_more: asked if the output is complete: whether this run shall go on with it all the
            same. Until it finishes, the output is not complete.

    Yields:
        The manifest if the output is complete already, else the run that now owns the folder.

    Raises:
        ConfigError: the folder is a file, or holds other data, data of another kind or
            configuration, or (overwriting) an input of this run.
        OutputInUseError: another run is writing into the folder.
    """
    if overwrite:
        _require_no_input(output_uri, fields)
        _require_free(output_uri, kind, None)
    elif _found_manifest(output_uri, kind, fields) is not None and not has_more():
        yield complete_already(output_uri, kind)
        return
    with claimed(output_uri, MADE_BY[kind]) as claim:
        if overwrite:
            _require_free(output_uri, kind, None)
            _clear(output_uri)
        # Another run may have begun, or even finished, before this one had its claim.
        finished = _found_manifest(output_uri, kind, fields)
        if finished is not None and has_more():
            storage.delete_file(storage.join(output_uri, MANIFEST_NAME))
            finished = None
        if finished is None:
            _write_work(output_uri, kind, fields)
        yield finished or Run(output_uri, claim)


def complete_already(output_uri: str, kind: Kind) -> Manifest:
    """Say so, and delete what a run has left that was killed after its manifest.

    Returns:
        The manifest.
    """
    _tidy(output_uri, kind)
    logger.info("%s is complete already", output_uri)
    return read_manifest(output_uri, kind)


def _tidy(output_uri: str, kind: Kind) -> None:
    work_uri = storage.join(output_uri, WORK_FOLDER)
    if list(storage.list_files(work_uri)) == [storage.join(work_uri, _WORK_FILE)]:
        return
    # Another run may tidy now, or this user may only read: the output is complete all the same.
    with (
        contextlib.suppress(OutputInUseError, OSError),
        claimed(output_uri, MADE_BY[kind]) as claim,
    ):
        storage.delete_half_written(output_uri, claim.is_over)
        if not growing_by(output_uri, done=read_manifest(output_uri, kind).inputs):
            end_append(output_uri)


def finished_run(output_uri: str, kind: Kind, fields: Mapping[str, Any]) -> Manifest | None:
    """The manifest, if a run with these fields has finished; None if one may begin or resume.

    What a run has left that was killed after its manifest is deleted.

    Raises:
        ConfigError: the folder is not free for such a run; see `open_run`.
    """
    found = _found_manifest(output_uri, kind, fields)
    return None if found is None else complete_already(output_uri, kind)


def _found_manifest(output_uri: str, kind: Kind, fields: Mapping[str, Any]) -> Manifest | None:
    found = _require_free(output_uri, kind, fields)
    if found is None or not is_complete(output_uri):
        return None
    return read_manifest(output_uri, kind)


def _write_work(output_uri: str, kind: Kind, fields: Mapping[str, Any]) -> None:
    if not storage.is_file(storage.join(output_uri, WORK_FOLDER, _WORK_FILE)):
        replace_work(output_uri, kind, fields)


def replace_work(output_uri: str, kind: Kind, fields: Mapping[str, Any]) -> None:
    """Note that the folder holds what a run with these fields makes."""
    mine = {"kind": kind, "fingerprint": fingerprint(fields), "work": dict(fields)}
    storage.write_json(storage.join(output_uri, WORK_FOLDER, _WORK_FILE), mine)


def work_of(output_uri: str, kind: Kind) -> Mapping[str, Any] | None:
    """The fields of the run that a folder was made by; None if none has begun there.

    Raises:
        ConfigError: the folder holds data of another kind, or that no command of ours wrote.
    """
    found = _require_free(output_uri, kind, None)
    return None if found is None else found["work"]


def _clear(output_uri: str) -> None:
    """Delete all that an earlier run has left; the claim stays."""
    # The manifest first: a run killed in between must not leave a folder that looks complete.
    storage.delete_file(storage.join(output_uri, MANIFEST_NAME))
    work_uri = storage.join(output_uri, WORK_FOLDER, _WORK_FILE)
    for uri in list(storage.list_files(output_uri)):
        if uri != work_uri and not is_claim(uri) and storage.is_inside(uri, output_uri):
            storage.delete_file(uri)
    storage.delete_empty_folders(output_uri)
    storage.delete_file(work_uri)  # the last: until then the folder is known to be ours


def _require_free(
    output_uri: str, kind: Kind, fields: Mapping[str, Any] | None
) -> Mapping[str, Any] | None:
    """Check that the folder is empty, or holds data of this kind and of these fields.

    Args:
        fields: None: whatever the fields are.

    Returns:
        What `work.json` says; None if the folder is empty.
    """
    if storage.is_file(output_uri):
        raise ConfigError(f"{output_uri}: is a file; --output-uri names a folder")
    if (target := storage.broken_link(output_uri)) is not None:
        raise ConfigError(f"{output_uri}: is a link to {target}, which does not exist")
    found = _found_work(output_uri)
    if found is None:
        _require_empty(output_uri)
        return None
    if found["kind"] != kind:
        raise ConfigError(
            f"{output_uri}: holds the work of `{MADE_BY.get(found['kind'], 'another ctc')}`, "
            f"which `{MADE_BY[kind]}` "
            "neither continues nor overwrites; choose another --output-uri"
        )
    if fields is not None and found["fingerprint"] != fingerprint(fields):
        raise ConfigError(
            f"{output_uri}: holds work of another configuration "
            f"({difference(found['work'], fields)}); "
            "choose another --output-uri, or --overwrite to delete it"
        )
    return found


def is_begun(output_uri: str) -> bool:
    """Whether a command of ours has begun or finished its work in the folder.

    Raises:
        ConfigError: another program's folder of the same name.
    """
    return storage.is_folder(output_uri) and _found_work(output_uri) is not None


def _require_no_input(output_uri: str, fields: Mapping[str, Any]) -> None:
    named = [uri for name, uri in fields.items() if name.endswith("_uri") and uri]
    for uri in [*fields.get("inputs", {}), *named]:
        if storage.is_same_or_inside(uri, output_uri):
            raise ConfigError(
                f"{output_uri}: --overwrite would delete the input {uri}; "
                "choose another --output-uri"
            )


def _require_empty(output_uri: str) -> None:
    if storage.is_folder(output_uri) and _holds_files(output_uri):
        raise ConfigError(
            f"{output_uri}: holds files that no ctc command wrote; choose another --output-uri"
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
    """Whether there is a file that is not the claim of a run that has only just begun."""
    try:
        files = storage.list_files(uri)
        return any(not is_claim(file) and storage.is_inside(file, uri) for file in files)
    except ConfigError:
        return False


@dataclass(frozen=True)
class RunProgress:
    """How far a command has come in a folder that is not finished."""

    kind: Kind
    n_files: int
    """Files of results."""
    n_planned: int | None
    """Files of results when all is done, as far as that is known."""
    is_append: bool = False
    """Whether it adds to what a finished command has made."""


def run_progress(output_uri: str) -> RunProgress | None:
    """How far the run in the folder has come; None if no command of ours has begun one.

    Raises:
        ConfigError: another program's folder of the same name.
    """
    found = _found_work(output_uri)
    if found is None:
        return None
    output_uri = storage.absolute(output_uri)
    names = [uri[len(output_uri) + 1 :] for uri in storage.list_files(output_uri)]
    is_append = is_growing(output_uri)
    results = [name for name in names if not name.rpartition("/")[2].startswith((".", "_"))]
    plans = [name for name in results if _PLAN.fullmatch(name)]
    if not plans or is_append:
        n_files = sum(not name.startswith(f"{WORK_FOLDER}/") for name in results)
        return RunProgress(found["kind"], n_files, None, is_append)
    folders = {_PLAN.sub(r"\1", name) for name in plans}
    n_planned = sum(parquet.count_batches(storage.join(output_uri, plan)) for plan in plans)
    n_files = sum(name.rpartition("/")[0] in folders for name in results)
    return RunProgress(found["kind"], n_files, n_planned)


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """The first key whose value differs, with both values, and how many more there are."""
    there, now = dict(_flatten(old)), dict(_flatten(new))
    keys = [key for key in {**now, **there} if there.get(key) != now.get(key)]
    more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
    return (
        f"{keys[0]}: {there.get(keys[0], 'nothing')} there, {now.get(keys[0], 'nothing')} now{more}"
    )


def _flatten(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Dotted key -> value as JSON, so that 1 and true differ."""
    for key, item in value.items():
        if isinstance(item, Mapping) and item:
            yield from _flatten(item, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", json.dumps(item, sort_keys=True, ensure_ascii=False)
