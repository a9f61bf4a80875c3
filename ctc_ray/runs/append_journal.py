"""The journal of a finished folder that grows: which inputs are being added to it."""

import json
from collections.abc import Mapping
from typing import Any

from ctc_ray.errors import ConfigError
from ctc_ray.files import storage
from ctc_ray.runs.layout import WORK_FOLDER
from ctc_ray.runs.manifest import fingerprint

_APPEND_FILE = "append.json"


def begin_append(output_uri: str, inputs: Mapping[str, str], *, done: Mapping[str, str]) -> str:
    """Note which inputs a finished folder grows by; the name of a folder for the plan.

    Args:
        done: the inputs that the folder is made of.

    Raises:
        ConfigError: it is growing by others already.
    """
    uri = storage.join(output_uri, WORK_FOLDER, _APPEND_FILE)
    name = f"append-{fingerprint(inputs)[:12]}"
    found = _found_append(output_uri)
    if found is None or found["inputs"].items() <= done.items():  # killed after its manifest
        storage.write_json(uri, {"folder": name, "inputs": inputs})
    elif found["folder"] != name:
        raise ConfigError(
            f"{output_uri}: an append of {', '.join(found['inputs'])} is not finished; run it "
            "again first, or add --overwrite to delete what it has left"
        )
    return name


def note_append(output_uri: str, inputs: Mapping[str, str]) -> None:
    """Note that a folder grows by these inputs, whatever it has grown by before."""
    uri = storage.join(output_uri, WORK_FOLDER, _APPEND_FILE)
    storage.write_json(uri, {"folder": "append", "inputs": dict(inputs)})


def is_growing(output_uri: str) -> bool:
    """Whether an append has begun in the folder, and is not finished."""
    return _found_append(output_uri) is not None


def _found_append(output_uri: str) -> dict[str, Any] | None:
    try:
        content = storage.read_bytes(storage.join(output_uri, WORK_FOLDER, _APPEND_FILE))
    except FileNotFoundError:
        return None
    found: dict[str, Any] = json.loads(content)
    return found


def growing_by(output_uri: str, *, done: Mapping[str, str]) -> list[str]:
    """URIs of the inputs that an append, which is not finished, is adding to the folder.

    Args:
        done: the inputs that the folder is made of.
    """
    found = _found_append(output_uri)
    return [
        uri for uri, digest in (found or {}).get("inputs", {}).items() if done.get(uri) != digest
    ]


def end_append(output_uri: str) -> None:
    """Clear the plan away, and note that the folder grows no longer."""
    work_uri = storage.join(output_uri, WORK_FOLDER)
    if storage.is_folder(work_uri):
        for name in sorted(storage.folders_in(work_uri)):
            storage.delete_folder(storage.join(work_uri, name))
    storage.delete_file(storage.join(output_uri, WORK_FOLDER, _APPEND_FILE))
