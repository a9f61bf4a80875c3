"""On a cluster, Ray Data brings the images of an event together: a groupby by hash."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import ray.data

from ctc_ray.console import logs
from ctc_ray.files import storage
from ctc_ray.runs.claim import Claim
from ctc_ray.runs.units import Unit
from ctc_ray.stages.aggregate.plan import PART
from ctc_ray.stages.aggregate.work import MovedEvents, RegroupedEvents
from ctc_ray.stages.cluster.connect import connect
from ctc_ray.stages.cluster.errors import ray_work

_MOST_PARTITIONS = 200

Row = dict[str, Any]


@dataclass(frozen=True)
class RayShuffle:
    """Both steps of the work of other events, and the shuffle between them; can be pickled."""

    claim: Claim
    first: RegroupedEvents
    second: MovedEvents

    def run(self, units: Sequence[Unit], parts: Sequence[Unit]) -> Iterator[int]:
        """Answer for the events that are whole in a unit, and for these parts of the others.

        Yields:
            The images of each part that is done.
        """
        with ray_work():
            connect()
            wanted = {unit.index: unit for unit in parts}

            def moved(rows: pa.Table) -> pa.Table:
                tables = [self._moved(Unit(**row), wanted) for row in rows.to_pylist()]
                return pa.concat_tables(tables)

            def joined(rows: pa.Table) -> pa.Table:
                return self._joined(rows, wanted)

            dataset = ray.data.from_items(
                [asdict(unit) for unit in units], override_num_blocks=len(units)
            )
            results = (
                dataset.map_batches(moved, batch_size=1, batch_format="pyarrow")
                .groupby(PART, num_partitions=min(len(parts), _MOST_PARTITIONS))
                .map_groups(joined, batch_format="pyarrow")
            )
            for row in results.iter_rows():
                yield row["n_rows"]

    def _moved(self, unit: Unit, wanted: dict[int, Unit]) -> pa.Table:
        logs.set_up()
        files, moved = self.first.divided(unit, self.first.read(unit))
        self._commit(files)
        return moved.filter(pc.is_in(moved[PART], pa.array(list(wanted), pa.int32())))

    def _joined(self, rows: pa.Table, wanted: dict[int, Unit]) -> pa.Table:
        logs.set_up()
        output = self.second.output(wanted[rows[PART][0].as_py()], rows)
        self._commit(dict(output.files))
        return pa.table({"n_rows": [output.n_rows]})

    def _commit(self, files: dict[str, pa.Buffer]) -> None:
        self.claim.require_owner()
        storage.set_owner(self.claim.token)
        for name, content in files.items():
            uri = storage.join(self.first.aggregator.config.output_uri, name)
            storage.write_bytes(uri, content)
