"""Whether the capture events of a dataset fit into stacks, looked up before a training begins."""

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from ctc_ray.columns.event_runs import IMAGES_PER_STACK
from ctc_ray.errors import ConfigError
from ctc_ray.files.row_groups import RowGroupReader
from ctc_ray.runs.manifest import Manifest
from ctc_ray.training.plans import RowGroup, list_row_groups

_READ_THREADS = 8


def require_short_events(dataset_uri: str, dataset: Manifest, splits: Sequence[str]) -> None:
    """Check that no event of the splits has more usable images than a stack holds.

    Only ids and failures are read.

    Raises:
        ConfigError: an event has more.
    """
    groups = [
        group
        for group in list_row_groups(dataset_uri, dataset.shards, *splits)
        if group.n_images > group.n_events
    ]
    with ThreadPoolExecutor(_READ_THREADS) as pool:
        for event_id, n_images in pool.map(partial(_longest, RowGroupReader()), groups):
            if n_images > IMAGES_PER_STACK:
                raise ConfigError(
                    f"{dataset_uri}: capture event {event_id!r} has {n_images} usable images, a "
                    f"stack holds {IMAGES_PER_STACK}; --stack-first-3 takes the first three"
                )


def _longest(reader: RowGroupReader, group: RowGroup) -> tuple[str, int]:
    """The event with most usable images, and their number."""
    rows = reader.read(group.uri, group.index, ["capture_event_id", "failure"])
    failures = rows["failure"].to_pylist()
    ids = rows["capture_event_id"].to_pylist()
    usable = (id_ for id_, failure in zip(ids, failures, strict=True) if failure is None)
    return Counter(usable).most_common(1)[0]
