"""Logging and progress: set up by the command line and by workers, never on import.

stdout carries the result; progress and messages go to stderr; what libraries print goes to a file.
"""

import contextlib
import logging
import os
import sys
import tempfile
import time
import warnings
from typing import TextIO

from ctc_ray.files.storage_errors import printable
from ctc_ray.runs.layout import WORK_FOLDER

logger = logging.getLogger(__name__)

_LOGS = "logs"
_COPIED_BYTES = 1 << 20


def set_up(level: int = logging.INFO) -> None:
    """Send this package's messages to stderr, once; other packages' below WARNING are dropped."""
    ours = logging.getLogger("ctc_ray")
    ours.setLevel(level)
    if not ours.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(_Printable("%(asctime)s %(message)s", datefmt="%H:%M:%S"))
        ours.addHandler(handler)
        ours.propagate = False


class _Printable(logging.Formatter):
    """One line on the terminal per message, whatever names of files are in it."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # logging's name
        """The message without control characters; a traceback below it keeps its lines."""
        return printable(super().formatMessage(record))


class _Noise:
    """Where file descriptors 1 and 2 lead: first to a file without a name, later to one with."""

    def __init__(self, output_uri: str) -> None:
        self.output_uri = output_uri
        self.uri = ""
        """URI of the log in the output; empty as long as no work has begun there."""
        with tempfile.TemporaryFile() as file:  # it has no name, so nothing of it is left behind
            _lead_to(file.fileno())


_noise: _Noise | None = None


def keep_noise_in_file(output_uri: str = "") -> TextIO:
    """Send what libraries print to a file; the stream to the user's stdout, for the result.

    Ray's C++ core and the processes it starts write to file descriptors 1 and 2, its Python to
    `sys.stdout`. `sys.stderr` stays the user's. The file has no name until `keep_noise_in_output`.

    Args:
        output_uri: of the command; empty if it has none.
    """
    global _noise
    users = [os.dup(1), os.dup(2)]
    _noise = _Noise(output_uri)
    out, err = (os.fdopen(user, "w", buffering=1, encoding="utf-8") for user in users)
    sys.stderr = err
    warnings.filterwarnings("ignore", module=r"ray\.")
    return out


def keep_noise_in_output() -> str:
    """Move the file into `_work/logs` of an output where work has begun; its URI, or nothing.

    A local file is there from now on, so it outlives a crash; a remote one is written at the end of
    a command that fails.
    """
    from ctc_ray.files import storage  # pyarrow, which --help does without

    noise = _noise
    if noise is None or not noise.output_uri:
        return ""
    work_uri = storage.join(storage.absolute(noise.output_uri), WORK_FOLDER)
    if not storage.is_folder(work_uri):
        return ""
    name = f"{time.strftime('%Y-%m-%dT%H-%M-%SZ', time.gmtime())}-{os.getpid()}.log"
    noise.uri = noise.uri or storage.join(work_uri, _LOGS, name)
    if not storage.is_remote(noise.uri):
        path = storage.local_path(noise.uri)
        if not os.path.exists(path):
            os.makedirs(os.path.dirname(path), exist_ok=True)
            content = _content()
            with open(path, "ab+") as file:
                file.write(content)
                file.flush()
                _lead_to(file.fileno())
    return noise.uri


def end_noise(*, failed: bool) -> None:
    """Keep the file of a command that failed, if its work had begun and there is anything in it."""
    global _noise
    noise, _noise = _noise, None
    if noise is None or not noise.uri:
        return
    from ctc_ray.files import storage

    content = _content() if failed else b""
    if storage.is_remote(noise.uri):
        if content:
            storage.write_bytes(noise.uri, content)
    elif not content:
        path = storage.local_path(noise.uri)
        with contextlib.suppress(OSError):  # cleared away with the plan, or logs of other runs
            os.unlink(path)
            os.rmdir(os.path.dirname(path))


def _lead_to(file: int) -> None:
    os.dup2(file, 1)
    os.dup2(file, 2)


def _content() -> bytes:
    """All that libraries have printed so far."""
    sys.stdout.flush()
    content = bytearray()
    while part := os.pread(1, _COPIED_BYTES, len(content)):
        content += part
    return bytes(content)
