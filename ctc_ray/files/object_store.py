"""Objects of a bucket (`s3://`, `gs://`) through obstore; every request is made patiently.

A store has no folders: one is there as long as an object's name begins with it. obstore cannot name
an object with an empty part, `.`, `..` or a control character in its name.
"""

from __future__ import annotations

import functools
import io
import os
import re
import time
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import IO, TYPE_CHECKING, Any, TypeVar

from obstore import exceptions
from obstore.store import GCSStore, S3Store

from ctc_ray.errors import ConfigError
from ctc_ray.files.aws_settings import bucket_settings
from ctc_ray.files.object_store_errors import explained, short
from ctc_ray.files.retries import UnusableStoreError, patiently

if TYPE_CHECKING:
    from obstore import ObjectMeta, SuffixRange
    from obstore.store import BackoffConfig, ClientConfig, RetryConfig

Answer = TypeVar("Answer")
Store = S3Store | GCSStore

FIRST_PAUSE_S = 0.1
"""Before obstore asks again; the next one is twice as long."""

_PART_BYTES = 8 << 20
_END_BYTES = 64 << 10  # of a Parquet file: nearly always the whole footer
_CREATE_ATTEMPTS = 5


def request(uri: str, call: Callable[[Store, str], Answer], *, n_retries: int = 4) -> Answer:
    """What a function of a store and an object's name there returns; called again if it fails.

    Args:
        n_retries: how often obstore asks again within one call.

    Raises:
        FileNotFoundError: there is no such object, or no such bucket.
        FileExistsError: an object that the call should create is there already.
        PermissionError: the store refuses it.
        ConnectionError: the store has failed to the last attempt; the object may be fine.
        UnusableStoreError: likewise, and asking again is no use: no credentials, e.g.
        ConfigError: the scheme is not known.
    """

    def once() -> Answer:
        store, key = locate(uri, n_retries)
        try:
            return call(store, key)
        except (exceptions.BaseError, FileNotFoundError, ValueError) as error:
            raise explained(uri, error) from error

    return patiently(once)


def locate(uri: str, n_retries: int = 4) -> tuple[Store, str]:
    """The store of a URI's bucket, and the object's name there."""
    scheme, _, name = uri.partition("://")
    bucket, _, key = name.partition("/")
    return _bucket(scheme, bucket, n_retries), key.rstrip("/")


@functools.lru_cache(maxsize=64)  # a new one asks for its region again, and connects again
def _bucket(scheme: str, bucket: str, n_retries: int) -> Store:
    if scheme not in ("s3", "gs") or not bucket:
        raise ConfigError(f"{scheme}://{bucket}: not a bucket; use s3://BUCKET or gs://BUCKET")
    backoff: BackoffConfig = {"init_backoff": timedelta(seconds=FIRST_PAUSE_S)}
    retry: RetryConfig = {"max_retries": n_retries, "backoff": backoff}
    # A request that stands still is given up; one that is only slow has ten minutes.
    client: ClientConfig = {"connect_timeout": "10s", "read_timeout": "60s", "timeout": "10m"}
    try:
        if scheme == "gs":
            return GCSStore(bucket, client_options=client, retry_config=retry)
        settings = bucket_settings(bucket)
        client["allow_http"] = settings.get("endpoint", "").startswith("http:")
        return S3Store(bucket, config=settings, client_options=client, retry_config=retry)
    except (UnusableStoreError, FileNotFoundError) as error:
        raise type(error)(f"{scheme}://{bucket}: {error}") from error
    except OSError as error:
        reason = getattr(error, "reason", error)
        raise ConnectionError(
            f"{scheme}://{bucket}: AWS does not report its region: {reason}"
        ) from error
    except (exceptions.BaseError, ValueError) as error:
        raise ConfigError(f"{scheme}://{bucket}: {short(error)}") from error


# -- one object ------------------------------------------------------------------------------------


def read(uri: str, n_bytes: int | None = None) -> bytes:
    """The content of an object, or only this many bytes from its start."""
    if n_bytes is None:
        return request(uri, lambda store, key: bytes(store.get(key).bytes()))
    return request(uri, lambda store, key: _part(store, key, (0, max(1, n_bytes)))[1])[:n_bytes]


