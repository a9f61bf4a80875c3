"""The inventory JSON of camera-trap-classifier 2019 as an inventory.

id -> {"labels": [{"species": "cat", …}, …], "images": ["a.jpg", …], "meta_data": {"site": "A1"}}
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from ctc_ray.errors import SchemaError
from ctc_ray.inventory.events.assemble import TEXT, Inventory, SourceRows, assemble
from ctc_ray.inventory.findings import Findings
from ctc_ray.inventory.sources.json_file import read_file
from ctc_ray.inventory.sources.paths import portable_paths

_MISSING_LABEL = "-1"

_REASONS = {  # in the order in which a record is checked
    "rejected_id": "the id is not valid Unicode",
    "rejected_not_an_object": "it is no object",
    "rejected_labels": 'labels must be a list of objects of text, like [{"species": "cat"}]',
    "rejected_images": "images must be a list of text, one of them not empty",
    "rejected_meta_data": "meta_data must be an object of text",
}


def read_json(uri: str, *, strip_prefix: str | None = None) -> Inventory:
    """The inventory of the valid records; rejected records are findings, per reason.

    Heads and metadata fields are all that occur in valid records, sorted. A label that a record
    lacks is missing, and so is -1.

    Args:
        strip_prefix: see `portable_paths`.

    Raises:
        ConfigError: the file does not exist.
        SchemaError: the file is not a JSON object, or has no valid record.
    """
    records, repeated = _load(uri)
    reasons = {name: _reason(name, record) for name, record in records.items()}
    rejected = {name: reason for name, reason in reasons.items() if reason is not None}
    valid = {name: record for name, record in records.items() if reasons[name] is None}
    if not valid:
        raise SchemaError(f"{uri}: {_all_rejected(rejected)}")
    replaced = ["the last one with this key was taken"] * len(repeated)
    findings = Findings().listed("duplicate_keys", _escaped(repeated), replaced)
    findings = findings.counted(rejected_records=len(rejected))
    for reason in dict.fromkeys(rejected.values()):
        names = _escaped([name for name in rejected if rejected[name] == reason])
        findings = findings.listed(reason, names, [_REASONS[reason]] * len(names))
    rows = _rows(valid)
    uris, found = portable_paths(rows.image_uris, where=uri, strip_prefix=strip_prefix)
    return assemble(replace(rows, image_uris=uris), where=uri, findings=findings.plus(found))


def _escaped(names: Iterable[str]) -> list[str]:
    """The names; a name that is not valid Unicode is escaped."""
    return [name if _is_text(name) else json.dumps(name)[1:-1] for name in names]


def _load(uri: str) -> tuple[dict[str, Any], list[str]]:
    """The records by id; and the repeated keys at any depth, once per value that was replaced."""
    repeated: list[str] = []

    def last_wins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) < len(pairs):
            repeated.extend((Counter(key for key, _ in pairs) - Counter(result.keys())).elements())
        return result

    content = read_file(uri)
    try:
        records = json.loads(content, object_pairs_hook=last_wins)
    except UnicodeDecodeError as error:
        raise SchemaError(f"{uri}: not UTF-8 ({error.reason} at byte {error.start})") from error
    except (ValueError, RecursionError) as error:
        raise SchemaError(f"{uri}: not JSON: {error}") from error
    if not isinstance(records, dict):
        raise SchemaError(
            f"{uri}: expected an object of id -> record, found {type(records).__name__}"
        )
    return records, repeated


def _all_rejected(rejected: Mapping[str, str]) -> str:
    if not rejected:
        return "there is no record"
    name, reason = next(iter(rejected.items()))
    n_records = len(rejected)
    return f"all {n_records} records were rejected; the first, {name!r}: {_REASONS[reason]}"


def _reason(name: str, record: Any) -> str | None:
    """The first reason in `_REASONS` to reject the record; None if it is valid."""
    if not _is_text(name):
        return "rejected_id"
    if not isinstance(record, dict):
        return "rejected_not_an_object"
    labels, images = record.get("labels"), record.get("images")
    if not (isinstance(labels, list) and labels and all(map(_is_observation, labels))):
        return "rejected_labels"
    if not (isinstance(images, list) and all(map(_is_text, images)) and any(images)):
        return "rejected_images"
    return None if _is_text_object(record.get("meta_data", {})) else "rejected_meta_data"


def _is_observation(value: Any) -> bool:
    return _is_text_object(value) and all(value.values())


def _is_text_object(value: Any) -> bool:
    return (
        isinstance(value, dict) and all(map(_is_text, value)) and all(map(_is_text, value.values()))
    )


def _is_text(value: Any) -> bool:
    """Whether the value is a string that UTF-8 can encode; JSON can hold lone surrogates."""
    if not isinstance(value, str):
        return False
    return value.isascii() or not any("\ud800" <= character <= "\udfff" for character in value)


def _rows(records: Mapping[str, Any]) -> SourceRows:
    images = [(row, uri) for row, r in enumerate(records.values()) for uri in r["images"] if uri]
    observations = [(row, o) for row, r in enumerate(records.values()) for o in r["labels"]]
    meta = [record.get("meta_data", {}) for record in records.values()]
    return SourceRows(
        event_ids=pa.array(list(records), TEXT),
        image_rows=np.array([row for row, _ in images], np.int64),
        image_uris=pa.array([uri for _, uri in images], TEXT),
        observation_rows=np.array([row for row, _ in observations], np.int64),
        labels={
            head: pa.array([_label(observation.get(head)) for _, observation in observations], TEXT)
            for head in sorted({head for _, observation in observations for head in observation})
        },
        meta={
            name: pa.array([fields.get(name) or None for fields in meta], TEXT)
            for name in sorted({name for fields in meta for name in fields})
        },
    )


def _label(value: str | None) -> str | None:
    return None if value == _MISSING_LABEL else value
