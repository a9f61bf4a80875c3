"""Messages of far workers, logged on the driver."""

import logging
import threading
from typing import Self

import ray


class WorkerLogRelay:
    """Messages of workers, logged on the driver as they come; used by `with`."""

    def __init__(self, receiver: logging.Logger, every_s: float = 0.5) -> None:
        self._receiver = receiver
        self._every_s = every_s
        self._stopped = threading.Event()
        self.mailbox = ray.remote(num_cpus=0)(_Mailbox).remote()
        self._thread = threading.Thread(target=self._listen, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stopped.set()
        self._thread.join()

    def _listen(self) -> None:
        while not self._stopped.wait(self._every_s):
            self._log_new()
        self._log_new()

    def _log_new(self) -> None:
        for message in ray.get(self.mailbox.take.remote()):
            self._receiver.info("%s", message)


class _Mailbox:
    def __init__(self) -> None:
        self._messages: list[str] = []

    def put(self, message: str) -> None:
        self._messages.append(message)

    def take(self) -> list[str]:
        messages, self._messages = self._messages, []
        return messages