def read_with_version(uri: str) -> tuple[bytes, str]:
    """The content of an object, and a text that changes when the object is written: its ETag."""

    def get(store: Store, key: str) -> tuple[bytes, str]:
        answer = store.get(key)
        return bytes(answer.bytes()), _version(answer.meta)

    return request(uri, get)


def versions_in(uri: str) -> dict[str, str]:
    """Name -> version, as of `read_with_version`, of the objects directly in a folder."""

    def listed(store: Store, key: str) -> dict[str, str]:
        found = store.list_with_delimiter(key or None)["objects"]
        return {meta["path"].rpartition("/")[2]: _version(meta) for meta in found}

    return request(uri, listed)


def _version(meta: ObjectMeta) -> str:
    return meta["e_tag"] or f"{meta['size']}-{meta['last_modified'].isoformat()}"


def pieces(uri: str, consume: Callable[[Iterable[bytes]], Answer]) -> Answer:
    """What a function makes of an object's content, piece by piece; called again if it fails."""
    return request(uri, lambda store, key: consume(store.get(key).stream(1 << 20)))


def put(uri: str, content: bytes | IO[bytes]) -> None:
    """Make or replace an object: it is there whole or not at all."""

    def send(store: Store, key: str) -> None:
        source: Any = content
        if isinstance(content, io.IOBase):
            content.seek(0)
        else:  # obstore takes no Arrow buffer, whose bytes are signed
            source = memoryview(source).cast("B")
        store.put(key, source, chunk_size=_PART_BYTES, max_concurrency=4)

    request(uri, send)


def create(uri: str, content: bytes) -> bool:
    """Make an object if there is none of this name: True if this call has made it.

    "It is there" is also the answer to a second attempt, if the first one took effect and its
    answer was lost: then the content decides. It is 409, too, while another request creates the
    object: if there is none afterwards, the call tries again.
    """
    is_sure = True

    def send(store: Store, key: str) -> None:
        nonlocal is_sure
        try:
            store.put(key, content, mode="create", use_multipart=False)
        except exceptions.GenericError:
            is_sure = False
            raise

    for attempt in range(_CREATE_ATTEMPTS):
        try:
            request(uri, send, n_retries=0)
        except FileExistsError:
            try:
                found = read(uri)
            except FileNotFoundError:
                time.sleep(FIRST_PAUSE_S * 2**attempt)
                continue
            return found == content and not is_sure
        return True
    raise ConnectionError(f"{uri}: the store says that it exists, and that it does not")


def touch(uri: str) -> bool:
    """Write an object again as it is: False if it is gone, or was written by another meanwhile."""
    content = b""

    def send(store: Store, key: str) -> None:
        nonlocal content
        found = store.get(key)
        version, content = found.meta["e_tag"], bytes(found.bytes())
        store.put(key, content, mode={"e_tag": version}, use_multipart=False)

    try:
        request(uri, send)
    except FileNotFoundError:
        return False
    except FileExistsError:  # another version: this call's own, if the first answer was lost
        try:
            return read(uri) == content
        except FileNotFoundError:
            return False
    return True


def modified_at(uri: str) -> datetime:
    """When the object was written, by the store's clock; to the second."""
    found: datetime = request(uri, lambda store, key: store.head(key)["last_modified"])
    return found


def is_object(uri: str) -> bool:
    """Whether there is an object of this name."""

    def is_there(store: Store, key: str) -> bool:
        try:
            return bool(key and store.head(key))
        except ValueError:  # a name that obstore cannot ask for
            return False

    try:
        return request(uri, is_there)
    except FileNotFoundError:
        return False


