"""Units of work as Ray tasks."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import ray.data

from ctc_ray.console import logs
from ctc_ray.console.progress import Progress
from ctc_ray.errors import CtcError
from ctc_ray.runs.executor import error_to_text, raise_unit_error
from ctc_ray.runs.units import Unit
from ctc_ray.stages.cluster.connect import connect

_MAX_BLOCKS = 4096  # of a pipeline over units; more only slow its start


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
            return {"n_rows": 0, "n_failed": 0, "error": error_to_text(row["name"], error)}

    for done in dataset_of_units(units).map(task, num_cpus=1).iter_rows():
        raise_unit_error(done["error"])
        progress.add(done["n_rows"], done["n_failed"])
