"""URIs (`s3://`, `gs://`, local paths) through pyarrow: list, read, write atomically.

A local path is a URI as it stands, relative or absolute. A local name that is not valid UTF-8
cannot be a string in Arrow; it is listed as a percent-encoded `file://` URI, which reads back.
After the bucket an object's name stands as it is, too: no percent-encoding, no `?settings`.
Credentials, region and endpoint come from the environment (AWS_REGION, AWS_ENDPOINT_URL, …).
Object stores are asked again when they fail; a ConnectionError says that this was no use.
"""

import contextlib
import functools
import hashlib
import json
import logging
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from typing import IO, Any, TypeVar
from urllib.parse import quote, unquote_to_bytes

import pyarrow as pa
import pyarrow.fs as pafs

from ctc_ray.errors import ConfigError
from ctc_ray.files.retries import patiently

logger = logging.getLogger(__name__)

Answer = TypeVar("Answer")

_FILE_SCHEME = "file://"
HALF_WRITTEN = re.compile(
    r"\.(?P<name>.+)\.(?P<owner>[0-9a-f]{32})(-[0-9a-f]{8})?", re.DOTALL
)  # name of a file not yet renamed
_owner = uuid.uuid4().hex


def set_owner(token: str) -> None:
    """Write for this owner from now on."""
    global _owner  # one process has one owner
    _owner = token


def modified_at(uri: str) -> datetime:
    """When the file was last written."""
    return datetime.fromtimestamp(os.stat(local_path(uri)).st_mtime, UTC)


def create_bytes(uri: str, content: bytes) -> bool:
    """TEMPORARY."""
    path = os.path.abspath(local_path(uri))
    os.makedirs(os.path.dirname(path), exist_ok=True)
    aside = os.path.join(
        os.path.dirname(path), f".{os.path.basename(path)}.{_owner}-{uuid.uuid4().hex[:8]}"
    )
    with open(aside, "wb") as file:
        file.write(content)
    try:
        os.link(aside, path)
        return True
    except FileExistsError:
        return False
    finally:
        os.unlink(aside)


def is_remote(uri: str) -> bool:
    """Whether the URI names an object store."""
    return "://" in uri and not uri.startswith(_FILE_SCHEME)


def local_path(uri: str) -> str:
    """The path of a local URI, as the operating system spells it."""
    if uri.startswith(_FILE_SCHEME):
        return os.fsdecode(unquote_to_bytes(uri[len(_FILE_SCHEME) :]))
    return uri


def filesystem(uri: str) -> tuple[pafs.FileSystem, str]:
    """The file system of a URI, and the path there.

    Raises:
        ConfigError: the scheme is not known, or the bucket cannot be found.
        ConnectionError: the store cannot be asked for the bucket's region.
    """
    if not is_remote(uri):
        return pafs.LocalFileSystem(), os.path.abspath(local_path(uri))
    scheme, _, name = uri.partition("://")
    bucket, _, path = name.partition("/")
    file_system, base = _bucket(f"{scheme}://{bucket or '/'}")
    return file_system, f"{base.rstrip('/')}/{path}".rstrip("/")


@functools.lru_cache(maxsize=64)  # a new one asks for its region again, and connects again
def _bucket(uri: str) -> tuple[pafs.FileSystem, str]:
    settings = ""
    if uri.startswith("s3://") and {"AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"} & os.environ.keys():
        # Not every store that speaks S3 tells a region when it is asked.
        region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
        settings = f"?region={region or 'us-east-1'}"
    try:
        if not uri.startswith("s3://"):
            return _from_uri(uri)
        return patiently(uri, lambda: _from_uri(uri + settings))  # asks for the bucket's region
    except ConnectionError:  # says nothing about the bucket
        raise
    except (pa.ArrowNotImplementedError, ValueError, OSError) as error:
        raise ConfigError(f"{uri}: {' '.join(str(error).split())}") from error


def _from_uri(uri: str) -> tuple[pafs.FileSystem, str]:
    file_system, path = pafs.FileSystem.from_uri(uri)
    return file_system, path


