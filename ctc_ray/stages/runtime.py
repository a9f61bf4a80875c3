"""Ray, as all stages use it: connecting, quiet logs, and running units of work.

Every result is committed as one file per unit; what Ray hands back to the driver are counts.
"""

import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any, Self

import pyarrow as pa
import pyarrow.compute as pc
import ray
import ray.data
from ray._private.resource_and_label_spec import ResourceAndLabelSpec
from ray.data._internal.logging import configure_logging

from ctc_ray.console import logs
from ctc_ray.console.progress import Progress
from ctc_ray.errors import ConfigError, CtcError, TooManyFailuresError
from ctc_ray.files import parquet, storage
from ctc_ray.runs.units import Unit
from ctc_ray.schemas import FAILURES_FILE, Failure, failure_schema

logger = logging.getLogger(__name__)

_MAX_BLOCKS = 4096  # of a pipeline over units; more only slow its start


def connect() -> None:
    """Connect to the cluster of this job, or start a local Ray; nothing happens if that is done.

    Ray's own lines go to files of its session, not to the user's terminal.
    """
    if not ray.is_initialized():
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # asks for it in a warning
        os.environ.setdefault("RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS", "0")
        os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # the new one cannot be switched off
        ray.init(
            logging_level=logging.ERROR,
            log_to_driver=False,
            # a trial that Ray Tune stops frees its CPUs only where the State API can be asked
            include_dashboard=_is_local() or None,
        )
    _quiet()


def _is_local() -> bool:
    return os.environ.get("RAY_ADDRESS", "local") == "local"


def _quiet() -> None:
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    configure_logging()  # now, so that what follows is not undone by the first dataset
    for name in ("ray", "ray.data", "ray.train", "ray.tune"):
        for handler in logging.getLogger(name).handlers:
            if isinstance(handler, logging.StreamHandler):
                handler.setLevel(logging.ERROR)


def require(what: str, *, cpus: float, gpus: float = 0) -> None:
    """Check that the CPUs and GPUs are there that work needs all at once, before it is begun.

    Ray itself waits without end. A cluster may still grow: there a message tells what is lacking.

    Args:
        what: the options that ask for them, as the user may change them.

    Raises:
        ConfigError: this machine has fewer.
    """
    can_grow = not _is_local()
    if can_grow:
        connect()
    there = _resources()
    lacking = [
        f"{need:g} {name}s, {{}} {there.get(name, 0):g}"
        for name, need in (("CPU", cpus), ("GPU", gpus))
        if need > there.get(name, 0)
    ]
    if lacking and can_grow:
        text = ", ".join(lacking).format(*["the cluster now has"] * len(lacking))
        logger.warning("%s: needs %s; waiting until its autoscaler has added nodes", what, text)
    elif lacking:
        text = ", ".join(lacking).format(*["this machine has"] * len(lacking))
        raise ConfigError(f"{what}: needs {text}")


def _resources() -> dict[str, float]:
    """CPUs and GPUs of the cluster, or those that a local Ray will find when it is started."""
    if ray.is_initialized():
        resources: dict[str, float] = ray.cluster_resources()
        return resources
    machine = _machine()
    return {"CPU": machine.num_cpus or 0, "GPU": machine.num_gpus or 0}


def _machine() -> ResourceAndLabelSpec:
    machine = ResourceAndLabelSpec()
    machine.resolve(is_head=True)
    return machine


def machine_cpus() -> int:
    """CPUs of this machine that a local Ray uses, or would use; of a container, its own."""
    return max(1, int(_machine().num_cpus or 1))


def n_cpus() -> int:
    """CPUs of the cluster as it is now, at least 1."""
    return max(1, int(ray.cluster_resources().get("CPU", 1)))


def dataset_of_units(units: list[Unit]) -> ray.data.Dataset:
    """One row per unit, one task per unit as long as there are not very many."""
    rows = [asdict(unit) | {"number": number} for number, unit in enumerate(units)]
    return ray.data.from_items(rows, override_num_blocks=min(len(rows), _MAX_BLOCKS))


def run_units(
    units: list[Unit], work: Callable[[Unit], dict[str, int]], *, progress: Progress
) -> None:
    """Do every unit in a task of its own; `work` commits its result, returns n_rows, n_failed."""
    if not units:
        return
    connect()

    def task(row: dict[str, Any]) -> dict[str, Any]:
        logs.set_up()
        row.pop("number")
        try:
            return {**work(Unit(**row)), "error": ""}
        except (CtcError, OSError) as error:
            return {"n_rows": 0, "n_failed": 0, "error": in_words(row["name"], error)}

    for done in dataset_of_units(units).map(task, num_cpus=1).iter_rows():
        raise_if(done["error"])
        progress.add(done["n_rows"], done["n_failed"])


