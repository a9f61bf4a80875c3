"""The tables of a Camtrap DP package as text, from a folder (local or remote) or a zip."""

import csv
import io
import logging
import posixpath
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from ctc_ray.errors import ConfigError, SchemaError
from ctc_ray.files import storage
from ctc_ray.inventory.events.assemble import TEXT
from ctc_ray.inventory.sources.json_file import load_json, objects, read_file

logger = logging.getLogger(__name__)

_DESCRIPTOR = "datapackage.json"
_MISSING = ("", "NA", "NaN", "nan")
_BLOCK_BYTES = 8 << 20  # also the length of the longest readable row
TABLES = ("deployments", "media", "observations")


@dataclass(frozen=True)
class CamtrapPackage:
    """The tables of a package; null is missing."""

    root_uri: str
    """The folder to which relative file paths refer."""
    tables: Mapping[str, pa.Table]
    """Name of `TABLES` -> its columns as large_string."""

    def column(self, table: str, *names: str) -> pa.Array:
        """The first of the named columns that the table has; all null if it has none of them."""
        rows = self.tables[table]
        for name in names:
            if name in rows.column_names:
                return rows[name].combine_chunks()
        return pa.nulls(rows.num_rows, TEXT)


def read_package(uri: str) -> CamtrapPackage:
    """The tables deployments, media and observations, from the paths in `resources`.

    Args:
        uri: the package's folder, its datapackage.json, or a zip of the package.

    Raises:
        ConfigError: a file does not exist.
        SchemaError: a file cannot be read, or lacks a resource, a path or a required column.
    """
    root_uri, files = _files(uri)
    return CamtrapPackage(root_uri, {name: _table(name, parts) for name, parts in files.items()})


def package_files(uri: str) -> list[str]:
    """URIs of the package's description and of its tables; for a zip, the zip.

    Raises:
        ConfigError: the description does not exist, or a table is remote.
        SchemaError: the description cannot be read, or lacks a resource or a path.
    """
    if uri.lower().endswith(".zip"):
        return [uri]
    descriptor = _descriptor_uri(uri)
    root_uri, resources = _resources(descriptor, load_json(descriptor))
    paths = [path for name in TABLES for path in _part_paths(resources[name], descriptor)]
    return [descriptor, *(_inside(root_uri, path, descriptor) for path in paths)]


Parts = list[tuple[str, bytes, dict[str, Any]]]


def _files(uri: str) -> tuple[str, dict[str, Parts]]:
    """The root, and per table its files: (name for messages, content, resource)."""
    if not uri.lower().endswith(".zip"):
        descriptor = _descriptor_uri(uri)
        root_uri, resources = _resources(descriptor, load_json(descriptor))
        found: dict[str, Parts] = {}
        for name in TABLES:
            paths = _part_paths(resources[name], descriptor)
            uris = [_inside(root_uri, path, descriptor) for path in paths]
            found[name] = [(part, read_file(part), resources[name]) for part in uris]
        return root_uri, found
    try:
        with zipfile.ZipFile(io.BytesIO(read_file(uri))) as archive:
            return _parent(uri), _zipped(uri, archive)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        raise SchemaError(f"{uri}: cannot be read as a zip: {error}") from error


def _zipped(uri: str, archive: zipfile.ZipFile) -> dict[str, Parts]:
    names = archive.namelist()
    found = sorted((n for n in names if posixpath.basename(n) == _DESCRIPTOR), key=len)
    if not found:
        raise SchemaError(f"{uri}: no {_DESCRIPTOR} in this zip; zip the whole package")
    where = f"{uri}/{found[0]}"
    _, resources = _resources(where, load_json(where, archive.read(found[0])))
    tables: dict[str, Parts] = {}
    for name in TABLES:
        tables[name] = []
        for path in _part_paths(resources[name], where):
            member = posixpath.normpath(posixpath.join(posixpath.dirname(found[0]), path))
            if member not in names:
                raise ConfigError(f"{uri}: resource {name!r}: no file {member} in this zip")
            tables[name].append((f"{uri}/{member}", archive.read(member), resources[name]))
    return tables


def _descriptor_uri(uri: str) -> str:
    return uri if uri.endswith(".json") else storage.join(uri, _DESCRIPTOR)


def _parent(uri: str) -> str:
    return posixpath.dirname(uri) or "."


def _resources(descriptor: str, whole: dict[str, Any]) -> tuple[str, dict[str, dict[str, Any]]]:
    found = {str(one.get("name")): one for one in objects(whole, "resources", where=descriptor)}
    for name in TABLES:
        if name not in found:
            names = ", ".join(found) or "none"
            raise SchemaError(f"{descriptor}: resource {name!r} not found; resources are {names}")
    return _parent(descriptor), found


