"""A command on a terminal of its own."""

import fcntl
import os
import pty
import select
import signal
import subprocess
import termios
from collections.abc import Mapping, Sequence

WIDTH = 100


def on_terminal(
    command: Sequence[str], *, environment: Mapping[str, str] | None = None, until: bytes = b""
) -> tuple[int, str, bool]:
    """Its exit code, what the terminal got, and whether the modes of that are as before.

    Args:
        until: text after which Ctrl-C is pressed; the terminal tells all processes of the command.
    """
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, WIDTH))
    before = termios.tcgetattr(theirs)
    done = subprocess.Popen(
        command,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environment,
        start_new_session=True,
        preexec_fn=_take_terminal,
    )
    got, is_interrupted = b"", not until
    while done.poll() is None or select.select([ours], [], [], 0.2)[0]:
        if select.select([ours], [], [], 0.2)[0]:
            got += os.read(ours, 65536)
        if not is_interrupted and until in got:
            os.write(ours, b"\x03")
            is_interrupted = True
    is_same = termios.tcgetattr(theirs) == before
    os.close(theirs)
    os.close(ours)
    return done.returncode, got.decode(), is_same


def _take_terminal() -> None:
    """As a shell does: this session has its standard input as its terminal, and Ctrl-C ends it."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(
        signal.SIGINT, signal.SIG_DFL
    )  # tests may run in the background, which ignores it
