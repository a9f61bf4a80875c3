"""One owner at a time: a run claims its output folder, and renews the claim while it lives.

A claim is the file `_work/claim-NNNNN.json`, which only one process can create. Where the owner of
the latest claim is dead, the next number is free to create: of several that try, one succeeds. An
owner on this machine is dead when its process is gone. An owner elsewhere counts as dead when it
has not renewed its claim for `EXPIRES_S`; both times are the store's, so clocks need not agree.
"""

import contextlib
import functools
import hashlib
import json
import logging
import os
import re
import socket
import threading
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from ctc_ray.errors import OutputInUseError
from ctc_ray.files import storage
from ctc_ray.runs.layout import WORK_FOLDER

logger = logging.getLogger(__name__)

RENEW_S = 20.0
"""Seconds between two renewals of a claim."""
EXPIRES_S = 120.0
"""Seconds without a renewal after which an owner on another machine counts as dead."""

_held: set[str] = set()  # tokens of the claims that this process holds, or is about to

_PREFIX = "claim-"
_CLAIM = re.compile(rf"{_PREFIX}([0-9]+)[.]json")


@dataclass(frozen=True)
class Owner:
    """The process that writes into an output folder."""

    token: str
    """Names host, process and run in 32 hex digits; part of the names of half-written files."""
    command: str
    host: str
    host_id: str
    """Equal only for processes that see one another's process ids."""
    process: int
    since: str
    """Start of the run, ISO 8601, by the clock of its machine; for people."""


@dataclass(frozen=True)
class Claim:
    """A claim that this run, or the run that this worker works for, holds."""

    output_uri: str
    number: int
    token: str
    dead_tokens: tuple[str, ...] = ()
    """Tokens of owners that had died when this claim was made."""

    def is_over(self, token: str) -> bool:
        """Whether the owner of a half-written file writes no more: this run, or one that ended."""
        return token in (self.token, *self.dead_tokens) or _has_ended(token)

    def require_owner(self) -> None:
        """Check that no other run has taken over.

        Raises:
            OutputInUseError: one has, so nothing more may be written.
        """
        owner = _read(self.output_uri, self.number)
        is_taken_over = storage.exists(_uri(self.output_uri, self.number + 1))
        if owner is None or owner.token != self.token or is_taken_over:
            raise OutputInUseError(
                f"{self.output_uri}: another command has taken over this folder, because this one "
                f"gave no sign of life for {EXPIRES_S:.0f} s; this one stops"
            )


@contextlib.contextmanager
def claimed(output_uri: str, command: str) -> Iterator[Claim]:
    """Hold the claim on an output folder, renewed by a thread, until the block ends.

    Files that this process writes meanwhile are written in the claim's name.

    Raises:
        OutputInUseError: another run holds it.
    """
    me = _this_process(command)
    former_owner = storage.owner()
    _held.add(me.token)
    storage.set_owner(me.token)
    try:
        claim = _take(output_uri, me)
    except BaseException:
        _held.discard(me.token)
        storage.set_owner(former_owner)
        raise
    if claim.dead_tokens:
        storage.delete_half_written(output_uri, claim.is_over)  # their names are known only now
    stopped = threading.Event()
    renewing = threading.Thread(target=_renew, args=(claim, stopped), daemon=True)
    renewing.start()
    try:
        yield claim
    finally:
        stopped.set()
        renewing.join()
        _held.discard(claim.token)
        _release(claim)
        storage.set_owner(former_owner)


def _take(output_uri: str, me: Owner) -> Claim:
    judged: dict[int, str] = {}  # number -> token of an owner that is dead
    for number in _numbers(output_uri):
        owner = _read(output_uri, number)
        if owner is None:  # released in this moment
            continue
        if not _is_dead(output_uri, number, owner):
            raise _in_use(output_uri, owner)
        judged[number] = owner.token
    number = max(judged, default=-1) + 1
    content = json.dumps(asdict(me), indent=2).encode()
    if not storage.create_bytes(_uri(output_uri, number), content):
        raise _in_use(output_uri, _read(output_uri, number))
    return _confirmed(output_uri, Claim(output_uri, number, me.token, tuple(judged.values())))


def _confirmed(output_uri: str, claim: Claim) -> Claim:
    """The claim, unless a run that began in the same moment has claimed another number."""
    for number in _numbers(output_uri):
        owner = None if number == claim.number else _read(output_uri, number)
        if owner is not None and owner.token not in claim.dead_tokens:
            storage.delete_file(_uri(output_uri, claim.number))
            raise _in_use(output_uri, owner)
    for number in _numbers(output_uri):
        if number < claim.number - 1:
            storage.delete_file(_uri(output_uri, number))
    return claim


def _release(claim: Claim) -> None:
    """Delete the claim and those of the dead before it; a store that fails now is no error."""
    try:
        for number in _numbers(claim.output_uri):
            owner = _read(claim.output_uri, number)
            if owner is not None and owner.token in (claim.token, *claim.dead_tokens):
                storage.delete_file(_uri(claim.output_uri, number))
    except OSError as error:
        logger.debug("%s: claim not released: %s", claim.output_uri, error)


