"""Files and folders by URI (`s3://`, `gs://`, local paths): list, read, write atomically.

A local path is a URI as it stands, relative or absolute. A local name that is not valid UTF-8
cannot be a string in Arrow; it is listed as a percent-encoded `file://` URI, which reads back.
After the bucket an object's name stands as it is, too: no percent-encoding, no `?settings`.
Credentials, region and endpoint come from the environment (AWS_PROFILE, AWS_ENDPOINT_URL, …).
Object stores are asked again when they fail; a ConnectionError says that this was no use.

Whatever touches a disk or a store goes through `operation`, and nothing does so elsewhere.
"""

import contextlib
import hashlib
import json
import os
import re
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import Any, TypeVar
from urllib.parse import quote, unquote_to_bytes

import pyarrow as pa

from ctc_ray.files import local_files, object_store

Answer = TypeVar("Answer")

_FILE_SCHEME = "file://"
_STREAM_BYTES = 8 << 20
HALF_WRITTEN = re.compile(
    r"\.(?P<name>.+)\.(?P<owner>[0-9a-f]{32})(-[0-9a-f]{8})?", re.DOTALL
)  # name of a file not yet renamed
_owner = uuid.uuid4().hex


def operation(name: str, uri: str, call: Callable[[], Answer]) -> Answer:
    """Do one operation on a disk or a store; a test replaces this function.

    Args:
        name: read, open, write (aside, or the whole object), rename, create, stat, list or delete.
    """
    return call()


def owner() -> str:
    """Whose this process's half-written files are: 32 hex digits in their names."""
    return _owner


def set_owner(token: str) -> None:
    """Write for this owner from now on; the workers of one run share the token of its driver.

    Raises:
        ValueError: the token is not 32 hex digits.
    """
    global _owner
    if not re.fullmatch("[0-9a-f]{32}", token):
        raise ValueError(f"{token!r}: an owner's token is 32 hex digits")
    _owner = token


def is_remote(uri: str) -> bool:
    """Whether the URI names an object store."""
    return "://" in uri and not uri.startswith(_FILE_SCHEME)


def local_path(uri: str) -> str:
    """The path of a local URI, as the operating system spells it."""
    if uri.startswith(_FILE_SCHEME):
        return os.fsdecode(unquote_to_bytes(uri[len(_FILE_SCHEME) :]))
    return uri


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
    """The URI of the file `uri` of a source: absolute paths and URIs stay inside `root_uri` too.

    As in the original, a leading separator is stripped before joining, so that `/data/a.jpg` of a
    csv can be found below another root; a full URI (`s3://…`) is left alone.
    """
    if root_uri is None or is_remote(uri) or uri.startswith(_FILE_SCHEME):
        return uri
    return join(root_uri, uri.removeprefix("./"))


def is_inside(uri: str, folder_uri: str) -> bool:
    """Whether a file below a folder is stored in it, and not behind a link that leads elsewhere."""
    if is_remote(uri):
        return True
    folder = os.path.realpath(local_path(folder_uri))
    parent = os.path.realpath(os.path.dirname(os.path.abspath(local_path(uri))))
    return os.path.commonpath([folder, parent]) == folder


def is_same_or_inside(uri: str, folder_uri: str) -> bool:
    """Whether a file or folder is this folder or below it, whichever links their names go through.

    A local path is taken for what its links lead to.
    """
    if is_remote(uri) or is_remote(folder_uri):
        return f"{uri.rstrip('/')}/".startswith(f"{folder_uri.rstrip('/')}/")
    inner, folder = os.path.realpath(local_path(uri)), os.path.realpath(local_path(folder_uri))
    return os.path.commonpath([inner, folder]) == folder


def broken_link(uri: str) -> str | None:
    """Where a local link leads if nothing is there; None for everything else."""
    if is_remote(uri):
        return None
    path = local_path(uri)
    is_broken = os.path.islink(path) and not os.path.exists(path)
    return as_text(os.path.realpath(path)) if is_broken else None


def as_text(path: str) -> str:
    """A local path as a string that Arrow can hold; see the module's docstring."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return _FILE_SCHEME + quote(os.fsencode(os.path.abspath(path)))
    return path


def exists(uri: str) -> bool:
    """Whether there is a file or folder."""
    return is_file(uri) or is_folder(uri)


def is_folder(uri: str) -> bool:
    """Whether the URI names a folder; an object store's is there as long as a file is in it."""
    if is_remote(uri):
        return operation("stat", uri, lambda: object_store.is_folder(uri))
    return operation("stat", uri, lambda: os.path.isdir(local_path(uri)))


