"""Images that end the process that works on them: a crash of a decoder, too little memory.

A file below `_work/tries/` counts the processes that have ended in the middle of a unit. When there
are too many, a child process works on the unit's rows in parts: a part that ends the child is cut
in halves, down to the image at fault.
"""

import contextlib
import itertools
import json
import logging
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import IO, Any, Self

import pyarrow as pa

from ctc_ray.errors import CtcError
from ctc_ray.files import storage
from ctc_ray.runs.layout import WORK_FOLDER
from ctc_ray.runs.unit_worker import UNITS_AT_ONCE, UnitWorker
from ctc_ray.runs.units import Unit
from ctc_ray.schemas import Failure

logger = logging.getLogger(__name__)

_MOST_ENDED = 10
"""Processes that may end in a unit, those included that had a child do the work."""
_TRIES_ALONE = 3
"""How often an image must end a process that has no other image."""
_HOPELESS = 5
"""Images that have ended their processes while none was answered: then no image is at fault."""
_CHILD = "from ctc_ray.runs.crashes import serve; serve()"


@contextlib.contextmanager
def counted_try(output_uri: str, unit: Unit) -> Iterator[int]:
    """Note that this process is at work on a unit; the note outlives it only if it is killed.

    Yields:
        How many processes have ended in the middle of this unit.

    Raises:
        CtcError: too many have.
    """
    uri = storage.join(output_uri, WORK_FOLDER, "tries", f"{unit.name}.json")
    n_ended = _read_count(uri)
    if n_ended >= _MOST_ENDED:
        storage.delete_file(uri)  # the same command begins to count anew
        raise CtcError(
            f"{n_ended} processes were killed one after the other while they worked on it, perhaps "
            "for lack of memory: take fewer --workers, a smaller --batch-size or --max-pixels, or "
            "a larger machine"
        )
    storage.write_json(uri, {"ended": n_ended + 1})
    try:
        yield n_ended
    finally:
        with contextlib.suppress(OSError):
            storage.delete_file(uri)


def _read_count(uri: str) -> int:
    try:
        found = json.loads(storage.read_bytes(uri))
    except FileNotFoundError:
        return 0
    except ValueError:
        return 1
    return int(found.get("ended", 1)) if isinstance(found, dict) else 1