def in_words(unit_name: str, error: Exception) -> str:
    """An error for the user as a value of a row: what Ray raises tells it as a traceback."""
    return f"{unit_name}: {' '.join(str(error).split())}"


def raise_if(error: str) -> None:
    """Stop because of what `in_words` has told, if it has told anything.

    Raises:
        CtcError: with the way out.
    """
    if error:
        raise CtcError(f"{error} (what is done is kept; the same command goes on where it was)")


class Listener:
    """Messages of far workers, logged on the driver as they come: `with Listener(logger) as …`."""

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


@dataclass(frozen=True)
class Footer:
    """What the footer of a unit's file says."""

    name: str
    n_rows: int
    n_failed: int
    metadata: dict[str, str]


def read_footers(output_uri: str, units: list[Unit]) -> list[Footer]:
    """The footers of all units' files, in their order: what lies there, not what tasks reported."""

    def read(unit: Unit) -> Footer:
        with parquet.open_parquet(storage.join(output_uri, unit.name)) as file:
            groups = [file.metadata.row_group(i) for i in range(file.num_row_groups)]
            failed = sum(group.num_rows - _n_null_failures(group) for group in groups)
            metadata = {
                k.decode(): v.decode() for k, v in (file.schema_arrow.metadata or {}).items()
            }
            return Footer(unit.name, file.metadata.num_rows, failed, metadata)

    with ThreadPoolExecutor(16) as pool:
        return list(pool.map(read, units))


def _n_null_failures(row_group: Any) -> int:
    columns = (row_group.column(place) for place in range(row_group.num_columns))
    column = next(column for column in columns if column.path_in_schema == "failure")
    return int(column.statistics.null_count)


def write_failures(output_uri: str, footers: list[Footer]) -> dict[str, int]:
    """Write the failures table from the units' files; the count of each failure code."""
    schema = failure_schema()
    parts = [schema.empty_table()]
    for footer in footers:
        if footer.n_failed:
            rows = parquet.read_table(storage.join(output_uri, footer.name), columns=schema.names)
            parts.append(rows.filter(pc.is_valid(rows["failure"])).cast(schema))
    failures = pa.concat_tables(parts)
    parquet.write_table(storage.join(output_uri, FAILURES_FILE), failures)
    counts = {
        row["values"]: row["counts"] for row in pc.value_counts(failures["failure"]).to_pylist()
    }
    return {code.value: counts[code.value] for code in Failure if code.value in counts}


def check_failures(output_uri: str, failures: dict[str, int], n_rows: int, allowed: float) -> None:
    """Stop if too many rows failed.

    Raises:
        TooManyFailuresError: names the failures table and the way out.
    """
    n_failed = sum(failures.values())
    if n_rows and n_failed / n_rows > allowed:
        raise TooManyFailuresError(
            f"{n_failed:,} of {n_rows:,} images failed ({logs.counted(failures)}), more than "
            f"max_failure_fraction {allowed:g}; see {storage.join(output_uri, FAILURES_FILE)}. "
            "What is done is kept: run again with a larger --max-failure-fraction to finish, or "
            "with --overwrite to read all images again"
        )


def read_ahead(uris: list[str], n_threads: int | None) -> Iterator[bytes | Failure]:
    """The content of each file in order, read by threads a little ahead of the consumer.

    Memory holds at most `n_threads` files that are not yet consumed, e.g. 16 of 5 MB.

    Args:
        n_threads: None: 4, or 16 where an object store is read.

    Raises:
        ConnectionError: as in `fetch`.
    """
    n_threads = n_threads or (16 if any(map(storage.is_remote, uris)) else 4)
    with ThreadPoolExecutor(n_threads) as pool:
        waiting = deque(pool.submit(fetch, uri) for uri in uris[:n_threads])
        for uri in [*uris[n_threads:], *[None] * len(waiting)]:
            content = waiting.popleft().result()
            if uri is not None:
                waiting.append(pool.submit(fetch, uri))
            yield content


def fetch(uri: str) -> bytes | Failure:
    """The content of a file, or why there is none.

    Raises:
        ConnectionError: an object store could not be asked, so nothing is known about the file.
    """
    try:
        return storage.read_bytes(uri)
    except FileNotFoundError:
        return Failure.MISSING
    except ConnectionError:  # a failure would be committed for ever
        raise
    except (OSError, ConfigError):  # ConfigError: a URI of a kind that is not read, e.g. https
        return Failure.UNREADABLE