def is_file(uri: str) -> bool:
    """Whether the URI names a file."""
    if is_remote(uri):
        return operation("stat", uri, lambda: object_store.is_object(uri))
    return operation("stat", uri, lambda: local_files.is_file(local_path(uri)))


def modified_at(uri: str) -> datetime:
    """When the file was last written, by the clock of its store; an object's to the second.

    Raises:
        FileNotFoundError: there is no such file.
    """
    if is_remote(uri):
        return operation("stat", uri, lambda: object_store.modified_at(uri))
    return operation("stat", uri, lambda: local_files.modified_at(local_path(uri)))


def now_at(folder_uri: str) -> datetime:
    """What time it is by the clock of a folder's store: that of a file written there just now."""
    uri = join(folder_uri, f".now.{_owner}-{uuid.uuid4().hex[:8]}")
    write_bytes(uri, b"")
    try:
        return modified_at(uri)
    finally:
        delete_file(uri)


# -- reading ---------------------------------------------------------------------------------------


def read_bytes(uri: str, n_bytes: int | None = None) -> bytes:
    """The content of a file, or only this many bytes from its start.

    Raises:
        FileNotFoundError: there is no such file.
        ConnectionError: nothing is known about the file: a store or a network disk does not answer,
            or this process has no file handle or memory left.
        OSError: it cannot be read, or no file can have this name.
    """
    if is_remote(uri):
        return operation("read", uri, lambda: object_store.read(uri, n_bytes))
    path = local_path(uri)
    return read_patiently(uri, lambda: local_files.read(path, n_bytes))


def read_patiently(uri: str, read: Callable[[], Answer]) -> Answer:
    """What a function makes of a local file, with the errors of `read_bytes`."""
    try:
        return local_files.patiently(lambda: operation("read", uri, read))
    except NotADirectoryError as error:  # what should be its folder is a file
        raise FileNotFoundError(f"{uri}: no such file") from error
    except ValueError as error:  # a zero byte in a path
        raise OSError(f"{uri!r}: {error}") from error


def open_file(uri: str) -> pa.NativeFile:
    """A file to read here and there, for Arrow; of an object, each read is one request or none.

    Raises:
        FileNotFoundError: there is no such file.
    """

    def start() -> pa.NativeFile:
        if is_remote(uri):
            return pa.PythonFile(object_store.ObjectFile(uri), mode="r")
        return local_files.open_for_arrow(local_path(uri))

    return operation("open", uri, start)


def open_stream(uri: str) -> pa.NativeFile:
    """A file to read from its start to its end, 8 MiB at once."""
    return pa.BufferedInputStream(open_file(uri), _STREAM_BYTES)


def digest(uri: str) -> str:
    """SHA-256 of a file's content, 64 hex digits; read in pieces of 1 MiB."""

    def read() -> str:
        if is_remote(uri):
            return object_store.pieces(uri, _sha256)
        with open(local_path(uri), "rb") as file:
            return _sha256(iter(lambda: file.read(1 << 20), b""))

    return operation("read", uri, read)


def _sha256(pieces: Iterable[bytes]) -> str:
    sha = hashlib.sha256()
    for piece in pieces:
        sha.update(piece)
    return sha.hexdigest()


# -- writing ---------------------------------------------------------------------------------------


def write_bytes(uri: str, content: bytes) -> None:
    """Write a file so that it is there whole or not at all (a rename, or one put)."""
    if is_remote(uri):
        operation("write", uri, lambda: object_store.put(uri, content))
    else:
        write_chunks(uri, [content])


def write_chunks(uri: str, chunks: Iterable[bytes]) -> None:
    """Write a file piece by piece; it is there when the last piece is written, else not at all."""
    if is_remote(uri):
        with tempfile.TemporaryFile() as whole:  # a put that fails begins again
            whole.writelines(chunks)
            operation("write", uri, lambda: object_store.put(uri, whole))
        return
    path = os.path.abspath(local_path(uri))
    with _aside(uri, path) as aside:
        operation("write", uri, lambda: local_files.write(aside, chunks))
        operation("rename", uri, lambda: os.replace(aside, path))


