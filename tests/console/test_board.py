import io
import logging
import sys
from pathlib import Path

import pytest
from terminal import WIDTH, on_terminal

from ctc_ray.console import logs
from ctc_ray.console.board import Board, board, columns

SEARCH = """
import logging, os, sys, time
from ctc_ray.console import logs
from ctc_ray.console.board import board
logs.set_up()
os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # as of a command whose libraries print to a file
with board() as shown:
    for k in range(int(sys.argv[1])):
        shown.show([f"row one {k}", "row two " + "x" * 300])
        time.sleep(0.25)
        if k == 1:
            logging.getLogger("ctc_ray.any").warning("a line above")
            print("ready", file=sys.stderr, flush=True)
logging.getLogger("ctc_ray.any").warning("the end")
"""


def search(n: int, *, until: bytes = b"") -> tuple[int, str, bool]:
    return on_terminal([sys.executable, "-c", SEARCH, str(n)], until=until)


def screen(got: str, width: int = WIDTH) -> list[str]:
    """The rows that a terminal shows, for the few codes that a board uses."""
    rows, row = [""], 0
    position = 0
    while position < len(got):
        if got.startswith("\x1b[", position):
            end = next(k for k in range(position + 2, len(got)) if got[k].isalpha())
            count, code = got[position + 2 : end], got[end]
            if code == "A":
                row -= int(count)
            elif code == "J":
                rows = [*rows[:row], ""]
            else:
                raise AssertionError(code)
            position = end + 1
            continue
        if got[position] == "\n":
            row += 1
            rows += [""] * (row + 1 - len(rows))
        elif got[position] != "\r":
            rows[row] += got[position]
            assert len(rows[row]) <= width
        position += 1
    return rows


def test_a_board_is_written_in_place_below_the_lines_of_the_log() -> None:
    code, got, is_same = search(4)
    assert (code, is_same) == (0, True)
    cut = got[: got.rindex("row one 3")] + "row one 3\r\n"
    shown = screen(cut.replace("ready\r\n", ""))
    assert sum("row one" in row for row in shown) == 1
    assert f"row two {'x' * (WIDTH - 10)}\N{HORIZONTAL ELLIPSIS}\r\n" in got
    assert next(row for row in shown if row).endswith("a line above")
    last = screen(got.replace("ready\r\n", ""))
    assert [row[9:] for row in last if row] == ["a line above", "the end"]


def test_an_interrupt_leaves_a_terminal_that_works() -> None:
    code, got, is_same = search(400, until=b"ready")
    assert code != 0
    assert is_same
    assert "?25l" not in got  # the cursor was never hidden
    assert "KeyboardInterrupt" in got


def test_without_a_terminal_there_is_no_board(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with board() as shown:
        assert shown is None


def test_names_with_control_characters_stay_on_their_row(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    mine = Board(stream)
    mine.show(["a\nb\x1b[2J"])
    assert stream.getvalue().count("\n") == 1
    assert "\x1b" not in stream.getvalue()


def test_wide_letters_count_twice() -> None:
    lines = columns([["斑馬", "x"], ["a", "y"]])
    assert lines == ["斑馬  x", "a     y"]


def test_handlers_get_their_stream_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    logs.set_up()
    (handler,) = logging.getLogger("ctc_ray").handlers
    before = handler.stream
    with board():
        assert handler.stream is not before
    assert handler.stream is before
