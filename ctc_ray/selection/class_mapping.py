"""Rename and merge the classes of an inventory, before filters and label columns."""

import csv
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import yaml

from ctc_ray.errors import ConfigError
from ctc_ray.files import storage
from ctc_ray.observations import head_names, labels_of

ClassMapping = Mapping[str, Mapping[str, str | None]]
"""Head -> class -> its new name; None: a missing label."""

_CSV_HEADER = ["head", "from", "to"]
_MISSING = ("", "-1")


@dataclass(frozen=True)
class MappedInventory:
    """An inventory with renamed classes, and the classes of the mapping that do not occur."""

    table: pa.Table
    unused: tuple[str, ...]
    """Each as head=class, in the order of the mapping."""


def read_mapping(uri: str) -> dict[str, dict[str, str | None]]:
    """The class mapping in a csv (head,from,to) or a YAML file (head: {from: to}).

    Names are read verbatim: `no` and `1` are text in YAML too. An empty `to` or -1 makes a label
    missing, as in a csv of labels.

    Raises:
        ConfigError: the file does not exist or has another form, a class has two targets, or a
            target is itself mapped to another class.
    """
    try:
        text = storage.read_bytes(uri).decode("utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(f"{uri}: no such file (mapping_uri)") from None
    except IsADirectoryError:
        raise ConfigError(f"{uri}: a folder, not a class mapping file (mapping_uri)") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{uri}: not UTF-8: {error}; save the file as UTF-8") from error
    is_yaml = uri.lower().endswith((".yaml", ".yml"))
    return _checked(_yaml_rows(text, uri) if is_yaml else _csv_rows(text, uri), uri)


def map_classes(table: pa.Table, mapping: ClassMapping) -> MappedInventory:
    """The inventory with the labels in `observations` renamed; other labels are kept.

    Observations that become equal stay separate elements of their event's list.

    Raises:
        ConfigError: the mapping names a head that the inventory does not have.
    """
    known = head_names(table.schema.field("observations").type)
    for head in mapping:
        if head not in known:
            raise ConfigError(
                f"mapping_uri: head {head!r} not found; heads are {', '.join(known) or 'none'}"
            )
    used: set[tuple[str, str]] = set()
    column = table.schema.get_field_index("observations")
    chunks = [
        _replaced(chunk, known, mapping, used)
        for chunk in (table["observations"].chunks if mapping else [])
    ]
    classes = [(head, name) for head, names in mapping.items() for name in names]
    return MappedInventory(
        table.set_column(column, "observations", pa.chunked_array(chunks)) if chunks else table,
        tuple(f"{head}={name}" for head, name in classes if (head, name) not in used),
    )


def _replaced(
    lists: pa.ListArray, heads: list[str], mapping: ClassMapping, used: set[tuple[str, str]]
) -> pa.ListArray:
    """The lists with renamed labels; adds each renamed (head, class) that occurs to `used`."""
    flat = lists.flatten()
    columns = []
    for head in heads:
        labels = labels_of(flat, head)
        names = mapping.get(head)
        if names:
            encoded = labels.dictionary_encode()
            before = encoded.dictionary.to_pylist()
            used.update((head, name) for name in before if name in names)
            after = pa.array([names.get(name, name) for name in before], labels.type)
            labels = after.take(encoded.indices)
        columns.append(labels)
    lengths = pc.list_value_length(lists).fill_null(0).to_numpy()
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))
    observations = pa.StructArray.from_arrays(columns, fields=list(lists.type.value_type))
    return pa.ListArray.from_arrays(offsets, observations, type=lists.type, mask=lists.is_null())


def _csv_rows(text: str, uri: str) -> list[tuple[str, str, str]]:
    rows = list(csv.reader(io.StringIO(text, newline="")))
    if not rows or rows[0] != _CSV_HEADER:
        raise ConfigError(f"{uri}: the first line of a class mapping must be head,from,to")
    for line, row in enumerate(rows[1:], 2):
        if row and len(row) != len(_CSV_HEADER):
            raise ConfigError(f"{uri}: row {line} has {len(row)} cells; expected 3: head,from,to")
    return [(row[0], row[1], row[2]) for row in rows[1:] if row]


def _yaml_rows(text: str, uri: str) -> list[tuple[str, str, str]]:
    try:  # nodes, not values: they keep a name given twice, and `no` as text
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise ConfigError(f"{uri}: not YAML: {' '.join(str(error).split())}") from error
    rows = []
    for head, names in _pairs(root, uri):
        for name, target in _pairs(names, uri):
            if not isinstance(target, yaml.ScalarNode):
                raise ConfigError(f"{uri}: {head.value}={name.value} must be mapped to one name")
            is_null = target.tag == "tag:yaml.org,2002:null"
            rows.append((head.value, name.value, "" if is_null else target.value))
    return rows


def _pairs(node: yaml.Node | None, uri: str) -> list[tuple[yaml.Node, yaml.Node]]:
    pairs = node.value if isinstance(node, yaml.MappingNode) else [(None, None)]
    if not all(isinstance(name, yaml.ScalarNode) for name, _ in pairs):
        raise ConfigError(f"{uri}: a class mapping must be written as head: {{from: to}}")
    return list(pairs)


def _checked(rows: Iterable[tuple[str, str, str]], uri: str) -> dict[str, dict[str, str | None]]:
    mapping: dict[str, dict[str, str | None]] = {}
    for head, name, target in rows:
        names = mapping.setdefault(head, {})
        new = None if target in _MISSING else target
        if names.setdefault(name, new) != new:
            raise ConfigError(
                f"{uri}: {head}={name} is mapped to {names[name]!r} and to {new!r}; keep one"
            )
    for head, names in mapping.items():
        for name, new in names.items():
            if new is not None and new in names and names[new] != new:
                raise ConfigError(
                    f"{uri}: {head}={name} is mapped to {new!r}, which is mapped to "
                    f"{names[new]!r}; map {name!r} to its final name"
                )
    return mapping