class Apart:
    """A process beside this one that works on the rows of units; when it dies, another does.

    Threads may give it `UNITS_AT_ONCE` units. What was in hand when the process died is tried
    again, unit by unit.
    """

    def __init__(
        self,
        make_worker: Callable[[], UnitWorker],
        fail: Callable[[pa.Table, Failure], pa.Table],
    ) -> None:
        """No process is started yet.

        Args:
            make_worker: can be pickled.
            fail: what becomes of rows with a failure; see `UnitWorker`.
        """
        self._child, self._fail = _Child(make_worker), fail
        self._room, self._clearing = threading.Semaphore(UNITS_AT_ONCE), threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._child.end()

    def answer(self, name: str, rows: pa.Table, *, tries: int) -> pa.Table:
        """What becomes of all rows, where some may end the process that works on them.

        Args:
            name: of the unit, for messages.
            tries: how often they may end it together, before they are tried in parts.

        Returns:
            As `UnitWorker.answer`; images that end their process have the failure `crashed`.

        Raises:
            CtcError: what a worker raised; or every image ends its process.
        """
        with self._room:
            found = self._child.ask(rows)
        if not isinstance(found, _Ended):
            return found
        with self._alone():
            return self._answer_alone(name, rows, tries=tries - 1)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Until the end of the block, the process has nothing else in hand."""
        with self._clearing:
            for _ in range(UNITS_AT_ONCE):
                self._room.acquire()
            try:
                yield
            finally:
                self._room.release(UNITS_AT_ONCE)

    def _answer_alone(self, name: str, rows: pa.Table, *, tries: int) -> pa.Table:
        answers: list[pa.Table] = []
        waiting, crashed, n_answered = [rows], 0, 0
        while waiting:
            part = waiting.pop()
            answer = self._child.answer(part, tries=_TRIES_ALONE if part.num_rows == 1 else tries)
            tries = 1
            if answer is not None:
                answers.append(answer)
                n_answered += part.num_rows
            elif part.num_rows > 1:
                half = part.num_rows // 2
                waiting += [part.slice(half), part.slice(0, half)]  # the first half comes next
            else:
                crashed += 1
                _require_hope(name, crashed, n_answered, self._child)
                logger.warning("%s: %s ends its process", name, part["image_uri"][0].as_py())
                answers.append(self._fail(part, Failure.CRASHED))
        return pa.concat_tables(answers)


def _require_hope(name: str, n_crashed: int, n_answered: int, child: "_Child") -> None:
    if n_crashed >= _HOPELESS and n_answered == 0:
        raise CtcError(
            f"{name}: a process that works on any of its images is killed ({child.ending}), so "
            "this is not for the images: check the memory of the machine and its installation"
        )


@dataclass(frozen=True)
class _Ended:
    """Returned instead of an answer when the process that worked on the rows has died."""

    how: str


class _Child:
    """A process that works for this one; started when it is needed, see `serve`."""

    def __init__(self, make_worker: Callable[[], UnitWorker]) -> None:
        self._make_worker = make_worker
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._asked: dict[int, Future[Any]] = {}
        self._is_alone, self._over = False, threading.Event()
        self.ending = ""
        """How the last process ended."""

    def end(self) -> None:
        """End the process, if there is one; there is no other one after it."""
        self._over.set()
        if self._process is not None:
            _kill(self._process)

    def answer(self, rows: pa.Table, *, tries: int) -> pa.Table | None:
        """What the worker makes of the rows, while it has no others in hand.

        Returns:
            None: they have ended a process so often.

        Raises:
            CtcError: no process can be started.
            Exception: what the worker raised.
        """
        for _ in range(tries):
            found = self.ask(rows, is_alone=True)
            if not isinstance(found, _Ended):
                return found
        return None

    def ask(self, rows: pa.Table, *, is_alone: bool = False) -> Any:
        """What the worker makes of the rows, or how its process ended; threads may ask.

        Raises:
            CtcError: no process can be started, or it was ended.
            Exception: what the worker raised.
        """
        future: Future[Any] = Future()
        with self._lock:
            self._is_alone = is_alone
            process = self._process or self._begin()
            number = next(self._numbers)
            self._asked[number] = future
            with contextlib.suppress(BrokenPipeError):  # `_read` finds that, too
                _send((number, rows), process.stdin)
        found = future.result()
        if isinstance(found, Exception):
            raise found
        return found

    def _begin(self) -> "subprocess.Popen[bytes]":
        if self._over.is_set():
            raise CtcError("it was stopped")
        process = self._process = _start()
        if self._over.is_set():  # `end` came while it was started, and did not see it
            _kill(process)
        try:
            _send(self._make_worker, process.stdin)
            _receive(process.stdout)  # nothing else is read before it: no rows wait in a buffer
        except (EOFError, BrokenPipeError, pickle.UnpicklingError) as error:
            self._process = None
            raise _killed() from error
        threading.Thread(target=self._read, args=(process,), daemon=True).start()
        return process

    def _read(self, process: "subprocess.Popen[bytes]") -> None:
        """Hand the answers of a process to those who have asked, until it ends."""
        last: Any = _killed()
        with contextlib.suppress(EOFError, OSError, ValueError, pickle.UnpicklingError):
            while True:
                number, found = _receive(process.stdout)
                if number is not None:
                    self._asked.pop(number).set_result(found)
                    continue
                self.ending = found.how
                if not self._is_alone:  # what it had begun to read is lost for the next one
                    last = found
                    break
                with self._lock:
                    self._hand_to_all(found)
        _kill(process)  # before the lock: somebody may wait for it to read
        with self._lock:
            self._process = None
            self._hand_to_all(last)
        with process:
            pass

    def _hand_to_all(self, found: Any) -> None:
        for number in list(self._asked):
            self._asked.pop(number).set_result(found)


def _kill(process: "subprocess.Popen[bytes]") -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # its own child, too


def _killed() -> CtcError:
    return CtcError(
        "the process that works on its images did not start, or was killed; perhaps the memory is "
        "too small"
    )


def _start() -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", _CHILD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        start_new_session=True,  # Ctrl-C is for this process, which ends the child
    )


def _send(value: object, stream: IO[bytes] | None) -> None:
    if stream is not None:
        pickle.dump(value, stream)
        stream.flush()


def _receive(stream: IO[bytes] | None) -> Any:
    if stream is None:
        raise EOFError
    return pickle.load(stream)  # only our own processes write there


# -- the child's side ------------------------------------------------------------------------------


def serve() -> None:
    """Have processes work on parts of rows, one after the other, until there are no more parts.

    This process has imported all that a worker needs, and has none: a process forked from it is
    there at once. Threads and GPUs, which a fork would break, begin with the worker.
    """
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print must not come between
    asked = sys.stdin.buffer
    make_worker = pickle.load(asked)  # our own parent's
    _send(None, answers)
    while True:
        reading, writing = os.pipe()
        process = os.fork()
        if process == 0:
            os.close(reading)
            with os.fdopen(writing, "wb") as own_answers:
                _work(make_worker, asked, own_answers)
            os._exit(0)
        os.close(writing)
        with os.fdopen(reading, "rb") as its_answers:
            _relay(its_answers, answers)
        code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        if code == 0:
            return
        _send((None, _Ended(f"signal {-code}" if code < 0 else f"exit code {code}")), answers)


def _relay(its_answers: IO[bytes], answers: IO[bytes]) -> None:
    """Hand on all answers that are whole."""
    with contextlib.suppress(EOFError, pickle.UnpicklingError):
        while True:
            _send(_receive(its_answers), answers)


def _work(make_worker: Callable[[], UnitWorker], asked: IO[bytes], answers: IO[bytes]) -> None:
    worker: UnitWorker | None = None
    sending = threading.Lock()

    def send(number: int, answer: Any) -> None:
        with sending:
            _send((number, answer), answers)

    def answer(worker: UnitWorker, number: int, rows: pa.Table) -> None:
        try:
            found = worker.answer(rows)
        except Exception as error:  # noqa: BLE001  # for the parent
            found = picklable(error)
        send(number, found)

    with ThreadPoolExecutor(UNITS_AT_ONCE) as pool:
        while True:
            try:
                number, rows = pickle.load(asked)  # our own parent's
            except EOFError:
                return
            try:
                worker = worker or make_worker()
            except Exception as error:  # noqa: BLE001  # the parent raises it
                send(number, picklable(error))
            else:
                pool.submit(answer, worker, number, rows)


def picklable(error: Exception) -> Exception:
    """The error as an object that another process can read."""
    try:
        pickle.loads(pickle.dumps(error))  # our own bytes
    except Exception:  # noqa: BLE001  # whatever its class does when it is read
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
