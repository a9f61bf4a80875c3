"""Files and folders on a disk, by their paths: what `object_store` does for the objects of a store.

A file is on the disk (fsync) before it gets its name: after a loss of power it is whole, or it is
not there.
"""

import contextlib
import errno
import logging
import os
import shutil
import stat
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

import pyarrow as pa

from ctc_ray.errors import ConfigError
from ctc_ray.files.storage_errors import error_text

logger = logging.getLogger(__name__)

Answer = TypeVar("Answer")

_LONGEST_NAME = 50  # characters of a name in that of its half-written file, of 255 bytes at most
PAUSES_S = (0.05, 0.5)
"""Pause before the second and each later attempt to read a file."""
_PASSING = (
    errno.EIO,
    errno.ESTALE,
    errno.ENOTCONN,
    errno.ETIMEDOUT,
    errno.EAGAIN,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOMEM,
)


@dataclass(frozen=True)
class RealFolder:
    """A folder without links in its path, and whether its name went through one."""

    path: str
    is_linked: bool


# no file can be reached by the path: what it names is not there, as far as this process can see
_NO_FILE_THERE = (errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.ELOOP, errno.ENAMETOOLONG)
_NO_LINKS = (errno.EPERM, errno.EACCES, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


def read(path: str, n_bytes: int | None = None) -> bytes:
    """The content of a file, or only this many bytes from its start."""
    with open(path, "rb", opener=_open_without_waiting) as file:
        return file.read(n_bytes) or b""


def read_with_version(path: str) -> tuple[bytes, str]:
    """The content of a file, and a text that changes when the file is written: size and time."""
    with open(path, "rb", opener=_open_without_waiting) as file:
        version = _version(os.fstat(file.fileno()))
        return file.read(), version


def version(path: str) -> str | None:
    """The version of a file, as of `read_with_version`; None if no file can be reached there."""
    try:
        found = os.stat(path)
    except ValueError:  # a zero byte
        return None
    except OSError as error:
        if error.errno in _NO_FILE_THERE:
            return None
        raise
    return _version(found) if stat.S_ISREG(found.st_mode) else None


def _version(found: os.stat_result) -> str:
    return f"{found.st_size}-{found.st_mtime_ns}"


def patiently(read: Callable[[], Answer]) -> Answer:
    """The result of reading a file, which is tried again where the file is not to blame.

    Raises:
        ConnectionError: nothing is known about the file: the network disk does not answer, or this
            process has no file handle or memory left.
        OSError: the file cannot be read.
    """
    for pause_s in PAUSES_S:
        try:
            return read()
        except OSError as error:
            if error.errno not in _PASSING:
                raise
            logger.debug("%s; reading again in %.2f s", error, pause_s)
        time.sleep(pause_s)
    try:
        return read()
    except OSError as error:
        if error.errno not in _PASSING or error.errno == errno.EIO:  # a broken disk stays broken
            raise
        raise ConnectionError(error_text(error)) from error


def _open_without_waiting(path: str, flags: int) -> int:
    """A pipe that nobody writes to reads as empty; opened plainly, it would be waited for."""
    return os.open(path, flags | os.O_NONBLOCK)


def open_for_arrow(path: str) -> pa.NativeFile:
    """A file to read here and there; Arrow's own errors do not name it."""
    try:
        return pa.OSFile(os.fsencode(path))
    except OSError as error:
        error.filename = path
        raise


def is_file(path: str) -> bool:
    """Whether there is something that is no folder."""
    return os.path.exists(path) and not os.path.isdir(path)


def modified_at(path: str) -> datetime:
    """When the file was last written, by the clock of the machine whose disk it is."""
    return datetime.fromtimestamp(os.stat(path).st_mtime, UTC)


# -- writing ---------------------------------------------------------------------------------------


def aside_of(path: str, owner: str) -> str:
    """The path of a new half-written file; see `storage.HALF_WRITTEN`."""
    folder, name = os.path.split(path)
    return os.path.join(folder, f".{name[:_LONGEST_NAME]}.{owner}-{uuid.uuid4().hex[:8]}")


def write(path: str, chunks: Iterable[bytes]) -> None:
    """Write a file piece by piece, and the folders above it."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.writelines(chunks)
        file.flush()
        os.fsync(file.fileno())  # a name that outlives a loss of power names the whole content


def touch(path: str) -> bool:
    """Give a file the present time, by the clock of its file server: False if there is none."""
    try:
        os.utime(path)
    except FileNotFoundError:
        return False
    return True


def name_target(error: OSError, aside: str, path: str) -> None:
    """Let an error of a half-written file name the file that it was to become."""
    if error.errno and error.filename in (None, aside):  # a full disk names no file
        error.filename, error.filename2 = path, None


def link(aside: str, path: str) -> bool:
    """Give a written file its name, unless a file has it: True if it is now this one's."""
    try:
        os.link(aside, path)
    except FileExistsError:
        return os.stat(aside).st_nlink == 2  # NFS may ask twice and answer only the second time
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        return _copy_exclusively(aside, path)
    return True


def _copy_exclusively(aside: str, path: str) -> bool:
    try:
        file = open(path, "xb")  # noqa: SIM115  # closed below
    except FileExistsError:
        return False
    try:
        with file, open(aside, "rb") as content:
            shutil.copyfileobj(content, file)
    except OSError:
        os.unlink(path)
        raise
    return True


# -- folders ---------------------------------------------------------------------------------------


def paths_below(folder: str, on_closed: Callable[[OSError], object] | None) -> list[str]:
    """The paths of all files below a folder, sorted by their bytes; links are followed.

    Raises:
        ConfigError: there is no such folder.
    """
    if not os.path.isdir(folder):
        raise ConfigError(f"{folder}: no such folder")
    found: list[str] = []
    on_error = on_closed or _warn_left_out
    for root, folders, names in os.walk(folder, followlinks=True, onerror=on_error):
        folders[:] = [name for name in folders if not _leads_back(root, name)]
        found += [os.path.join(root, name) for name in names]
    return sorted(found, key=os.fsencode)


def _warn_left_out(error: OSError) -> None:
    logger.warning("%s: left out, this folder cannot be listed: %s", error.filename, error.strerror)


def _leads_back(root: str, name: str) -> bool:
    """Whether a folder is a link to a folder above it: its files would be listed without end."""
    real = os.path.realpath(os.path.join(root, name))
    return os.path.commonpath([real, os.path.realpath(root)]) == real


def real_folders(root: str, folders: Iterable[str]) -> dict[str, RealFolder]:
    """Where each folder below a root lies, links resolved; one call of the disk per folder.

    Args:
        folders: relative to the root.
    """
    real = {"": RealFolder(os.path.realpath(root), is_linked=False)}

    def find(folder: str) -> RealFolder:
        if folder not in real:
            above, _, name = folder.rpartition("/")
            parent = find(above)
            path, is_linked = os.path.join(parent.path, name), parent.is_linked
            if os.path.islink(path):
                path, is_linked = os.path.realpath(path), True
            real[folder] = RealFolder(path, is_linked)
        return real[folder]

    return {folder: find(folder) for folder in folders}


def folders_in(folder: str) -> set[str]:
    """The names of the folders directly below a folder."""
    with os.scandir(folder) as entries:
        return {entry.name for entry in entries if entry.is_dir()}


def delete(path: str) -> None:
    """Delete a file, if there is one."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def delete_below(folder: str) -> None:
    """Delete all in a folder, of links only themselves; the folder stays."""
    with os.scandir(folder) as entries:
        found = list(entries)
    for entry in found:
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path)
        else:
            os.unlink(entry.path)


def delete_empty_folders(folder: str) -> None:
    """Delete the folders below a folder that hold no file, the folder itself never."""
    for path, _, _ in os.walk(folder, topdown=False):
        if path != folder:
            with contextlib.suppress(OSError):  # it holds something
                os.rmdir(path)


def delete_folder(folder: str) -> None:
    """Delete a folder and all in it, if there is one; of a link only the link."""
    if os.path.islink(folder):
        os.unlink(folder)
    elif os.path.isdir(folder):
        shutil.rmtree(folder)
