"""Signals, with libraries that answer them in their own ways."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from ctc_ray.console import interrupts

BEGIN = """
import signal, sys, time
from ctc_ray.console import interrupts
interrupts._GRACE_S = 1.0

def tell():
    print("told", flush=True)

def library_that_returns():
    came = []
    signal.signal(signal.SIGINT, lambda *_: came.append(1))
    print("begun", flush=True)
    while not came:
        time.sleep(0.01)

def library_that_leaves():
    signal.signal(signal.SIGINT, lambda *_: sys.exit(0))
    print("begun", flush=True)
    time.sleep(60)

def library_that_hears_nothing():
    signal.signal(signal.SIGINT, lambda *_: None)
    print("begun", flush=True)
    while True:
        time.sleep(0.01)

def command(library):
    try:
        with interrupts.leaving_in_time(tell), interrupts.interruptible():
            library()
        print("complete", flush=True)
    except KeyboardInterrupt:
        print("KeyboardInterrupt", interrupts.received(), flush=True)
"""


def begun(code: str) -> subprocess.Popen[str]:
    run = subprocess.Popen([sys.executable, "-c", BEGIN + code], stdout=subprocess.PIPE, text=True)
    assert run.stdout is not None
    assert run.stdout.readline() == "begun\n"
    return run


@pytest.mark.parametrize("library", ["library_that_returns", "library_that_leaves"])
def test_a_library_that_takes_the_signal_for_itself_is_interrupted_all_the_same(
    library: str,
) -> None:
    run = begun(f"command({library})")
    run.send_signal(signal.SIGINT)
    assert run.communicate(timeout=20)[0] == "KeyboardInterrupt 2\n"


def test_sigterm_is_an_interrupt_too() -> None:
    run = begun("command(library_that_hears_nothing)")
    run.send_signal(signal.SIGTERM)
    assert run.communicate(timeout=20)[0] == "KeyboardInterrupt 15\n"


def test_what_does_not_end_in_time_is_ended() -> None:
    run = begun("command(library_that_hears_nothing)")
    began = time.monotonic()
    run.send_signal(signal.SIGINT)
    assert run.communicate(timeout=20)[0] == "told\n"
    assert run.returncode == 130
    assert time.monotonic() - began >= 1


def test_a_second_signal_leaves_at_once() -> None:
    run = begun("interrupts._GRACE_S = 60.0; command(library_that_hears_nothing)")
    run.send_signal(signal.SIGINT)
    time.sleep(0.1)  # two in one moment are one to the system
    run.send_signal(signal.SIGINT)
    assert run.communicate(timeout=20)[0] == "told\n"
    assert run.returncode == 130


def test_handlers_are_as_before_when_no_signal_came() -> None:
    def library() -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with interrupts.leaving_in_time(lambda: None):
        with interrupts.interruptible():
            library()
        assert signal.getsignal(signal.SIGINT) is before[0]
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    assert interrupts.received() == 0


@pytest.mark.parametrize("error", [SystemExit(3), ValueError("broken")])
def test_without_a_signal_an_error_stays_what_it_is(error: BaseException) -> None:
    def library() -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        interrupted(library)
    assert caught.value is error


def interrupted(library: Callable[[], None]) -> None:
    with interrupts.interruptible():
        library()
