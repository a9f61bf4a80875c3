"""Ctrl-C and SIGTERM: the work ends with KeyboardInterrupt, whatever a library does with them.

Ray Tune and Ray Train replace Python's signal handlers: the first then returns as if all were done,
the second leaves the process. A wakeup file descriptor gets every signal before any handler does.
"""

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_GRACE_S = 10.0  # for a library that tidies up; Ray Tune takes up to 6 s
_NOTING_S = 0.1  # until the thread has noted a signal that has come
_ENDING = {signal.SIGINT, signal.SIGTERM}
if hasattr(signal, "SIGUSR1"):  # Ray Tune ends its search early for it too; Slurm sends it
    _ENDING.add(signal.SIGUSR1)


class _Watch:
    """Signals that have come, noted by a thread of its own."""

    def __init__(self, leave: Callable[[int], None] | None) -> None:
        self._leave = leave
        self._first = 0
        self._came = threading.Event()
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        self._former_fd = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        self._former = _handlers()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    @property
    def first(self) -> int:
        """Number of the first signal, 0 if none has come."""
        self._came.wait(_NOTING_S)
        return self._first

    def _listen(self) -> None:
        for number in iter(self._next, 0):
            if number not in _ENDING:
                continue
            if self._leave is not None:
                if self._first:
                    self._leave(self._first)
                self._reader.settimeout(_GRACE_S)
            self._first = self._first or number
            self._came.set()

    def _next(self) -> int:
        """The next signal; the first one again if the process lives on after it; 0 at the end."""
        try:
            return next(iter(self._reader.recv(1)), 0)
        except TimeoutError:
            return self._first

    def close(self) -> None:
        """Stop, and put the handlers back that were there before."""
        signal.set_wakeup_fd(self._former_fd)
        self._writer.close()
        self._thread.join()
        self._reader.close()
        _restore(self._former)


_watch: _Watch | None = None


@contextmanager
def leaving_in_time(tell: Callable[[], None]) -> Iterator[None]:
    """Around a command: a second signal ends the process at once, and 10 s after the first.

    The watch goes on after a signal until the process has ended, for that may take time too.

    Args:
        tell: says that the command was interrupted, if that has not been said.
    """
    global _watch

    def leave(number: int) -> None:
        tell()
        os._exit(exit_code(number))

    _watch = watch = _Watch(leave)
    signal.signal(signal.SIGTERM, _raise)
    try:
        yield
    finally:
        if not watch.first:
            watch.close()
            _watch = None


@contextmanager
def interruptible() -> Iterator[None]:
    """Around a library's call that takes signals for itself: a signal ends it as it should.

    Raises:
        KeyboardInterrupt: a signal came, and the call returned or raised SystemExit.
    """
    if threading.current_thread() is not threading.main_thread():  # signals do not come there
        yield
        return
    former = _handlers()
    watch = _watch or _Watch(None)
    try:
        yield
    except SystemExit:
        if watch.first:
            raise KeyboardInterrupt from None
        raise
    else:
        if watch.first:
            raise KeyboardInterrupt
    finally:
        _restore(former)
        if watch is not _watch:
            watch.close()


def received() -> int:
    """Number of the first signal that came since `leaving_in_time` began; 0 if none."""
    return _watch.first if _watch is not None else 0


def exit_code(number: int) -> int:
    """What a shell expects of a process that a signal has ended."""
    return 128 + (number or signal.SIGINT)


def _raise(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def _handlers() -> dict[signal.Signals, Any]:
    return {number: signal.getsignal(number) for number in _ENDING}


def _restore(handlers: dict[signal.Signals, Any]) -> None:
    for number, handler in handlers.items():
        if handler is not None and signal.getsignal(number) is not handler:  # None: set from C
            signal.signal(number, handler)
