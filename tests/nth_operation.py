"""Make the N-th storage operation of a small job fail, for every N, and run the job again.

    python nth_operation.py CASE FOLDER EVERY

CASE is a job of `CASES`; FOLDER holds the inputs; of all trials, every EVERY-th is done. There is a
trial

- "raise" for every operation: it raises an error before it takes effect;
- "raise-after" for every operation that changes the disk: it takes effect, then raises;
- "die" for every operation that changes the disk: the process dies at it. No later operation takes
  effect, not even of clean-up code or of another thread, so the disk is left as by a process that
  was killed.

An operation that only reads leaves the same disk whether it raises before or after, and whether
the process dies at it or at the next change: so the trials stand for all three faults at every
operation.

After the fault the same job runs without a fault. It must complete, with the files of an
undisturbed run, byte for byte, and no other file. Prints one line of JSON: operations, faults, and
what was wrong.
"""

import contextlib
import errno
import json
import os
import shutil
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from builders import dataset_config, inventory_config, train_config

from ctc_ray.config.aggregation import AggregateConfig
from ctc_ray.config.prediction import ExportConfig, PredictConfig
from ctc_ray.files import storage
from ctc_ray.runs.executor import InProcess
from ctc_ray.stages.create_dataset import stage as create_dataset
from ctc_ray.stages.create_inventory import stage as create_inventory

Answer = TypeVar("Answer")

TIMES = ("speed.csv", "tensorboard/speed/events.out.tfevents.0.ctc")  # of no two runs alike
CHANGES = ("write", "rename", "create", "delete")  # operations that change the disk


def run_inventory(inputs: Path, out: Path) -> None:
    create_inventory.run(inventory_config(inputs / "photos" / "events.csv", out))


def run_dataset(inputs: Path, out: Path) -> None:
    config = dataset_config(inputs / "inventory", inputs / "photos", out)
    create_dataset.run(config, executor=InProcess())


def run_append(inputs: Path, out: Path) -> None:
    if not out.exists():
        shutil.copytree(inputs / "half", out)
    config = dataset_config(inputs / "inventory", inputs / "photos", out)
    create_dataset.run(config.replaced(append=True), executor=InProcess())


def run_train(inputs: Path, out: Path) -> None:
    from ctc_ray.reports import training as report
    from ctc_ray.stages.train import stage as train

    report.for_page = lambda chart: {"title": chart.title}  # seconds each time, and no
    report.sheet_png = lambda charts, columns: b"PNG"  # storage operation
    train.run(train_config(inputs / "dataset", out).replaced(max_epochs=1))


def predict_config(inputs: Path, out: Path) -> PredictConfig:
    return PredictConfig(
        bundle_uri=str(inputs / "model"),
        output_uri=str(out),
        inventory_uri=str(inputs / "inventory"),
        image_root_uri=str(inputs / "photos"),
        export=("table", "json"),
        images_per_unit=6,
        max_failure_fraction=1.0,
    )


def run_predict(inputs: Path, out: Path) -> None:
    from ctc_ray.stages.predict import stage as predict

    predict.run(predict_config(inputs, out), executor=InProcess())


def run_predict_append(inputs: Path, out: Path) -> None:
    from ctc_ray.stages.predict import stage as predict

    if not out.exists():
        shutil.copytree(inputs / "answered", out)
    config = predict_config(inputs, out).replaced(append=True)
    predict.run(config, executor=InProcess())


def run_aggregate(inputs: Path, out: Path) -> None:
    """Two locations have events in both files, so their images are moved."""
    from ctc_ray.stages.aggregate import stage as aggregate

    config = AggregateConfig(
        predictions_uri=str(inputs / "predictions"),
        output_uri=str(out),
        by=("location",),
        images_per_unit=2,
    )
    aggregate.run(config, executor=InProcess())


def run_export(inputs: Path, out: Path) -> None:
    from ctc_ray.stages import export

    config = ExportConfig(bundle_uri=str(inputs / "model"), output_uri=str(out))
    if not _exported:
        _exported.append(export.export_onnx(export.load_bundle(config.bundle_uri)))
    export.export_onnx = lambda _: _exported[0]  # seconds each time, and no storage operation
    export.run(config)


