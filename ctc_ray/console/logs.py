"""Logging and progress: set up by the command line and by workers, never on import.

stdout carries the result; progress and messages go to stderr; Ray's own lines go to a file.
"""

import logging
import os
import sys
import tempfile
import warnings
from typing import TextIO

from ctc_ray.files.storage_errors import printable

logger = logging.getLogger(__name__)


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


def keep_noise_in_file() -> TextIO:
    """Send what libraries print to a file; the stream to the user's stdout, for the result.

    Ray's C++ core and the processes it starts write to file descriptors 1 and 2, its Python to
    `sys.stdout`. `sys.stderr` stays the user's. The file is `ctc-PID.log` of the temporary folder.
    """
    path = os.path.join(tempfile.gettempdir(), f"ctc-{os.getpid()}.log")
    users = [os.dup(1), os.dup(2)]
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)
    out, err = (os.fdopen(user, "w", buffering=1, encoding="utf-8") for user in users)
    sys.stderr = err
    warnings.filterwarnings("ignore", module=r"ray\.")
    return out
