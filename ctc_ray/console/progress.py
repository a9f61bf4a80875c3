"""How far a command is: one line that says how fast, how many failures, how long to go."""

import sys
import time
from dataclasses import dataclass, field
from typing import TextIO


@dataclass
class Progress:
    """One line on stderr: how far, how fast, how many failures, how long to go.

    On a terminal the line is rewritten in place, else a new line is printed every `every_s`.
    """

    what: str
    total: int
    unit: str = "images"
    every_s: float = 10.0
    stream: TextIO = field(default_factory=lambda: sys.stderr)
    done: int = 0
    failed: int = 0
    _began: float = field(default_factory=time.monotonic)
    _shown: float = field(default_factory=time.monotonic)
    _earlier: int = 0
    _last: str = ""

    def skip(self, n: int) -> None:
        """Count what an earlier run has done; it does not count for the rate."""
        self.done += n
        self._earlier += n

    def add(self, n: int, failed: int = 0) -> None:
        """Count what is done now, and show the line if it is time."""
        self.done += n
        self.failed += failed
        now = time.monotonic()
        interval = 0.2 if self.stream.isatty() else self.every_s
        if now - self._shown >= interval:
            self._shown = now
            self._show("\r" if self.stream.isatty() else "\n")

    def finish(self) -> None:
        """Show the last line."""
        if self.stream.isatty() or not self._last.startswith(self._how_far()):
            self._show("\n")

    def line(self) -> str:
        """E.g. `create-dataset 1 200/5 000 images (24 %), 81.3/s, 3 failed, 46 s to go`."""
        seconds = max(time.monotonic() - self._began, 1e-9)
        rate = (self.done - self._earlier) / seconds
        left = self.total - self.done
        eta = f", {clock(left / rate)} to go" if left > 0 and rate > 0 else ""
        return f"{self._how_far()}, {rate:.1f}/s, {self.failed:,} failed{eta}"

    def _how_far(self) -> str:
        share = f" ({100 * self.done / self.total:.0f} %)" if self.total else ""
        return f"{self.what} {self.done:,}/{self.total:,} {self.unit}{share}"

    def _show(self, end: str) -> None:
        self._last = self.line()
        if self.stream.isatty():
            self.stream.write(f"\x1b[2K\r{self._last}{'' if end == chr(13) else end}")
        else:
            self.stream.write(f"{self._last}\n")
        self.stream.flush()


def clock(seconds: float) -> str:
    """A duration with its units, e.g. 0.3 s, 46 s, 4 min 10 s or 3 h 05 min."""
    if round(seconds) < 10:
        return f"{seconds:.1g} s" if seconds < 1 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours:,} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
