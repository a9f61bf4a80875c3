"""Event ids that their source has used for several events."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def apart_by_deployment(
    named: Sequence[tuple[pa.Array, pa.Array]],
) -> tuple[list[pa.Array], pa.Array]:
    """The event ids, those of several deployments behind the deployment of their row; and these.

    An event happens at one camera: where a source counts events anew at each, equal ids of two
    deployments are two events. A row without a deployment keeps the id that it has.

    Args:
        named: event ids and deployments of each table; null is not known.
    """
    rows = pa.table(
        {
            "event": pa.concat_arrays([events for events, _ in named]),
            "deployment": pa.concat_arrays([deployments for _, deployments in named]),
        }
    )
    pairs = rows.drop_null().group_by(["event", "deployment"]).aggregate([])
    counted = pc.value_counts(pairs["event"].combine_chunks())
    is_repeated = np.asarray(pc.struct_field(counted, "counts")) > 1
    repeated = pc.struct_field(counted, "values").filter(pa.array(is_repeated))
    return [_apart(events, deployments, repeated) for events, deployments in named], repeated


def _apart(events: pa.Array, deployments: pa.Array, repeated: pa.Array) -> pa.Array:
    both = pc.binary_join_element_wise(deployments, events, pa.scalar(" ", events.type))
    is_apart = pc.and_(pc.is_in(events, value_set=repeated), deployments.is_valid())
    return pc.if_else(is_apart, both, events)
