import io
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ctc_ray.console import logs
from ctc_ray.console.progress import Progress, clock
from ctc_ray.files import storage
from ctc_ray.runs.failures import counts_to_text


def test_progress_line_tells_rate_failures_and_time_to_go() -> None:
    progress = Progress("predict", 1000, stream=io.StringIO())
    progress._began -= 10
    progress.add(500, failed=3)
    assert progress.line().startswith("predict 500/1,000 images (50 %), ")
    assert "3 failed, 10 s to go" in progress.line()


def test_what_an_earlier_run_did_does_not_count_for_the_rate() -> None:
    progress = Progress("predict", 1000, stream=io.StringIO())
    progress._began -= 10
    progress.skip(900)
    progress.add(50)
    assert "950/1,000" in progress.line()
    assert ", 5.0/s" in progress.line()


def test_lines_are_plain_when_stderr_is_no_terminal() -> None:
    stream = io.StringIO()
    progress = Progress("train", 2, unit="epochs", every_s=0, stream=stream)
    progress.add(1)
    progress.add(1)
    progress.finish()
    lines = stream.getvalue().splitlines()
    assert len(lines) == 2
    assert "\x1b" not in stream.getvalue()
    assert lines[-1].startswith("train 2/2 epochs (100 %)")


def test_finished_progress_has_no_time_to_go() -> None:
    progress = Progress("train", 2, stream=io.StringIO())
    progress.add(2)
    assert "to go" not in progress.line()


def test_setting_up_twice_adds_no_second_handler() -> None:
    logs.set_up()
    n_handlers = len(logging.getLogger("ctc_ray").handlers)
    logs.set_up()
    assert len(logging.getLogger("ctc_ray").handlers) == n_handlers


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.00034, "0.0003 s"),
        (0.34, "0.3 s"),
        (1.26, "1.3 s"),
        (9.6, "10 s"),
        (46, "46 s"),
        (250, "4 min 10 s"),
        (3 * 3600 + 5 * 60, "3 h 05 min"),
        (9000 * 3600, "9,000 h 00 min"),
    ],
)
def test_durations_have_the_units_that_suit_them(seconds: float, words: str) -> None:
    assert clock(seconds) == words


def test_counts_in_words_leave_out_zeros() -> None:
    assert counts_to_text({"missing": 1200, "truncated": 0}) == "missing 1,200"
    assert counts_to_text({}) == "none"


NOISY = """
import os, sys
from ctc_ray.console import logs
out = logs.keep_noise_in_file(sys.argv[1])
print('noise 1')
os.write(1, b'noise 2\\n'); os.write(2, b'noise 3\\n')
os.system('echo noise 4')
sys.stderr.write('progress\\n')
out.write('result\\n')
"""
MORE = """
sys.stderr.write(logs.keep_noise_in_output() + '\\n')
os.system('echo noise 5')
"""


def noisy(code: str, output: Path | str, temporary: Path) -> list[str]:
    """Lines on stderr of a process that prints noise, a progress line and a result."""
    done = subprocess.run(
        [sys.executable, "-c", code, str(output)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "TMPDIR": str(temporary)},
    )
    assert done.stdout == "result\n"
    assert not list(temporary.iterdir())
    return done.stderr.splitlines()


@pytest.fixture
def temporary(tmp_path: Path) -> Path:
    folder = tmp_path / "temporary"
    folder.mkdir()
    return folder


def test_noise_reaches_neither_stdout_nor_stderr_and_leaves_no_file(
    tmp_path: Path, temporary: Path
) -> None:
    output = tmp_path / "output"
    code = NOISY + MORE + "logs.end_noise(failed=True)"
    assert noisy(code, output, temporary) == ["progress", ""]
    assert not output.exists()  # no work has begun there
    assert noisy(code, "", temporary) == ["progress", ""]


def test_noise_of_a_command_that_fails_lies_in_its_output(output_uri: str, tmp_path: Path) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    storage.write_bytes(storage.join(output_uri, "_work", "work.json"), b"{}")
    _, log_uri = noisy(NOISY + MORE + "logs.end_noise(failed=True)", output_uri, temporary)
    assert log_uri.startswith(storage.join(output_uri, "_work", "logs", "20"))
    lines = storage.read_bytes(log_uri).decode().splitlines()
    assert sorted(lines) == [f"noise {i}" for i in (1, 2, 3, 4, 5)]


def test_noise_of_a_crash_lies_in_its_output(tmp_path: Path, temporary: Path) -> None:
    (tmp_path / "_work").mkdir()
    _, log_uri = noisy(NOISY + MORE + "os._exit(0)", tmp_path, temporary)
    assert "noise 5" in Path(log_uri).read_text()


@pytest.mark.parametrize("failed", [False, True])
def test_no_log_is_left_of_success_or_silence(
    tmp_path: Path, temporary: Path, failed: bool
) -> None:
    (tmp_path / "_work").mkdir()
    silent = (
        "import sys\nfrom ctc_ray.console import logs\nout = logs.keep_noise_in_file(sys.argv[1])\n"
    )
    code = (
        silent + "out.write('result\\n')\nlogs.keep_noise_in_output()\n" if failed else NOISY + MORE
    )
    noisy(code + f"logs.end_noise(failed={failed})", tmp_path, temporary)
    assert not list((tmp_path / "_work").iterdir())


def test_a_log_that_was_deleted_with_the_output_is_written_again(
    tmp_path: Path, temporary: Path
) -> None:
    (tmp_path / "_work").mkdir()
    delete = "import shutil; shutil.rmtree(sys.argv[1] + '/_work/logs')"
    _, log, again = noisy(NOISY + MORE + delete + MORE, tmp_path, temporary)
    assert log == again
    assert Path(log).read_text().count("noise 5") == 2


def test_a_message_is_one_line_whatever_names_are_in_it() -> None:
    logs.set_up()
    formatter = logging.getLogger("ctc_ray").handlers[0].formatter
    assert formatter is not None
    record = logging.LogRecord("ctc_ray", 20, "", 0, "%s: left out", ("a\x1b[2J\n\ud800",), None)
    assert formatter.format(record).endswith(r" a\x1b[2J\n\ud800: left out")
