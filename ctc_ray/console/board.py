"""Lines at the bottom of a terminal that are written again in place; log lines run above them.

The cursor stays visible and the terminal keeps its modes, so whatever ends the process leaves a
terminal that works.
"""

import contextlib
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TextIO

from ctc_ray.files.storage_errors import printable

_EVERY_S = 0.2


class Board:
    """Such lines on a terminal; a stream of text, too, for lines above them."""

    def __init__(self, stream: TextIO) -> None:
        """A board without a line."""
        self._stream = stream
        self._lines: list[str] = []
        self._n_drawn, self._width = 0, 0
        self._drawn_at = 0.0
        self._lock = threading.RLock()

    def show(self, lines: Sequence[str]) -> None:
        """Show these lines instead, at most five times per second."""
        with self._lock:
            self._lines = [printable(line) for line in lines]
            if time.monotonic() - self._drawn_at >= _EVERY_S:
                self._draw()

    def write(self, text: str) -> int:
        """Write finished lines above the board."""
        with self._lock:
            self._stream.write(self._erasing() + text)
            self._draw()
        return len(text)

    def flush(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        """Erase the board."""
        with self._lock:
            self._lines = []
            self._draw()

    def _erasing(self) -> str:
        n, self._n_drawn = self._n_drawn, 0
        if not n or self._size().columns != self._width:
            return ""  # the width has changed: the old lines may be wrapped into more rows
        return f"\x1b[{n}A\r\x1b[J"

    def _size(self) -> os.terminal_size:
        """That of this terminal: stdout may lead to a file."""
        with contextlib.suppress(OSError):
            if (size := os.get_terminal_size(self._stream.fileno())).columns:
                return size
        return os.terminal_size((80, 24))

    def _draw(self) -> None:
        erasing = self._erasing()
        size = self._size()
        shown = [_cut(line, size.columns - 1) for line in self._lines[: max(1, size.lines - 1)]]
        self._stream.write(erasing + "".join(f"{line}\n" for line in shown))
        self._stream.flush()
        self._n_drawn, self._width = len(shown), size.columns
        self._drawn_at = time.monotonic()


@contextmanager
def board() -> Iterator[Board | None]:
    """A board on stderr, with this package's messages above it; None if that is no terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    shown = Board(sys.stderr)
    handlers = [
        handler
        for handler in logging.getLogger("ctc_ray").handlers
        if isinstance(handler, logging.StreamHandler)
    ]
    former = [handler.setStream(shown) for handler in handlers]
    try:
        yield shown
    finally:
        for handler, stream in zip(handlers, former, strict=True):
            handler.setStream(stream or sys.stderr)
        shown.close()


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """A line per row, with the cells of a column below one another."""
    from rich.cells import cell_len  # 50 ms, which errors do without

    widths = [max(map(cell_len, cells)) for cells in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell + " " * (width - cell_len(cell)) for cell, width in zip(row, widths, strict=True)
        ).rstrip()
        for row in rows
    ]


def _cut(line: str, width: int) -> str:
    """The line, on one row of the terminal."""
    from rich.cells import cell_len, set_cell_size

    return (
        line
        if cell_len(line) <= width
        else f"{set_cell_size(line, width - 1)}\N{HORIZONTAL ELLIPSIS}"
    )