_exported: list[bytes] = []

CASES: dict[str, Callable[[Path, Path], None]] = {
    "create-inventory": run_inventory,
    "create-dataset": run_dataset,
    "create-dataset --append": run_append,
    "train": run_train,
    "predict": run_predict,
    "predict --append": run_predict_append,
    "aggregate": run_aggregate,
    "export": run_export,
}


class DiedError(BaseException):
    """Ends a run as if its process had been killed."""


class Fault:
    """Lets the N-th storage operation fail: the N-th of all for "raise", else the N-th change."""

    def __init__(self, number: int = 0, kind: str = "raise") -> None:
        self.number, self.kind = number, kind
        self.n_operations, self.n_changes = 0, 0
        self.is_dead, self.is_met = False, False
        self._counting = threading.Lock()  # a training reads by several threads

    def __call__(self, name: str, uri: str, call: Callable[[], Answer]) -> Answer:
        if self.is_dead:
            raise DiedError
        with self._counting:
            self.n_operations += 1
            self.n_changes += name in CHANGES
            n_counted = self.n_operations if self.kind == "raise" else self.n_changes
        is_counted = self.kind == "raise" or name in CHANGES
        if not is_counted or n_counted != self.number:
            return call()
        self.is_met = True
        if self.kind == "raise-after":
            call()
        if self.kind == "die":
            self.is_dead = True
            raise DiedError
        raise OSError(errno.EIO, os.strerror(errno.EIO), uri)


def contents(out: Path) -> dict[str, bytes]:
    """Path -> bytes of every file, but for times; the folder's own name is left out of them."""
    own = str(out.parent).encode()
    found = {
        str(path.relative_to(out)): path.read_bytes().replace(own, b"")
        for path in sorted(out.rglob("*"))
        if path.is_file()
    }
    return found | {name: b"times" for name in found if name in TIMES}


class Trials:
    """The trials of one job."""

    def __init__(self, case: str, folder: Path) -> None:
        self._job, self._inputs = CASES[case], folder / "inputs"
        self._out = folder / case.replace(" ", "") / "out"
        self._out.parent.mkdir()
        self._job(self._inputs, self._out)  # what is made once per process is made now
        shutil.rmtree(self._out)
        whole = Fault()
        self._run(whole)
        self.n_operations, self.n_changes = whole.n_operations, whole.n_changes
        self._expected = contents(self._out)

    def _run(self, fault: Fault) -> None:
        storage.operation = fault
        self._job(self._inputs, self._out)

    def problem(self, number: int, kind: str) -> str:
        """What is wrong after a fault and a second run; empty if nothing is."""
        shutil.rmtree(self._out)
        fault = Fault(number, kind)
        with contextlib.suppress(DiedError, Exception):
            self._run(fault)
        if not fault.is_met:
            return "the fault was not met"
        try:
            self._run(Fault())
        except Exception as error:  # noqa: BLE001  # whatever it is, it is the answer
            return f"the second run ended with {type(error).__name__}: {error}"
        found = contents(self._out)
        names = sorted(found.keys() | self._expected.keys())
        other = [name for name in names if found.get(name) != self._expected.get(name)]
        return f"files differ from those of an undisturbed run: {other}" if other else ""


def main(case: str, folder: Path, every: int) -> None:
    trials = Trials(case, folder)
    faults = [(number, "raise") for number in range(1, trials.n_operations + 1)]
    for kind in ("raise-after", "die"):
        faults += [(number, kind) for number in range(1, trials.n_changes + 1)]
    faults = faults[::every]
    problems = [(number, kind, trials.problem(number, kind)) for number, kind in faults]
    found = {
        "operations": trials.n_operations,
        "changes": trials.n_changes,
        "faults": len(faults),
        "wrong": [f"operation {n}, {kind}: {text}" for n, kind, text in problems if text],
    }
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
