"""A COCO Camera Traps or plain COCO file as an inventory; N images, A annotations."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ctc_ray.columns.factorize import factorize
from ctc_ray.errors import SchemaError
from ctc_ray.inventory.clock_corrections import NO_CORRECTIONS, ClockCorrections
from ctc_ray.inventory.events.assemble import TEXT, Inventory, SourceRows, assemble
from ctc_ray.inventory.findings import Findings, unreadable_times
from ctc_ray.inventory.sources.blanks import are_named_blank, blanks_beside_labels
from ctc_ray.inventory.sources.boxes import Ints, box_lists, is_beyond_image, number, parse_boxes
from ctc_ray.inventory.sources.camtrap_events import prefix_repeated_event_ids
from ctc_ray.inventory.sources.counts import whole_numbers
from ctc_ray.inventory.sources.gap_events import divide_far_apart, group_by_gap, in_camera_order_by
from ctc_ray.inventory.sources.json_file import load_json, objects, text_array, text_column
from ctc_ray.inventory.sources.paths import portable_paths
from ctc_ray.inventory.sources.times import parse_times

_MISSING_COUNT = "-1"
_SIZE = ("width", "height")

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class _Images:
    rows: Rows
    ids: pa.Array
    uris: pa.Array
    findings: Findings


@dataclass(frozen=True)
class _Annotations:
    rows: Rows
    images: Ints
    """Index of each annotation's image."""
    names: pa.Array
    """Name of each annotation's category."""
    findings: Findings


def read_coco(
    uri: str,
    *,
    gap_s: float,
    max_images: int | None = None,
    corrections: ClockCorrections = NO_CORRECTIONS,
    strip_prefix: str | None = None,
) -> Inventory:
    """The inventory of a COCO JSON; the heads are `species`, and `count` if any annotation has one.

    An event is a `seq_id` at a location; where neighbouring images of it are an hour apart, the
    later ones are another event, because some cameras count from 1 again. Its images are sorted by
    `frame_num`, then by time, then by file name. Images without a `seq_id` become events by gaps in
    time at each location. Labels are the names of the categories, verbatim; the count 1.0 is 1. An
    image without an annotation has no label, and one without a box a null list of boxes. A file
    without annotations, such as a test set, is an inventory without labels.

    Left out, and listed as findings: annotations of unknown images or categories, and annotations
    that call a frame empty whose event has another label. A sequence whose length differs from
    `seq_num_frames` is a finding too.

    Args:
        gap_s: see `group_by_gap`.
        max_images: see `group_by_gap`.
        strip_prefix: see `portable_paths`.
        corrections: applied to the times first.

    Raises:
        ConfigError: the file does not exist, or the paths of its images cannot be paths here.
        SchemaError: the file is not a COCO JSON, or no image has an id and a file name.
    """
    whole = {key: value for key, value in load_json(uri).items() if value is not None}
    images = _images(objects(whole, "images", where=uri), where=uri)
    paths, of_paths = portable_paths(images.uris, where=uri, strip_prefix=strip_prefix)
    images = replace(images, uris=paths, findings=images.findings.plus(of_paths))
    annotations = _annotations(
        objects({"annotations": [], **whole}, "annotations", where=uri),
        _names(objects({"categories": [], **whole}, "categories", where=uri), where=uri),
        images,
        where=uri,
    )
    del whole
    boxes, found = _boxes(annotations, images)
    locations = text_column(images.rows, "location", where=uri)
    times, broken = _times(images, where=uri)
    corrected = corrections.find(times, None, locations)
    times = corrected.of(times)
    corrupt = images.uris.filter(pa.array([row.get("corrupt") is True for row in images.rows]))
    found = images.findings.plus(annotations.findings).plus(found)
    found = found.listed("corrupt_images", corrupt).plus(broken).plus(corrected.findings)
    sequences = text_column(images.rows, "seq_id", where=uri)
    (sequences,), repeated = prefix_repeated_event_ids([(sequences, locations)])
    sequences, torn = divide_far_apart(sequences, times)
    found = found.listed("sequences_of_several_locations", repeated)
    found = found.listed("sequences_far_apart", torn)
    found = found.plus(_of_other_length(images.rows, sequences))
    dated = pa.table({"uri": images.uris, "time": times, "location": locations})
    order, event_ids = _events(images.rows, sequences, dated, gap_s=gap_s, max_images=max_images)
    rank_N = np.empty(len(order), np.int64)
    rank_N[order] = np.arange(len(order))
    chosen = pa.array(order)
    rows = SourceRows(
        event_ids=event_ids,
        image_rows=np.arange(len(order)),
        image_uris=images.uris.take(chosen),
        observation_rows=rank_N[annotations.images],
        labels=_labels(annotations, where=uri),
        location_ids=locations.take(chosen),
        captured_at=times.take(chosen),
        boxes=None if boxes is None else boxes.take(chosen),
    )
    rows, n_blank = _without_blanks(rows)
    return assemble(rows, where=uri, findings=found.counted(blank_beside_labelled=n_blank))


