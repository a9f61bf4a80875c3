"""A JSON file as a Python value, and lists of its objects as columns."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from ctc_ray.errors import ConfigError, SchemaError
from ctc_ray.files import storage
from ctc_ray.inventory.events.assemble import TEXT


def load_json(uri: str, content: bytes | None = None) -> dict[str, Any]:
    """The object in a JSON file.

    Args:
        content: the file's bytes if they are known already; `uri` is then a name for messages.

    Raises:
        ConfigError: the file does not exist.
        SchemaError: the file is not JSON, or its value is not an object.
    """
    if content is None:
        content = read_file(uri)
    try:
        value = json.loads(content)
    except UnicodeDecodeError as error:
        raise SchemaError(f"{uri}: not UTF-8 ({error.reason} at byte {error.start})") from error
    except (ValueError, RecursionError) as error:
        raise SchemaError(f"{uri}: not JSON: {error}") from error
    if not isinstance(value, dict):
        raise SchemaError(f"{uri}: expected an object, found {type(value).__name__}")
    return value


def read_file(uri: str) -> bytes:
    """The bytes of a file.

    Raises:
        ConfigError: the file does not exist, or is a folder.
    """
    try:
        return storage.read_bytes(uri)
    except FileNotFoundError:
        raise ConfigError(f"{uri}: no such file") from None
    except IsADirectoryError:
        raise ConfigError(f"{uri}: a folder, not a file") from None


def objects(whole: Mapping[str, Any], key: str, *, where: str) -> list[dict[str, Any]]:
    """The list of objects at a key.

    Raises:
        SchemaError: the key does not exist, or its value is not a list of objects.
    """
    if key not in whole:
        keys = ", ".join(map(str, whole)) or "none"
        raise SchemaError(f"{where}: key {key!r} not found; keys are {keys}")
    values = whole[key]
    if not isinstance(values, list):
        raise SchemaError(f"{where}: {key!r} must be a list, found {type(values).__name__}")
    for index, value in enumerate(values):
        if not isinstance(value, dict):
            raise SchemaError(f"{where}: {key}[{index}] must be an object, found {value!r:.40}")
    return values


def text_column(rows: Sequence[Mapping[str, Any]], key: str, *, where: str) -> pa.Array:
    """The values of one key as text; null if missing, null, "", NaN, a list or an object.

    Raises:
        SchemaError: a text is not valid Unicode.
    """
    return text_array([row.get(key) for row in rows], what=key, where=where)


def text_array(values: Sequence[Any], *, what: str, where: str) -> pa.Array:
    """Scalars as text, 3.0 as 3; null for null, "", NaN, lists and objects.

    Args:
        what: name of the values, for messages.

    Raises:
        SchemaError: a text is not valid Unicode.
    """
    texts = [_text(value) for value in values]
    try:
        return pa.array(texts, TEXT)
    except UnicodeEncodeError as error:
        raise SchemaError(f"{where}: a {what} is not valid Unicode: {error.reason}") from error


def _text(value: object) -> str | None:
    # many tools write a column with gaps as floats: NaN for missing, 3.0 for 3
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        return str(int(value)) if value.is_integer() else str(value)
    if isinstance(value, int):
        return str(value)
    return value if isinstance(value, str) and value else None
