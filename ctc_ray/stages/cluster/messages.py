"""Messages of far workers, logged on the driver."""

import logging
import pickle
import threading
from collections.abc import Callable
from typing import Self

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

_Message = str | dict[str, float]

_PATIENCE_S = 20  # an actor takes seconds to start where all CPUs are busy


class WorkerLogRelay:
    """Messages of workers, logged on the driver as they come; used by `with`.

    They are for people only: when their actor is lost, messages are lost and the work continues.
    """

    def __init__(
        self,
        receiver: logging.Logger,
        every_s: float = 0.5,
        *,
        take_metrics: Callable[[dict[str, float]], None] = lambda _: None,
    ) -> None:
        """Nothing is relayed yet.

        Args:
            take_metrics: called on the driver with the messages that are no text.
        """
        self._receiver, self._take_metrics = receiver, take_metrics
        self._every_s = every_s
        self._stopped = threading.Event()
        # On the driver's node: another node may be removed during the work.
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
        mailbox = ray.remote(num_cpus=0, max_restarts=-1, scheduling_strategy=here)(_Mailbox)
        self.mailbox = mailbox.remote()
        self._thread = threading.Thread(target=self._listen, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stopped.set()
        self._thread.join(timeout=_PATIENCE_S)  # a lost cluster does not answer

    def failure(self) -> Exception | None:
        """The error that a worker has told as one that would come again."""
        try:
            content = ray.get(self.mailbox.failure.remote())
        except RayError:
            return None
        error: Exception | None = content and pickle.loads(content)  # our own bytes
        return error

    def _listen(self) -> None:
        while not self._stopped.wait(self._every_s):
            self._log_new()
        self._log_new()

    def _log_new(self) -> None:
        try:
            messages = ray.get(self.mailbox.take.remote())
        except RayError:
            return
        for message in messages:
            if isinstance(message, str):
                self._receiver.info("%s", message)
            else:
                self._take_metrics(message)


class _Mailbox:
    def __init__(self) -> None:
        self._messages: list[_Message] = []
        self._failure: bytes | None = None

    def put(self, message: _Message) -> None:
        self._messages.append(message)

    def fail(self, error: bytes) -> None:
        self._failure = self._failure or error

    def failure(self) -> bytes | None:
        return self._failure

    def take(self) -> list[_Message]:
        messages, self._messages = self._messages, []
        return messages
