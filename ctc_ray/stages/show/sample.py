"""Which images of a finished folder may be shown, and their JPEGs.

Of the tables only narrow columns are read, of a limited number of row groups that are spread over
the files; JPEGs only of the row groups that hold a chosen image.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from ctc_ray.config.show import ShowConfig
from ctc_ray.errors import LabelError
from ctc_ray.files import parquet, storage
from ctc_ray.runs.manifest import Manifest, fingerprint
from ctc_ray.schemas import label_column, pred_column, score_column
from ctc_ray.selection.labelling import label_rows

_CANDIDATES = 1 << 18  # rows that are looked at, about: 20 MB of ids
_THREADS = 16
_SHARED = ["image_id", "image_uri", "class", "failure", "score"]
_CANDIDATE = pa.schema(
    [
        *(pa.field(name, pa.float32() if name == "score" else pa.string()) for name in _SHARED),
        pa.field("split", pa.string()),
        pa.field("part", pa.string()),
        pa.field("group", pa.int64()),
        pa.field("row", pa.int64()),
    ]
)

Shown = TypeVar("Shown")


def head_of(config: ShowConfig, manifest: Manifest) -> str | None:
    """The head whose classes are shown; None: there is none.

    Raises:
        LabelError: the folder has no such head.
    """
    if config.head is not None and config.head not in manifest.classes:
        known = ", ".join(manifest.classes) or "none"
        raise LabelError(f"--head: {config.head!r} is no head of the folder; its heads are {known}")
    return config.head or next(iter(manifest.classes), None)


def candidates(uri: str, manifest: Manifest, head: str | None) -> pa.Table:
    """Images that may be shown, with their class of the head; `split` is null where there are none.

    `part`, `group` and `row` are where an image lies: file, row group, row of the group.
    """
    names = _files(uri, manifest)
    found, n_rows = [_CANDIDATE.empty_table()], 0
    with ThreadPoolExecutor(_THREADS) as pool:
        in_turn = _in_turn(names)
        for first in range(0, len(in_turn), _THREADS):
            some = in_turn[first : first + _THREADS]
            read = list(pool.map(lambda name: _read_part(uri, name, manifest, head), some))
            found += read
            n_rows += sum(rows.num_rows for rows in read)
            if n_rows >= _CANDIDATES:
                break
    return pa.concat_tables(found)


def _files(uri: str, manifest: Manifest) -> list[str]:
    """The files that hold the images; of a dataset that grows none of the new ones."""
    if manifest.kind == "dataset":
        return [shard.path for shard in manifest.shards]
    folder = storage.join(uri, "images") if manifest.kind == "predictions" else uri
    return [part[len(uri.rstrip("/")) + 1 :] for part in parquet.list_tables(folder)]


def _in_turn(names: list[str]) -> list[str]:
    """Files in hashed order, round-robin over the splits."""
    in_order = sorted(names, key=lambda name: (name.rpartition("/")[0], fingerprint(name)))
    turns: list[tuple[int, str]] = []
    for _, group in groupby(in_order, key=lambda name: name.rpartition("/")[0]):
        turns += enumerate(group)
    return [name for _, name in sorted(turns, key=lambda turn: turn[0])]


def _read_part(uri: str, name: str, manifest: Manifest, head: str | None) -> pa.Table:
    columns = _columns(manifest, head)
    split = name.partition("/")[0].removeprefix("split=") if "split=" in name else None
    found, n_rows = [_CANDIDATE.empty_table()], 0
    part = storage.join(uri, name)
    with parquet.open_parquet(part) as file:
        for group in sorted(range(file.num_row_groups), key=lambda g: fingerprint([name, g])):
            rows = _as_shared(parquet.read_row_group(file, part, group, columns), manifest, head)
            position = {
                "split": pa.array([split] * rows.num_rows, pa.string()),
                "part": pa.array([name] * rows.num_rows, pa.string()),
                "group": pa.array(np.full(rows.num_rows, group)),
                "row": pa.array(np.arange(rows.num_rows)),
            }
            columns_of = {name: rows[name] for name in _SHARED} | position
            found.append(pa.table(columns_of, schema=_CANDIDATE))
            n_rows += rows.num_rows
            if n_rows >= _CANDIDATES:
                break
    return pa.concat_tables(found)


def _columns(manifest: Manifest, head: str | None) -> list[str]:
    own = head or ""
    match manifest.kind:
        case "inventory":
            return ["image_id", "image_uri", "capture_event_id", "observations"]
        case "dataset":
            return ["image_id", "image_uri", "failure", label_column(own)]
        case _:
            return ["image_id", "image_uri", "failure", pred_column(own), score_column(own)]


def _as_shared(rows: pa.Table, manifest: Manifest, head: str | None) -> pa.Table:
    if manifest.kind == "inventory":
        rows = label_rows(rows, [head] if head else [], observations="first").rows
    own = head or ""
    names = {pred_column(own): "class", label_column(own): "class", score_column(own): "score"}
    rows = rows.rename_columns([names.get(name, name) for name in rows.column_names])
    for name in ("class", "failure", "score"):
        if name not in rows.column_names:
            kind = pa.float32() if name == "score" else pa.string()
            rows = rows.append_column(name, pa.nulls(rows.num_rows, kind))
    return rows.select(_SHARED)


def read_jpegs(
    uri: str, rows: list[dict[str, Any]], shown: Callable[[dict[str, Any], bytes | None], Shown]
) -> list[Shown]:
    """What is made of each row and its JPEG of a dataset; each row group is read once.

    Args:
        rows: of `candidates`.
        shown: called in threads; the JPEG is None where the image has a failure.
    """
    by_group: dict[tuple[str, int], list[int]] = {}
    for index, row in enumerate(rows):
        by_group.setdefault((row["part"], row["group"]), []).append(index)

    def read(at: tuple[tuple[str, int], list[int]]) -> list[tuple[int, Shown]]:
        (name, group), indices = at
        part = storage.join(uri, name)
        with parquet.open_parquet(part) as file:
            jpegs = parquet.read_row_group(file, part, group, ["jpeg"])["jpeg"]
        jpegs = jpegs.take(pa.array([rows[index]["row"] for index in indices])).to_pylist()
        return [(index, shown(rows[index], raw)) for index, raw in zip(indices, jpegs, strict=True)]

    with ThreadPoolExecutor(_THREADS) as pool:
        found = dict(pair for pairs in pool.map(read, by_group.items()) for pair in pairs)
    return [found[index] for index in range(len(rows))]
