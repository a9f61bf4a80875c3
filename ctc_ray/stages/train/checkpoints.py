"""The state of a training in its output folder, from which a killed run resumes."""

import re
import time
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

from ctc_ray.files import storage
from ctc_ray.runs.claim import Claim
from ctc_ray.runs.layout import WORK_FOLDER
from ctc_ray.stages.train.job import TrainingJob

LAST_FILE = "last-checkpoint.pt"
"""The state after the last epoch of a finished training, with which more epochs begin."""
_FOLDER = "checkpoints"
_NAME = re.compile(r"epoch-([0-9]+)-update-([0-9]+)[.]pt")


class Checkpoints:
    """Writes the state of a training, by a thread of its own; close it to wait for the last one.

    Only the newest one stays.
    """

    def __init__(self, output_uri: str, claim: Claim, *, minutes: float) -> None:
        """Nothing is written yet.

        Args:
            minutes: between two checkpoints within an epoch; 0: there are none.
        """
        self.output_uri, self._claim = output_uri, claim
        self._every_s = 60 * minutes
        self._saved = time.monotonic()
        self._writer = ThreadPoolExecutor(1, "write-checkpoint")
        self._writing: Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._writer.shutdown()

    def is_due(self) -> bool:
        """Whether the last one is too old."""
        return 0 < self._every_s <= time.monotonic() - self._saved

    def save(self, job: TrainingJob) -> None:
        """Write the state as it is now, while the training goes on.

        Raises:
            OSError: the one before could not be written.
            OutputInUseError: another command has taken over the output.
        """
        self.wait()
        self._claim.require_owner()
        name = f"epoch-{job.n_epochs:05d}-update-{job.n_updates:07d}.pt"
        self._writing = self._writer.submit(self._write, name, job.state())
        self._saved = time.monotonic()

    def wait(self) -> None:
        """Wait until all that was saved is written; it raises what `save` raises."""
        if self._writing is not None:
            self._writing.result()

    def _write(self, name: str, state: bytes) -> None:
        storage.set_owner(self._claim.token)
        storage.write_bytes(storage.join(self.output_uri, WORK_FOLDER, _FOLDER, name), state)
        for uri in _checkpoints(self.output_uri)[:-1]:
            storage.delete_file(uri)


def read_checkpoint(output_uri: str) -> bytes | None:
    """The newest state; None: nothing has been done."""
    found = _checkpoints(output_uri)
    last = storage.join(output_uri, LAST_FILE)
    if not found and storage.is_file(last):
        found = [last]
    return storage.read_bytes(found[-1]) if found else None


def _checkpoints(output_uri: str) -> list[str]:
    """URIs of the states of a run that has not finished, the newest last."""
    folder = storage.join(output_uri, WORK_FOLDER, _FOLDER)
    uris = storage.list_files(folder) if storage.is_folder(folder) else ()
    found = [(_NAME.fullmatch(uri.rpartition("/")[2]), uri) for uri in uris]
    known = [(tuple(map(int, match.groups())), uri) for match, uri in found if match is not None]
    return [uri for _, uri in sorted(known)]