def ask(uri: str, call: Callable[[pafs.FileSystem, str], Answer]) -> Answer:
    """What a function of a file system and a path there returns; a store may be asked repeatedly.

    Raises:
        FileNotFoundError: there is no such file.
        PermissionError: the store refuses it.
        ConnectionError: the store has failed to the last attempt; the file may be fine.
    """
    where = filesystem(uri)
    return patiently(uri, lambda: call(*where)) if is_remote(uri) else call(*where)


def absolute(uri: str) -> str:
    """The URI as every process of the cluster may use it: absolute, and without a last slash."""
    return uri.rstrip("/") if is_remote(uri) else as_text(os.path.abspath(local_path(uri)))


def join(uri: str, *parts: str) -> str:
    """The URI of something inside the folder; parts with a leading slash stay inside it."""
    names = [part.strip("/") for part in parts]
    if uri.startswith(_FILE_SCHEME):
        names = [quote(os.fsencode(name)) for name in names]
    return "/".join([uri.rstrip("/"), *names]) or "/"


def under_root(root_uri: str | None, uri: str) -> str:
    """Where the file `uri` of a source lies: absolute paths and URIs stay inside `root_uri` too.

    As in the original, a leading separator is stripped before joining, so that `/data/a.jpg` of a
    csv can be found below another root; a full URI (`s3://…`) is left alone.
    """
    if root_uri is None or is_remote(uri) or uri.startswith(_FILE_SCHEME):
        return uri
    return join(root_uri, uri.removeprefix("./"))


def exists(uri: str) -> bool:
    """Whether there is a file or folder."""
    return bool(_kind(uri) != pafs.FileType.NotFound)


def is_folder(uri: str) -> bool:
    """Whether the URI names a folder."""
    return bool(_kind(uri) == pafs.FileType.Directory)


def is_file(uri: str) -> bool:
    """Whether the URI names a file."""
    return bool(_kind(uri) == pafs.FileType.File)


def _kind(uri: str) -> pafs.FileType:
    if not is_remote(uri):  # pyarrow would not take a name that is not UTF-8
        path = local_path(uri)
        is_there = pafs.FileType.File if os.path.exists(path) else pafs.FileType.NotFound
        return pafs.FileType.Directory if os.path.isdir(path) else is_there
    try:
        return ask(uri, lambda file_system, path: file_system.get_file_info(path).type)
    except ValueError:  # an empty part in an object's name: Arrow cannot ask for it
        return pafs.FileType.NotFound


def read_bytes(uri: str, n_bytes: int | None = None) -> bytes:
    """The content of a file, or only this many bytes from its start.

    Raises:
        FileNotFoundError: there is no such file.
        ConnectionError: an object store has failed to the last attempt; the file may be fine.
        OSError: it cannot be read, or no file can have this name.
    """
    try:
        if not is_remote(uri):
            with open(local_path(uri), "rb", opener=_open_without_waiting) as file:
                return file.read(n_bytes) or b""
        return ask(uri, lambda file_system, path: _read(file_system, path, n_bytes))
    except NotADirectoryError as error:  # what should be its folder is a file
        raise FileNotFoundError(f"{uri}: no such file") from error
    except ValueError as error:  # a zero byte in a path, an empty part in an object's name
        raise OSError(f"{uri!r}: {error}") from error


def _read(file_system: pafs.FileSystem, path: str, n_bytes: int | None) -> bytes:
    # Two requests, the size first. One would do with a guessed size, but of a range that goes past
    # the object's end Arrow returns bytes that nobody sent. A cut body is an error of Arrow's.
    with file_system.open_input_file(path) as stream:
        content: bytes = stream.read(n_bytes)
        return content


def _open_without_waiting(path: str, flags: int) -> int:
    """A pipe that nobody writes to reads as empty; opened plainly, it would be waited for."""
    return os.open(path, flags | os.O_NONBLOCK)


def digest(uri: str) -> str:
    """SHA-256 of a file's content, 64 hex digits; read in pieces of 1 MiB."""
    return ask(uri, _digest)


def _digest(file_system: pafs.FileSystem, path: str) -> str:
    sha = hashlib.sha256()
    with file_system.open_input_stream(path) as stream:
        while piece := stream.read(1 << 20):
            sha.update(piece)
    return sha.hexdigest()