class ObjectFile(io.RawIOBase):
    """An object as a file that is read here and there; its end comes with its size."""

    def __init__(self, uri: str, size: int | None = None) -> None:
        """One request, or none if the size is known.

        Args:
            size: of the object in bytes.
        """
        self._uri = uri
        end = b""
        if size is None:
            size, end = request(uri, lambda store, key: _part(store, key, {"suffix": _END_BYTES}))
        self.size = size
        self._held = [(size - len(end), end)]
        self._at = 0

    def hold(self, start: int, n_bytes: int) -> None:
        """Read a part now, by one request or none; later reads inside it need no request."""
        self._held.append((start, self._read_at(start, n_bytes)))

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def tell(self) -> int:
        """Where the next read begins."""
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to an offset from the start, from here, or from the end."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self.size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def read(self, size: int | None = -1, /) -> bytes:
        """So many bytes, fewer only at the end; one request, or none."""
        rest = max(0, self.size - self._at)
        n_bytes = rest if size is None or size < 0 else min(size, rest)
        start = self._at
        self._at += n_bytes
        return self._read_at(start, n_bytes)

    def _read_at(self, start: int, n_bytes: int) -> bytes:
        for held_from, held in self._held:
            begin = start - held_from
            if begin >= 0 and begin + n_bytes <= len(held):
                return held[begin : begin + n_bytes]

        def fetch(store: Store, key: str) -> bytes:
            return bytes(store.get_range(key, start=start, length=n_bytes))

        return request(self._uri, fetch) if n_bytes else b""


def _part(store: Store, key: str, extent: tuple[int, int] | SuffixRange) -> tuple[int, bytes]:
    """An object's size and some of its bytes, as many as there are."""
    try:
        answer = store.get(key, options={"range": extent})
        return answer.meta["size"], bytes(answer.bytes())
    except exceptions.GenericError:
        if store.head(key)["size"]:
            raise
        return 0, b""  # nothing has no first byte, and no last one


# -- objects whose names begin alike ---------------------------------------------------------------


def is_folder(uri: str) -> bool:
    """Whether names of objects begin with this one and a slash; a bucket is a folder."""

    def has_any(store: Store, key: str) -> bool:
        try:
            return any(map(bool, store.list(key or None))) or not key
        except exceptions.InvalidPathError:  # something is there, however it is named
            return True
        except ValueError:  # a name that obstore cannot ask for
            return False

    try:
        return request(uri, has_any)
    except FileNotFoundError:
        return False


def names_below(uri: str) -> list[str]:
    """What follows the folder's name and a slash in the name of each object below it, unsorted.

    Raises:
        ConfigError: there is no such folder, or the name of an object is none that obstore reads.
    """
    try:
        found = request(uri, _sizes)
    except ConfigError as error:  # the name of an object
        raise ConfigError(f"{error}; rename or delete this object") from error
    except FileNotFoundError as error:
        raise ConfigError(str(error)) from error
    key = locate(uri)[1]
    if not found and key:
        raise ConfigError(f"{uri}: no such folder")
    start = len(key) + 1 if key else 0
    empty = {key for key, size in found.items() if not size}
    folders = {key[: cut.start()] for key in found if empty for cut in re.finditer("/", key)}
    # Consoles make `name/`, an empty object, for a folder; obstore lists it as `name`.
    markers = {
        k for k in empty if len(k) < start or k in folders or not is_object(_sibling(uri, k))
    }
    return [key[start:] for key in found if key not in markers]


def _sizes(store: Store, key: str) -> dict[str, int]:
    return {found["path"]: found["size"] for chunk in store.list(key or None) for found in chunk}


def _sibling(uri: str, key: str) -> str:
    scheme, _, name = uri.partition("://")
    return f"{scheme}://{name.partition('/')[0]}/{key}"


def folders_in(uri: str) -> set[str]:
    """The names of the folders directly below a folder."""

    def listed(store: Store, key: str) -> set[str]:
        prefixes = store.list_with_delimiter(key or None)["common_prefixes"]
        return {prefix.rpartition("/")[2] for prefix in prefixes}

    return request(uri, listed)


def delete(uri: str) -> None:
    """Delete an object, if there is one."""
    try:
        request(uri, lambda store, key: store.delete(key))
    except FileNotFoundError:
        return


def delete_below(uri: str) -> None:
    """Delete all objects whose names begin with this one and a slash."""

    def clear(store: Store, key: str) -> None:
        for chunk in list(store.list(key or None)):
            store.delete([found["path"] for found in chunk if found["path"] != key])

    request(uri, clear)
