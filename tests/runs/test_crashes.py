"""Images that end the process that works on them, with a worker that has no images."""

import os
import signal
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pytest

from ctc_ray.errors import CtcError
from ctc_ray.runs.claim import claimed
from ctc_ray.runs.crashes import Apart, counted_try
from ctc_ray.runs.executor import Beside, Job, do_unit
from ctc_ray.runs.unit_worker import UnitOutput
from ctc_ray.runs.units import Unit
from ctc_ray.schemas import Failure

UNIT = Unit(name="images/part-00000.parquet", plan_file="", index=0, n_rows=32)


@dataclass(frozen=True)
class Worker:
    """Answers with the name; is killed by some names, and by too many rows at once."""

    deadly: frozenset[str] = frozenset()
    most_rows: int = 1000
    errors: tuple[str, str] = ("", "")
    """An image, and what is raised for it."""

    def read(self, unit: Unit) -> pa.Table:
        return rows(unit.n_rows)

    def answer(self, rows: pa.Table) -> pa.Table:
        names = rows["image_uri"].to_pylist()
        os.write(1, b"a library speaks")
        if self.deadly.intersection(names) or len(names) > self.most_rows:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.errors[0] in names:
            raise ERRORS[self.errors[1]]
        return answers(names, [None] * len(names))

    def fail(self, rows: pa.Table, failure: Failure) -> pa.Table:
        return answers(rows["image_uri"].to_pylist(), [failure.value] * rows.num_rows)

    def output(self, unit: Unit, answers: pa.Table) -> UnitOutput:
        content = pa.py_buffer(repr(answers.to_pylist()).encode())
        failed = answers.num_rows - answers["failure"].null_count
        return UnitOutput({unit.name: content}, answers.num_rows, failed)