def _part_paths(resource: dict[str, Any], where: str) -> list[str]:
    path = resource.get("path")
    paths = [path] if isinstance(path, str) else path
    if not (isinstance(paths, list) and paths and all(isinstance(p, str) and p for p in paths)):
        raise SchemaError(f"{where}: resource {resource.get('name')!r} has no path")
    return paths


def _inside(root_uri: str, path: str, where: str) -> str:
    if "://" in path:
        raise ConfigError(
            f"{where}: {path} is a remote table; download it and set the path of its resource"
        )
    return storage.join(root_uri, path.removeprefix("./"))


def _table(name: str, parts: Parts) -> pa.Table:
    tables = [_part(*part) for part in parts]
    key = {"deployments": "deploymentID", "media": "mediaID", "observations": "observationType"}
    for (where, _, _), table in zip(parts, tables, strict=True):
        if key[name] not in table.column_names:
            columns = ", ".join(table.column_names)
            raise SchemaError(f"{where}: column {key[name]!r} not found; columns are {columns}")
    return pa.concat_tables(tables, promote_options="default")


def _part(where: str, content: bytes, resource: dict[str, Any]) -> pa.Table:
    try:
        table = (
            pq.read_table(pa.BufferReader(content))
            if content[:4] == b"PAR1"
            else _csv(where, content, resource)
        )
        columns = [column.cast(TEXT) for column in table.columns]
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, UnicodeError, LookupError) as error:
        raise SchemaError(f"{where}: {' '.join(str(error).split())}") from error
    missing = pa.array(_MISSING, TEXT)
    texts = [
        pa.chunked_array(
            [pa.array([], TEXT), *(_null_if_in(c, missing) for c in column.chunks)], TEXT
        )
        for column in columns
    ]
    return pa.table(texts, names=table.column_names)


def _null_if_in(values: pa.Array, missing: pa.Array) -> pa.Array:
    return pc.if_else(pc.is_in(values, value_set=missing), pa.scalar(None, TEXT), values)


def _csv(where: str, content: bytes, resource: dict[str, Any]) -> pa.Table:
    encoding = str(resource.get("encoding") or "utf-8")
    content = content.removeprefix(b"\xef\xbb\xbf")
    if encoding.lower().replace("-", "") != "utf8":
        content = content.decode(encoding).encode()
    dialect = resource.get("dialect")
    delimiter = str(dialect.get("delimiter", ",")) if isinstance(dialect, dict) else ","
    first = content.partition(b"\n")[0].decode()
    header = next(csv.reader([first], delimiter=delimiter), [])
    if not header:
        raise SchemaError(f"{where}: the file is empty; expected a header line")
    if len(set(header)) < len(header):
        raise SchemaError(f"{where}: the header line has two columns of the same name; rename one")
    try:
        return _parsed(content, header, delimiter)
    except pa.ArrowInvalid as error:
        if "columns, got" not in str(error):
            raise
    return _parsed(_filled_up(where, content, len(header), delimiter), header, delimiter)


def _parsed(content: bytes, header: list[str], delimiter: str) -> pa.Table:
    return pacsv.read_csv(
        pa.BufferReader(content),
        read_options=pacsv.ReadOptions(block_size=_BLOCK_BYTES),
        parse_options=pacsv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
        convert_options=pacsv.ConvertOptions(
            column_types=dict.fromkeys(header, TEXT), strings_can_be_null=False
        ),
    )


def _filled_up(where: str, content: bytes, n_columns: int, delimiter: str) -> bytes:
    """The csv with short rows filled up by empty cells: some tools omit empty last cells."""
    filled = io.StringIO()
    writer = csv.writer(filled, delimiter=delimiter)
    text = io.StringIO(content.decode(), newline="")
    n_short = 0
    reader = csv.reader(text, delimiter=delimiter)
    for cells in reader:
        if len(cells) > n_columns:
            line = reader.line_num
            raise SchemaError(
                f"{where}: line {line} has {len(cells)} cells, the header {n_columns}"
            )
        if cells:
            n_short += len(cells) < n_columns
            writer.writerow(cells + [""] * (n_columns - len(cells)))
    logger.warning(
        "%s: %d rows are shorter than the header; filled up with empty cells", where, n_short
    )
    return filled.getvalue().encode()


def as_numbers(values: pa.Array) -> npt.NDArray[np.float64]:
    """Texts as numbers; NaN for null and for a text that is not a number."""
    is_number = pc.match_substring_regex(values, r"^\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*$")
    text = pc.if_else(is_number, pc.utf8_trim_whitespace(values), pa.scalar(None, TEXT))
    found: npt.NDArray[np.float64] = text.cast(pa.float64()).to_numpy(zero_copy_only=False)
    return found.astype(np.float64)