def write_bytes(uri: str, content: bytes) -> None:
    """Write a file so that it is there whole or not at all (a rename, or one put)."""
    write_chunks(uri, [content])


def write_chunks(uri: str, chunks: Iterable[bytes]) -> None:
    """Write a file piece by piece; it is there when the last piece is written, else not at all."""
    if is_remote(uri):
        with tempfile.TemporaryFile() as whole:  # a stream commits what it has, also on an error
            whole.writelines(chunks)
            ask(uri, lambda file_system, path: _put(file_system, path, whole))
        return
    path = os.path.abspath(local_path(uri))
    os.makedirs(os.path.dirname(path), exist_ok=True)
    aside = os.path.join(
        os.path.dirname(path), f".{os.path.basename(path)}.{_owner}-{uuid.uuid4().hex[:8]}"
    )
    try:
        with open(aside, "wb") as file:
            file.writelines(chunks)
        os.replace(aside, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(aside)


def _put(file_system: pafs.FileSystem, path: str, content: IO[bytes]) -> None:
    content.seek(0)
    with file_system.open_output_stream(path) as stream:
        shutil.copyfileobj(content, stream, 1 << 24)


def write_json(uri: str, value: Any) -> None:
    """Write a value as indented JSON, keys in their order."""
    write_bytes(uri, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


def list_files(
    folder_uri: str, *, on_closed: Callable[[OSError], object] | None = None
) -> Iterator[str]:
    """The URIs of all files below a folder, sorted by their bytes; nothing is left out.

    Args:
        on_closed: is told of each folder inside that cannot be listed; None: only a warning is.

    Raises:
        ConfigError: there is no such folder.
    """
    if is_remote(folder_uri):
        yield from _list_remote(folder_uri)
    else:
        yield from _list_local(local_path(folder_uri), on_closed or _warn_left_out)


def _list_remote(folder_uri: str) -> list[str]:
    path = filesystem(folder_uri)[1]
    selector = pafs.FileSelector(path, recursive=True, allow_not_found=True)
    listed = ask(folder_uri, lambda file_system, _: file_system.get_file_info(selector))
    infos = [info for info in listed if info.type == pafs.FileType.File]
    if not infos and not is_folder(folder_uri):
        raise ConfigError(f"{folder_uri}: no such folder")
    return sorted(join(folder_uri, info.path[len(path) :]) for info in infos)


def _list_local(folder: str, on_closed: Callable[[OSError], object]) -> Iterator[str]:
    if not os.path.isdir(folder):
        raise ConfigError(f"{folder}: no such folder")
    found: list[str] = []
    for root, folders, names in os.walk(folder, followlinks=True, onerror=on_closed):
        folders[:] = [name for name in folders if not _leads_back(root, name)]
        found += [os.path.join(root, name) for name in names]
    for path in sorted(found, key=os.fsencode):
        yield as_text(path)


def _warn_left_out(error: OSError) -> None:
    logger.warning("%s: left out, this folder cannot be listed: %s", error.filename, error.strerror)


def _leads_back(root: str, name: str) -> bool:
    """Whether a folder is a link to one that it lies in: its files would be listed for ever."""
    real = os.path.realpath(os.path.join(root, name))
    return os.path.commonpath([real, os.path.realpath(root)]) == real


def as_text(path: str) -> str:
    """A local path as a string that Arrow can hold; see the module's docstring."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return _FILE_SCHEME + quote(os.fsencode(os.path.abspath(path)))
    return path


def delete_file(uri: str) -> None:
    """Delete a file, if there is one."""
    with contextlib.suppress(FileNotFoundError):
        ask(uri, lambda file_system, path: file_system.delete_file(path))


def clear_folder(uri: str) -> None:
    """Delete all in a folder, if there is one; it stays: it may be a bucket, a mount or a link."""
    if is_folder(uri):
        ask(uri, lambda file_system, path: file_system.delete_dir_contents(_real(uri, path)))


def _real(uri: str, path: str) -> str:
    return path if is_remote(uri) else os.path.realpath(path)