class UnreadableError(Exception):
    """Can be written by pickle, and not be read."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(one + two)


ERRORS: dict[str, Exception] = {
    "store": ConnectionError("no answer"),
    "ours": CtcError("a line"),
    "unreadable": UnreadableError("a", "b"),
}


@dataclass(frozen=True)
class Maker:
    worker: Worker

    def __call__(self, n_threads: int = 1) -> Worker:
        return self.worker


def rows(n: int) -> pa.Table:
    return pa.table({"image_uri": [f"{i}.jpg" for i in range(n)]})


def answers(names: list[str], failures: list[str | None]) -> pa.Table:
    return pa.table({"name": pa.array(names, pa.string()), "failure": pa.array(failures, "string")})


def in_parts(worker: Worker, n: int) -> dict[str, str | None]:
    with Apart(Maker(worker), worker.fail) as apart:
        found = apart.answer("unit", rows(n), tries=1)
    assert found["name"].to_pylist() == rows(n)["image_uri"].to_pylist()
    return dict(zip(found["name"].to_pylist(), found["failure"].to_pylist(), strict=True))


@pytest.mark.parametrize("deadly", [{15}, {0, 6, 7}, set(range(4))])
def test_the_images_at_fault_fail_and_all_others_are_answered_in_their_order(
    deadly: set[int],
) -> None:
    names = frozenset(f"{i}.jpg" for i in deadly)
    found = in_parts(Worker(names), 16)
    assert {name for name, failure in found.items() if failure == "crashed"} == names
    assert all(failure is None for name, failure in found.items() if name not in names)


def test_images_that_are_only_too_many_at_once_are_all_answered() -> None:
    assert set(in_parts(Worker(most_rows=3), 16).values()) == {None}


def test_no_image_is_blamed_where_every_process_is_killed() -> None:
    with pytest.raises(CtcError, match=r"killed \(signal 9\), so this is not for the images"):
        in_parts(Worker(most_rows=0), 32)


@pytest.mark.parametrize(
    ("error", "raised"),
    [("store", ConnectionError), ("ours", CtcError), ("unreadable", RuntimeError)],
)
def test_what_a_worker_raises_is_raised_here(error: str, raised: type[Exception]) -> None:
    with pytest.raises(raised, match=str(ERRORS[error])):
        in_parts(Worker(frozenset({"0.jpg"}), errors=("2.jpg", error)), 4)


def test_a_maker_that_no_process_can_read_is_one_line() -> None:
    worker = Worker()
    with (
        pytest.raises(CtcError, match="did not start"),
        Apart(UnreadableMaker(), worker.fail) as apart,
    ):
        apart.answer("unit", rows(2), tries=1)


class UnreadableMaker:
    def __reduce__(self) -> tuple[type, tuple[str]]:
        return UnreadableError, ("one",)

    def __call__(self) -> Worker:
        return Worker()


def try_in_a_process(output: Path, worker: Worker) -> int:
    """Do the unit in a process of its own, forked: how it ends."""
    process = os.fork()
    if process == 0:
        with claimed(str(output), "test") as claim:
            do_unit(UNIT, Job(str(output), claim, Maker(worker)), worker, n_threads=1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def do(output: Path, worker: Worker, **options: int) -> str:
    with claimed(str(output), "test") as claim:
        job = Job(str(output), claim, Maker(worker))
        result = do_unit(UNIT, job, worker, n_threads=1, **options)
    assert not result.error
    return (output / UNIT.name).read_text()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_unit_is_tried_a_few_times_and_then_in_parts(tmp_path: Path) -> None:
    worker = Worker(frozenset({"5.jpg"}))
    for _ in range(3):
        assert try_in_a_process(tmp_path, worker) == -signal.SIGKILL
    text = do(tmp_path, worker)
    assert text.count("crashed") == 1
    assert "{'name': '5.jpg', 'failure': 'crashed'}" in text
    assert not list(tmp_path.rglob("tries/**/*.json"))


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_process_that_was_killed_from_outside_changes_no_answer(tmp_path: Path) -> None:
    assert try_in_a_process(tmp_path, Worker(most_rows=0)) == -signal.SIGKILL
    assert do(tmp_path, Worker(), tries=1) == do(tmp_path / "whole", Worker())


def test_an_error_or_an_interrupt_is_no_crash(tmp_path: Path) -> None:
    for error in (OSError, KeyboardInterrupt):
        for _ in range(4):
            with pytest.raises(error), counted_try(str(tmp_path), UNIT) as n_ended:
                raise error
            assert n_ended == 0


def test_processes_are_not_killed_for_ever(tmp_path: Path) -> None:
    """E.g. by the memory monitor of a node, which sees the process and not its child."""
    tries = [counted_try(str(tmp_path), UNIT) for _ in range(10)]
    assert [one.__enter__() for one in tries] == list(range(10))  # and the process ends each time
    with pytest.raises(CtcError, match="10 processes were killed one after the other"):
        counted_try(str(tmp_path), UNIT).__enter__()
    with counted_try(str(tmp_path), UNIT) as n_ended:
        assert n_ended == 0


@dataclass(frozen=True)
class Tired(Worker):
    """Is killed the first time that it works, e.g. for lack of memory."""

    note: str = ""

    def answer(self, rows: pa.Table) -> pa.Table:
        if not os.path.exists(self.note):
            open(self.note, "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        found = super().answer(rows)
        return found.append_column("rows", pa.array([rows.num_rows] * rows.num_rows))


def units(n: int) -> list[Unit]:
    return [Unit(f"images/part-{i:05d}.parquet", "", i, 16) for i in range(n)]


def beside(output: Path, worker: Worker, n_units: int) -> list[str]:
    """The files of units that a process beside this one has done."""
    with claimed(str(output), "test") as claim:
        job = Job(str(output), claim, Maker(worker), n_workers=1)
        results = list(Beside().run(units(n_units), job))
    assert [result.error for result in results] == [""] * n_units
    assert not list(output.rglob("tries/**/*.json"))
    return [(output / unit.name).read_text() for unit in units(n_units)]


def test_of_units_that_another_process_does_only_images_at_fault_are_lost(tmp_path: Path) -> None:
    texts = beside(tmp_path, Worker(frozenset({"5.jpg", "6.jpg"})), 3)
    assert [text.count("'failure': None") for text in texts] == [14, 14, 14]
    assert [text.count("'failure': 'crashed'") for text in texts] == [2, 2, 2]


def test_a_process_that_is_killed_once_does_the_whole_unit_again(tmp_path: Path) -> None:
    (text,) = beside(tmp_path, Tired(note=str(tmp_path / "note")), 1)
    assert text.count("'rows': 16") == 16


def test_what_a_worker_of_another_process_raises_ends_the_unit(tmp_path: Path) -> None:
    worker = Worker(frozenset({"0.jpg"}), errors=("2.jpg", "ours"))
    with claimed(str(tmp_path), "test") as claim:
        (result,) = Beside().run(units(1), Job(str(tmp_path), claim, Maker(worker)))
    assert result.error == "images/part-00000.parquet: a line"


@dataclass(frozen=True)
class Meeting(Worker):
    """Answers only when it has two units in hand."""

    barrier = threading.Barrier(2)

    def answer(self, rows: pa.Table) -> pa.Table:
        self.barrier.wait(20)
        return super().answer(rows)


def test_the_process_has_the_next_unit_in_hand(tmp_path: Path) -> None:
    texts = beside(tmp_path, Meeting(), 6)
    assert [text.count("'failure': None") for text in texts] == [16] * 6


@dataclass(frozen=True)
class Numbered(Worker):
    """Its images have other names in every unit."""

    def read(self, unit: Unit) -> pa.Table:
        return pa.table({"image_uri": [f"{unit.index}-{i}.jpg" for i in range(unit.n_rows)]})


def test_units_in_hand_when_the_process_dies_are_answered(tmp_path: Path) -> None:
    deadly = frozenset({"2-0.jpg", "3-15.jpg", "7-4.jpg"})
    texts = beside(tmp_path, Numbered(deadly), 9)
    assert [text.count("crashed") for text in texts] == [0, 0, 1, 1, 0, 0, 0, 1, 0]
    for unit, text in zip(units(9), texts, strict=True):
        names = [f"{unit.index}-{i}.jpg" for i in range(16)]
        assert text == repr(
            answers(names, ["crashed" if name in deadly else None for name in names]).to_pylist()
        )


@dataclass(frozen=True)
class Endless(Worker):
    """Does not come to an end."""

    def answer(self, rows: pa.Table) -> pa.Table:
        time.sleep(1000)
        return rows


def test_who_waits_for_a_process_that_is_ended_is_told(tmp_path: Path) -> None:
    worker, told = Endless(), []

    def ask() -> None:
        try:
            apart.answer("unit", rows(2), tries=3)
        except CtcError as error:
            told.append(str(error))

    with Apart(Maker(worker), worker.fail) as apart:
        threads = [threading.Thread(target=ask) for _ in range(3)]  # one waits for its turn
        for thread in threads:
            thread.start()
        time.sleep(0.5)
    for thread in threads:
        thread.join(20)
    assert len(told) == 3