def _images(rows: Rows, *, where: str) -> _Images:
    """The images that have an id and a file name, each id once."""
    ids, uris = (text_column(rows, key, where=where) for key in ("id", "file_name"))
    named = pc.and_(ids.is_valid(), uris.is_valid()).to_numpy(zero_copy_only=False)
    codes = ids.dictionary_encode().indices.fill_null(-1).to_numpy()
    first = np.zeros(len(rows), bool)
    first[np.unique(codes[named], return_index=True)[1]] = True
    kept = named.copy()
    kept[named] = first[: named.sum()]
    if not kept.any():
        raise SchemaError(f"{where}: none of {len(rows)} images has both id and file_name")
    lines = pa.array([f"images[{index}]" for index in np.flatnonzero(~named)], TEXT)
    repeated = pa.array(named & ~kept)
    found = Findings().listed("images_without_id_or_name", lines)
    found = found.listed("duplicate_image_ids", ids.filter(repeated), uris.filter(repeated))
    chosen = np.flatnonzero(kept)
    taken = pa.array(chosen)
    return _Images([rows[index] for index in chosen], ids.take(taken), uris.take(taken), found)


def _names(categories: Rows, *, where: str) -> Mapping[str, str]:
    """Category id -> name."""
    ids, names = (text_column(categories, key, where=where).to_pylist() for key in ("id", "name"))
    for index, (category_id, name) in enumerate(zip(ids, names, strict=True)):
        if category_id is None or name is None:
            raise SchemaError(f"{where}: categories[{index}] must have an id and a name")
    twice = [own for index, own in enumerate(ids) if own in ids[:index]]
    if twice:
        raise SchemaError(f"{where}: two categories have the id {twice[0]}; ids must be unique")
    return dict(zip(ids, names, strict=True))


def _annotations(
    rows: Rows, names: Mapping[str, str], images: _Images, *, where: str
) -> _Annotations:
    """The annotations whose image and category exist."""
    of_image = text_column(rows, "image_id", where=where)
    indices = pc.index_in(of_image, value_set=images.ids, skip_nulls=True)
    categories = text_column(rows, "category_id", where=where)
    codes = pc.index_in(categories, value_set=pa.array(list(names), TEXT), skip_nulls=True)
    known_image, known_category = (v.is_valid().to_numpy(zero_copy_only=False) for v in
                                   (indices, codes))  # fmt: skip
    lines = pa.array([f"annotations[{index}]" for index in range(len(rows))], TEXT)
    found = Findings()
    for kind, values, known in (
        ("annotations_of_unknown_images", of_image, known_image),
        ("annotations_of_unknown_categories", categories, known_category),
    ):
        wrong = pa.array(~known)
        found = found.listed(kind, lines.filter(wrong), values.filter(wrong))
    chosen = np.flatnonzero(known_image & known_category)
    taken = pa.array(chosen)
    return _Annotations(
        [rows[index] for index in chosen],
        indices.take(taken).to_numpy().astype(np.int64),
        pa.array(list(names.values()), TEXT).take(codes.take(taken)),
        found,
    )


def _boxes(annotations: _Annotations, images: _Images) -> tuple[pa.Array | None, Findings]:
    """The list of boxes of each image, as shares of its size; None if the file has no box."""
    given = [(row.get("bbox"), row.get("bbox_relative")) for row in annotations.rows]
    in_pixels = parse_boxes([pixels for pixels, _ in given])
    relative = parse_boxes([share for _, share in given])
    sizes = _sizes(images.rows)[annotations.images]
    scaled = in_pixels / np.concatenate([sizes, sizes], axis=1)
    found = np.where(np.isnan(relative), scaled, relative)
    is_box = ~np.isnan(found).any(axis=1)
    is_given = np.array([any(one) for one in given], bool)
    without_size = ~is_box & ~np.isnan(in_pixels).any(axis=1)
    uris = images.uris.take(pa.array(annotations.images))
    findings = (
        Findings()
        .listed("boxes_without_image_size", uris.filter(pa.array(without_size)))
        .listed("unreadable_boxes", uris.filter(pa.array(is_given & ~is_box & ~without_size)))
        .counted(boxes_beyond_the_image=int(is_beyond_image(found[is_box]).sum()))
    )
    if not is_box.any():
        return None, findings
    images_B = annotations.images[is_box]
    has_list = np.zeros(len(images.rows), bool)
    has_list[images_B] = True
    names = annotations.names.filter(pa.array(is_box))
    return box_lists(images_B, found[is_box], names, None, has_list), findings