@contextlib.contextmanager
def _aside(uri: str, path: str) -> Iterator[str]:
    """The path of a half-written file, which is deleted if it does not become the file."""
    aside = local_files.aside_of(path, _owner)
    try:
        yield aside
    except BaseException as error:
        with contextlib.suppress(OSError):
            operation("delete", uri, lambda: local_files.delete(aside))
        if isinstance(error, OSError):
            local_files.name_target(error, aside, path)
        raise


def create_bytes(uri: str, content: bytes) -> bool:
    """Write a file if there is none of this name: True if this call made it, of many at once.

    Whoever sees the file sees it whole. Only where a network file system has no hard links may it
    be seen while it is written. If the answer of an object store is lost, the content decides
    whose the object is: let it name its writer.
    """
    if is_remote(uri):
        return operation("create", uri, lambda: object_store.create(uri, content))
    path = os.path.abspath(local_path(uri))
    with _aside(uri, path) as aside:
        operation("write", uri, lambda: local_files.write(aside, [content]))
        is_mine = operation("create", uri, lambda: local_files.link(aside, path))
        operation("delete", uri, lambda: local_files.delete(aside))
    return is_mine


def touch(uri: str) -> bool:
    """Give a file the present time of its store: False if it is gone, or not what it was.

    A file that another process has deleted, or written meanwhile, is not brought back.
    """
    if is_remote(uri):
        return operation("write", uri, lambda: object_store.touch(uri))
    return operation("write", uri, lambda: local_files.touch(local_path(uri)))


def write_json(uri: str, value: Any) -> None:
    """Write a value as indented JSON, keys in their order."""
    write_bytes(uri, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


# -- folders ---------------------------------------------------------------------------------------


def list_files(
    folder_uri: str, *, on_closed: Callable[[OSError], object] | None = None
) -> Iterator[str]:
    """The URIs of all files below a folder, sorted by their bytes; nothing is left out.

    Args:
        on_closed: is called for each folder inside that cannot be listed; None: logs a warning.

    Raises:
        ConfigError: there is no such folder.
    """

    def find() -> list[str]:
        if is_remote(folder_uri):
            return sorted(join(folder_uri, n) for n in object_store.names_below(folder_uri))
        return local_files.paths_below(local_path(folder_uri), on_closed)

    yield from map(as_text, operation("list", folder_uri, find))


def real_folders(uri: str, folders: Iterable[str]) -> dict[str, local_files.RealFolder]:
    """Where each of the folders below a folder lies, links resolved; a store has no links.

    Args:
        folders: relative to the folder.
    """
    if is_remote(uri):
        return {name: local_files.RealFolder(name, is_linked=False) for name in folders}
    path = local_path(uri)
    return operation("list", uri, lambda: local_files.real_folders(path, folders))


def folders_in(uri: str) -> set[str]:
    """The names of the folders directly below a folder."""
    if is_remote(uri):
        return operation("list", uri, lambda: object_store.folders_in(uri))
    return operation("list", uri, lambda: local_files.folders_in(local_path(uri)))


def delete_file(uri: str) -> None:
    """Delete a file, if there is one."""
    if is_remote(uri):
        operation("delete", uri, lambda: object_store.delete(uri))
    else:
        operation("delete", uri, lambda: local_files.delete(local_path(uri)))


def clear_folder(uri: str) -> None:
    """Delete all in a folder, if there is one; it stays: it may be a bucket, a mount or a link."""
    if is_remote(uri):
        operation("delete", uri, lambda: object_store.delete_below(uri))
    elif is_folder(uri):
        operation("delete", uri, lambda: local_files.delete_below(local_path(uri)))


def delete_folder(uri: str) -> None:
    """Delete a folder and all in it, if there is one; of a link only the link."""
    if is_remote(uri):
        operation("delete", uri, lambda: object_store.delete_below(uri))
    else:
        operation("delete", uri, lambda: local_files.delete_folder(local_path(uri)))


def delete_empty_folders(uri: str) -> None:
    """Delete the folders below a local folder that hold no file; links stay, and what they name."""
    if not is_remote(uri):
        operation("delete", uri, lambda: local_files.delete_empty_folders(local_path(uri)))


def delete_half_written(folder_uri: str, is_over: Callable[[str], bool]) -> None:
    """Delete what ended processes have left half-written below a local folder; a store has none.

    Args:
        is_over: whether an owner, given by its token, writes no more.
    """
    if is_remote(folder_uri):
        return
    for uri in list(list_files(folder_uri)):
        found = HALF_WRITTEN.fullmatch(os.path.basename(local_path(uri)))
        if found and is_over(found["owner"]):
            delete_file(uri)
