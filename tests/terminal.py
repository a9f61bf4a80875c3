"""A command on a terminal of its own."""

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
        until: text after which the command is interrupted, as by Ctrl-C.
    """
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, WIDTH))
    before = termios.tcgetattr(theirs)
    done = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
    got, is_interrupted = b"", not until
    while done.poll() is None or select.select([ours], [], [], 0.2)[0]:
        if select.select([ours], [], [], 0.2)[0]:
            got += os.read(ours, 65536)
        if not is_interrupted and until in got:
            done.send_signal(signal.SIGINT)
            is_interrupted = True
    is_same = termios.tcgetattr(theirs) == before
    os.close(theirs)
    os.close(ours)
    return done.returncode, got.decode(), is_same