def _sizes(rows: Rows) -> npt.NDArray[np.float64]:
    """Width and height of each image in pixels; NaN is unknown."""
    values = [[number(row.get(key)) for key in _SIZE] for row in rows]
    sizes = np.array(values, np.float64).reshape(-1, 2)
    return np.where(sizes > 0, sizes, np.nan)


def _times(images: _Images, *, where: str) -> tuple[pa.Array, Findings]:
    """The capture times, and those that cannot be read. Plain COCO writes 0 for an unknown time."""
    given = [row.get("datetime") or row.get("date_captured") or None for row in images.rows]
    text = text_array(given, what="datetime", where=where)
    times = parse_times(text)
    return times, unreadable_times(images.uris, text, times)


def _events(
    rows: Rows, sequences: pa.Array, dated: pa.Table, *, gap_s: float, max_images: int | None
) -> tuple[Ints, pa.Array]:
    """The indices of the images in the order of the inventory, and the event id of each."""
    is_named = sequences.is_valid().to_numpy(zero_copy_only=False)
    named, others = np.flatnonzero(is_named), np.flatnonzero(~is_named)
    frames = pa.array([_number(row.get("frame_num")) for row in rows], pa.float64())
    columns = {"frame": frames, "time": dated["time"], "sequence": sequences}
    chosen = pa.array(named)
    of_named = {name: values.take(chosen) for name, values in columns.items()}
    named = named[in_camera_order_by(of_named, dated["uri"].take(chosen))]
    rest = dated.take(pa.array(others)).combine_chunks()
    by_gap = [rest[name].combine_chunks() for name in ("uri", "time", "location")]
    grouped = group_by_gap(*by_gap, gap_s=gap_s, max_images=max_images)
    order = np.concatenate([named, others[grouped.order]])
    ids = [sequences.take(pa.array(named)), grouped.event_ids.cast(TEXT)]
    return order, pa.concat_arrays(ids)


def _number(value: object) -> float | None:
    """A finite number, also if it is written as text; None for any other value."""
    found = number(value)
    return found if math.isfinite(found) else None


def _of_other_length(rows: Rows, sequences: pa.Array) -> Findings:
    """The sequences whose number of images differs from `seq_num_frames`."""
    stated = pa.array([_number(row.get("seq_num_frames")) for row in rows], pa.float64())
    by_sequence = pa.table({"id": sequences, "stated": stated}).group_by("id", use_threads=False)
    counts = by_sequence.aggregate([("stated", "max"), ([], "count_all")]).filter(
        pc.field("id").is_valid() & (pc.field("stated_max") != pc.field("count_all"))
    )
    lengths, stated = (
        counts[name].cast(pa.int64()).cast(TEXT) for name in ("count_all", "stated_max")
    )
    details = pc.binary_join_element_wise(lengths, stated, pa.scalar(" images of ", TEXT))
    return Findings().listed("sequences_of_other_length", counts["id"], details)


def _labels(annotations: _Annotations, *, where: str) -> dict[str, pa.Array]:
    if not annotations.rows:
        return {}
    counts = whole_numbers(text_column(annotations.rows, "count", where=where))
    is_missing = pc.equal(counts, _MISSING_COUNT)
    counts = pc.if_else(is_missing.fill_null(True), pa.scalar(None, TEXT), counts)
    labels = {"species": annotations.names}
    return labels if counts.null_count == len(counts) else {**labels, "count": counts}


def _without_blanks(rows: SourceRows) -> tuple[SourceRows, int]:
    """The rows without blank frames of labelled events, observations by row; number left out."""
    if not rows.labels:
        return rows, 0
    observed = rows.rows_of_observations
    order = np.argsort(observed, kind="stable")
    species = rows.labels["species"].take(pa.array(order))
    rows_M = observed[order]
    blank = are_named_blank(species)  # by name: in plain COCO, category 0 is not blank
    events = factorize(rows.event_ids, sort=True)[0].astype(np.int64)
    dropped = blanks_beside_labels(events[rows_M], species, blank)
    kept = pa.array(order[~dropped])
    labels = {head: values.take(kept) for head, values in rows.labels.items()}
    return replace(rows, observation_rows=rows_M[~dropped], labels=labels), int(dropped.sum())
