"""The events of `ctc aggregate` that are not those of the predictions, and what was found."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ctc_ray.columns.arrays import TEXT
from ctc_ray.columns.event_runs import run_starts
from ctc_ray.columns.factorize import factorize
from ctc_ray.config.aggregation import AggregateConfig
from ctc_ray.errors import ConfigError
from ctc_ray.files import parquet
from ctc_ray.inventory.findings import Findings
from ctc_ray.inventory.sources.gap_events import group_by_gap
from ctc_ray.predictions.regroup import (
    Regrouped,
    group_by_values,
    match_images,
    rows_of,
    without_repeated,
)
from ctc_ray.runs.manifest import read_manifest
from ctc_ray.schemas import META_PREFIX, meta_column
from ctc_ray.stages.aggregate.images import ImageFiles

_OF_IMAGE = ("image_uri", "location_id", "deployment_id", "captured_at")
_DAY, _LOCATION, _DEPLOYMENT = "day", "location", "deployment"
_COLUMNS = {_LOCATION: "location_id", _DEPLOYMENT: "deployment_id", _DAY: "captured_at"}


@dataclass(frozen=True)
class NewEvents:
    """The images of other events than those of the predictions."""

    images: Regrouped
    meta: Sequence[str]
    """Metadata fields of the new events."""
    facts: Mapping[str, int] = field(default_factory=dict)
    """What people should know: title -> number of images."""
    findings: Findings = field(default_factory=Findings)


def require_fields(config: AggregateConfig, meta: Sequence[str]) -> None:
    """Check that the predictions have the fields of --by.

    Args:
        meta: metadata fields of the predictions.

    Raises:
        ConfigError: they have not.
    """
    known = [*_COLUMNS, *map(meta_column, meta)]
    unknown = [name for name in config.by if name not in known]
    if unknown:
        raise ConfigError(
            f"--by: {config.predictions_uri} has no field {unknown[0]!r}; fields are "
            f"{', '.join(known)}"
        )


def find_new_events(
    config: AggregateConfig, files: ImageFiles, meta: Sequence[str]
) -> NewEvents | None:
    """The events that the configuration asks for; None: those of the predictions.

    Raises:
        ConfigError: the predictions do not say what the events are made of.
    """
    if config.events_uri is not None:
        return _of_inventory(config, config.events_uri, files)
    if config.event_gap_s is not None:
        return _by_gap(config, config.event_gap_s, files, meta)
    if config.by:
        return _by_values(config, files, meta)
    return None


def _by_gap(
    config: AggregateConfig, gap_s: float, files: ImageFiles, meta: Sequence[str]
) -> NewEvents:
    images = files.read_at_once(_OF_IMAGE)
    _require_known(config, "--event-gap-s", images, "captured_at", "time")
    uris, times = _whole(images["image_uri"]), images["captured_at"].combine_chunks()
    grouped = group_by_gap(uris, times, _cameras(images), gap_s=gap_s)
    starts_E = run_starts(grouped.event_ids)
    lengths_E = np.diff(starts_E, append=len(grouped.order))
    events = np.repeat(np.arange(len(starts_E), dtype=np.int32), lengths_E)
    ids = grouped.event_ids.take(pa.array(starts_E)).cast(pa.string())
    found = without_repeated(grouped.order, events, ids, uris)
    facts = {
        "images without a time, each its own event": times.null_count,
        "images left out as repeated": found.n_repeated,
    }
    return NewEvents(found, meta, facts)


def _cameras(images: pa.Table) -> pa.Array:
    """The camera of each image: a deployment at its location, or what is known of them."""
    both = [_whole(images[name]) for name in ("location_id", "deployment_id")]
    joined = pc.binary_join_element_wise(*both, pa.scalar("\x1f", TEXT))
    return pc.coalesce(joined, both[1], both[0])


def _by_values(config: AggregateConfig, files: ImageFiles, meta: Sequence[str]) -> NewEvents:
    own = [_COLUMNS.get(name, name) for name in config.by]
    images = files.read_at_once(list(dict.fromkeys([*own, "image_uri", "captured_at"])))
    values, facts = {}, {}
    for name, column in zip(config.by, own, strict=True):
        _require_known(config, f"--by {name}", images, column, "time" if name == _DAY else name)
        known = images[column]
        values[name] = _days(known) if name == _DAY else _whole(known).dictionary_encode()
        facts[f"images of unknown {name.removeprefix(META_PREFIX)}"] = known.null_count
    times = images["captured_at"].combine_chunks()
    found = group_by_values(values, times, _whole(images["image_uri"]))
    return NewEvents(found, meta, facts | {"images left out as repeated": found.n_repeated})


def _days(times: pa.ChunkedArray) -> pa.Array:
    """The day of each time as text, e.g. 2021-04-11; dictionary-encoded."""
    encoded = times.cast(pa.date32()).combine_chunks().dictionary_encode()
    return pa.DictionaryArray.from_arrays(encoded.indices, encoded.dictionary.cast(pa.string()))


def _require_known(
    config: AggregateConfig, option: str, images: pa.Table, column: str, what: str
) -> None:
    if images[column].null_count == images.num_rows:
        raise ConfigError(f"{option}: no image of {config.predictions_uri} has a {what}")


def _of_inventory(config: AggregateConfig, events_uri: str, files: ImageFiles) -> NewEvents:
    meta = read_manifest(events_uri, "inventory").meta
    kept = ["location_id", "deployment_id", "captured_at", *map(meta_column, meta)]
    keys = ["image_id", "image_uri"]
    named = parquet.read_folder(events_uri, [*keys, "capture_event_id", *kept])
    predicted = files.read_at_once(keys)
    rows = match_images(named, predicted)
    if not (rows >= 0).any():
        raise ConfigError(
            f"--events-uri: no image of {events_uri} is in {config.predictions_uri}; the first are "
            f"{_first(named)} and {_first(predicted)}"
        )
    missing = named["image_uri"].filter(pa.array(rows < 0))
    is_used = np.zeros(predicted.num_rows, bool)
    is_used[rows[rows >= 0]] = True
    others = predicted["image_uri"].filter(pa.array(~is_used))
    others = others.filter(pa.array(rows_of(others, named["image_uri"]) < 0))
    findings = Findings().listed("images_without_prediction", missing)
    findings = findings.listed("predictions_of_other_images", others)
    codes, ids = factorize(named["capture_event_id"], sort=True)
    order = np.argsort(codes, kind="stable")
    columns = {name: named[name].take(pa.array(order)).combine_chunks() for name in kept}
    images = Regrouped(rows[order], codes[order], ids.cast(pa.string()), columns)
    facts = {
        "images of the inventory without a prediction": len(missing),
        "predicted images that the inventory does not name": len(others),
    }
    return NewEvents(images, meta, facts, findings)


def _first(images: pa.Table) -> str:
    return str(images["image_uri"][0].as_py()) if images.num_rows else "none"


def _whole(column: pa.ChunkedArray) -> pa.Array:
    return column.cast(TEXT).combine_chunks()
