"""Ray's failures as lines for the user."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import ray
from ray._common.utils import get_default_ray_temp_dir
from ray.exceptions import RayError, RayTaskError, UserCodeException

from ctc_ray.console import logs
from ctc_ray.console.interrupts import interruptible
from ctc_ray.errors import CtcError
from ctc_ray.stages.cluster.waiting import told_while_waiting

_MAX_REASON = 300  # Ray adds pages of a raylet's log to some of its messages


@contextmanager
def ray_work() -> Iterator[None]:
    """Around what a stage does with Ray: failures are lines, so is waiting, and a signal ends it.

    An error of our own code that comes back from a task stays an error with its traceback.

    Raises:
        CtcError: Ray failed, or a task raised one.
        KeyboardInterrupt: a signal came, whatever Ray has made of it.
    """
    with interruptible(), told_while_waiting():
        try:
            yield
        except RayError as error:
            raise as_error(error) from error


def as_error(error: Exception) -> Exception:
    """What to raise for an error that came through Ray: a line, or the error of our own code."""
    if isinstance(error, RayTaskError) and isinstance(error.cause, Exception):
        cause = error.cause
        if isinstance(cause, UserCodeException):  # of Ray Data, around an error of a task
            cause = cause.__cause__ or error
        return (
            as_error(cause)
            if isinstance(cause, CtcError | RayError) and cause is not error
            else error
        )
    if not isinstance(error, RayError):
        return error
    return CtcError(
        f"Ray failed: {type(error).__name__}: {reason(error)}; what is done is kept, and the same "
        f"command resumes ({logs_of_ray()})"
    )


def reason(error: Exception) -> str:
    """The first lines of an error's message, as one."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= _MAX_REASON else f"{text[:_MAX_REASON]}…"


def logs_of_ray() -> str:
    """The folder of Ray's logs, and the log of this command if it has one."""
    node = ray._private.worker._global_node
    session = node.get_session_dir_path() if node is not None else _latest_session()
    of_command = logs.keep_noise_in_output()
    return f"logs: {', '.join(filter(None, [of_command, os.path.join(session, 'logs')]))}"


def _latest_session() -> str:
    return os.path.join(get_default_ray_temp_dir(), "session_latest")