def _renew(claim: Claim, stopped: threading.Event) -> None:
    """Touch the claim again and again: its time in the store is the sign of life.

    A claim that was taken over is not renewed: `require_owner` tells the run.
    """
    uri, next_uri = (_uri(claim.output_uri, claim.number + k) for k in (0, 1))
    while not stopped.wait(RENEW_S):
        try:
            if storage.exists(next_uri) or not storage.touch(uri):
                return
        except OSError as error:  # the next renewal may succeed
            logger.debug("%s: not renewed: %s", uri, error)


def _is_dead(output_uri: str, number: int, owner: Owner) -> bool:
    if owner.host_id == _host_id() and _has_ended(owner.token):
        return True
    try:
        renewed = storage.modified_at(_uri(output_uri, number))
    except FileNotFoundError:  # released in this moment
        return False
    now = storage.now_at(storage.join(output_uri, WORK_FOLDER))
    return (now - renewed).total_seconds() > EXPIRES_S


def _in_use(output_uri: str, owner: Owner | None) -> OutputInUseError:
    if owner is None:
        return OutputInUseError(f"{output_uri}: another command began here in this moment")
    return OutputInUseError(
        f"{output_uri}: {owner.command} (process {owner.process} on {owner.host}) has been writing "
        f"here since {owner.since}; wait for it, or stop it and run this command again "
        f"(if that machine is gone: {EXPIRES_S / 60:.0f} minutes after its last sign of life)"
    )


def end_claims_below(folder_uri: str) -> None:
    """Delete all claims below a folder, which runs hold that worked for an owner that is dead.

    Only for whoever holds the claim on the folder itself. A run that lives all the same finds its
    claim gone, and stops before it writes.
    """
    if storage.is_folder(folder_uri):
        for uri in list(storage.list_files(folder_uri)):
            folder, _, name = uri.rpartition("/")
            if folder.endswith(f"/{WORK_FOLDER}") and _CLAIM.fullmatch(name):
                storage.delete_file(uri)


def is_claim(uri: str) -> bool:
    """Whether a file below an output folder is a claim, or becomes or became one."""
    folder, _, name = uri.rpartition("/")
    is_work = folder.endswith(f"/{WORK_FOLDER}")
    return is_work and bool(_CLAIM.fullmatch(name) or storage.HALF_WRITTEN.fullmatch(name))


def _numbers(output_uri: str) -> list[int]:
    """The numbers of the claims in a folder, ascending."""
    folder = storage.join(output_uri, WORK_FOLDER)
    uris = storage.list_files(folder) if storage.is_folder(folder) else ()
    names = [uri.rpartition("/")[2] for uri in uris]
    return sorted(int(found[1]) for name in names if (found := _CLAIM.fullmatch(name)))


def _uri(output_uri: str, number: int) -> str:
    return storage.join(output_uri, WORK_FOLDER, f"{_PREFIX}{number:05d}.json")


def _read(output_uri: str, number: int) -> Owner | None:
    """The owner that a claim names; None if the claim is gone.

    A claim that is not whole may be in the making, or was cut off by a loss of power: it names
    nobody, and counts as an owner elsewhere, who is dead when nothing happens for `EXPIRES_S`.
    """
    uri = _uri(output_uri, number)
    try:
        values: dict[str, Any] = json.loads(storage.read_bytes(uri))
        return Owner(**values)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError):
        return Owner(f"{number:032x}", "a command", "an unknown machine", "", 0, "an unknown time")


def _this_process(command: str) -> Owner:
    return Owner(
        token=_new_token(),
        command=command,
        host=socket.gethostname(),
        host_id=_host_id(),
        process=os.getpid(),
        since=datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
    )


# -- tokens: 8 hex digits of the host, 8 of the process id, 12 of its start, 4 of the run ----------


def _new_token() -> str:
    process = os.getpid()
    return f"{_host_code()}{process:08x}{_process_start(process) or 0:012x}{uuid.uuid4().hex[:4]}"


def _has_ended(token: str) -> bool:
    """Whether a token names a process of this host that is gone, or a run of this process."""
    if token[:8] != _host_code():
        return False
    process, start = int(token[8:16], 16), int(token[16:28], 16)
    if process == os.getpid():  # an earlier run of it, whose claim it could not delete
        return token not in _held
    found = _process_start(process)
    if found is not None:
        return found != start
    try:  # there is no /proc, or it hides the processes of other users
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


def _host_code() -> str:
    return hashlib.sha256(_host_id().encode()).hexdigest()[:8]


@functools.cache
def _host_id() -> str:
    """The boot of this machine, and the namespace of its process ids: a container has its own."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return f"{file.read().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # no Linux
        return socket.gethostname()


def _process_start(process: int) -> int | None:
    """When a process began, in ticks since the boot; 0 if it has ended, None if that is unknown."""
    try:
        with open(f"/proc/{process}/stat", encoding="utf-8", errors="replace") as file:
            state, *values = file.read().rpartition(")")[2].split()
    except OSError:
        return None
    return 0 if state in ("Z", "X") else int(values[18])
