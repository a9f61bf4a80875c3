import io
import logging
import os
import subprocess
import sys

from ctc_ray.console import logs
from ctc_ray.console.progress import Progress, clock
from ctc_ray.runs.failures import counts_to_text


def test_progress_line_tells_rate_failures_and_time_to_go() -> None:
    progress = Progress("predict", 1000, stream=io.StringIO())
    progress._began -= 10
    progress.add(500, failed=3)
    assert progress.line().startswith("predict 500/1,000 images (50 %), ")
    assert "3 failed, 0:10 to go" in progress.line()


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


def test_clock_shows_hours_only_where_there_are_some() -> None:
    assert clock(46) == "0:46"
    assert clock(3 * 3600 + 5 * 60) == "3:05:00"


def test_counts_in_words_leave_out_zeros() -> None:
    assert counts_to_text({"missing": 1200, "truncated": 0}) == "missing 1,200"
    assert counts_to_text({}) == "none"


def test_noise_goes_to_a_file_and_the_result_to_stdout(tmp_path):
    code = (
        "import os, sys\n"
        "from ctc_ray.console import logs\n"
        "out = logs.keep_noise_in_file()\n"
        "print('noise 1')\n"
        "os.write(1, b'noise 2\\n'); os.write(2, b'noise 3\\n')\n"
        "os.system('echo noise 4')\n"
        "sys.stderr.write('progress\\n')\n"
        "out.write('result\\n')\n"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert (done.stdout, done.stderr) == ("result\n", "progress\n")
    (file,) = tmp_path.glob("ctc-*.log")
    assert sorted(file.read_text().split("\n")) == ["", *(f"noise {i}" for i in (1, 2, 3, 4))]


def test_a_message_is_one_line_whatever_names_are_in_it() -> None:
    logs.set_up()
    formatter = logging.getLogger("ctc_ray").handlers[0].formatter
    assert formatter is not None
    record = logging.LogRecord("ctc_ray", 20, "", 0, "%s: left out", ("a\x1b[2J\n\ud800",), None)
    assert formatter.format(record).endswith(r" a\x1b[2J\n\ud800: left out")
