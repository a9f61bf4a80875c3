"""Add the boxes of a MegaDetector result file to the rows of an inventory, by file name.

F files of the result, U distinct image URIs, N rows of the inventory.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ctc_ray.errors import SchemaError
from ctc_ray.inventory.events.assemble import TEXT, Inventory
from ctc_ray.inventory.events.images import StoredImages
from ctc_ray.inventory.findings import Findings
from ctc_ray.inventory.sources.boxes import Ints, box_lists, is_beyond_image, number, parse_boxes
from ctc_ray.inventory.sources.json_file import load_json, objects, text_array, text_column

_ROWS_PER_CHUNK = 1 << 20


@dataclass(frozen=True)
class _Results:
    """One entry per file that the detector has processed."""

    files: pa.Array
    boxes: pa.Array
    findings: Findings


@dataclass(frozen=True)
class _Matches:
    uris: Ints
    """Index of the URI of each file; -1: none."""
    is_ambiguous: npt.NDArray[np.bool_]


def add_boxes(
    uri: str, rows: pa.Table, *, heads: Sequence[str], meta: Sequence[str] = ()
) -> Inventory:
    """The inventory `rows` with the boxes of a MegaDetector JSON; rows keep their order.

    A file of the result is matched with the image of equal URI, else with the only image whose URI
    ends with the file's path or is the end of that path, compared by whole folder names.
    Backslashes count as slashes, and the two ways of Unicode to write é are one; where that leaves
    a file without an image, so are `.JPG` and `.jpg`.

    Of several entries of an image the first that can be read counts, for instance a retry. An image
    without one keeps its boxes: with an unreadable result it is not one in which nothing was
    detected. An entry without detections gives an empty list. Entries that match no image or
    several images, repeated entries, detections that cannot be read and failures of the detector
    are findings.

    Args:
        heads: heads of the inventory.
        meta: metadata fields of the inventory.

    Raises:
        ConfigError: the file does not exist.
        SchemaError: the file is not a MegaDetector JSON.
    """
    results = _results(uri)
    uris_N = rows["image_uri"].cast(TEXT).combine_chunks()
    encoded = uris_N.dictionary_encode()
    matches = match_files(results.files, encoded.dictionary)
    is_matched = matches.uris >= 0
    lost = ~is_matched & ~matches.is_ambiguous
    files_U = np.full(len(encoded.dictionary), -1, np.int64)
    files_U[matches.uris[is_matched]] = np.flatnonzero(is_matched)
    files_N = files_U[encoded.indices.to_numpy()]
    has_boxes = rows["boxes"].is_valid().to_numpy()
    found = (
        results.findings.listed("unmatched_files", results.files.filter(pa.array(lost)))
        .listed("ambiguous_files", results.files.filter(pa.array(matches.is_ambiguous)))
        .counted(
            images_without_result=int((files_N < 0).sum()),
            replaced_boxes=int((has_boxes & (files_N >= 0)).sum()),
        )
    )
    index = rows.schema.get_field_index("boxes")
    table = rows.set_column(index, rows.schema.field(index), _column(rows, results.boxes, files_N))
    no_events = rows.slice(0, 0).select(["capture_event_id"])
    return Inventory(StoredImages(table), tuple(heads), tuple(meta), found, no_events)


def _column(rows: pa.Table, boxes: pa.Array, files_N: Ints) -> pa.ChunkedArray:
    """The boxes of each row, in chunks: the text of one large array could exceed 2 GiB."""
    chunks = []
    for start in range(0, len(files_N), _ROWS_PER_CHUNK):
        files = files_N[start : start + _ROWS_PER_CHUNK]
        old = rows["boxes"].slice(start, len(files)).combine_chunks()
        new = boxes.take(pa.array(files, mask=files < 0))
        if old.null_count < len(old):
            indices = np.where(files < 0, np.arange(len(files)), len(files) + np.arange(len(files)))
            new = pa.concat_arrays([old, new]).take(pa.array(indices))
        chunks.append(new)
    return pa.chunked_array(chunks, rows.schema.field("boxes").type)


def _results(uri: str) -> _Results:
    whole = load_json(uri)
    names = whole.get("detection_categories")
    if not (isinstance(names, dict) and all(isinstance(v, str) for v in names.values())):
        raise SchemaError(f"{uri}: detection_categories must be an object of number -> name")
    images = objects(whole, "images", where=uri)
    files = text_column(images, "file", where=uri)
    if files.null_count:
        index = files.is_valid().to_pylist().index(False)
        raise SchemaError(f"{uri}: images[{index}] has no file")
    has_list = np.array([isinstance(row.get("detections"), list) for row in images], bool)
    failed = np.array([bool(row.get("failure")) for row in images], bool) | ~has_list
    usable = np.flatnonzero(~failed)
    boxes, is_read, of_detections = _detections([images[n] for n in usable], names, where=uri)
    # An image of which no detection can be read is not one in which nothing was detected.
    failed[usable[~is_read]] = True
    first = np.zeros(len(images), bool)
    good = np.flatnonzero(~failed)
    codes = files.dictionary_encode().indices.to_numpy()[good]
    first[good[np.unique(codes, return_index=True)[1]]] = True
    reasons = [str(row.get("failure") or "no detections") for row in images]
    details = text_array(reasons, what="failure", where=uri)
    is_failure = failed.copy()
    is_failure[usable[~is_read]] = False  # a finding of its own
    found = (
        Findings()
        .listed("detector_failures", files.filter(pa.array(is_failure)), details.filter(is_failure))
        .listed("duplicate_files", files.filter(pa.array(~failed & ~first)))
    )
    chosen = pa.array(first[usable])
    return _Results(files.filter(pa.array(first)), boxes.filter(chosen), found.plus(of_detections))


def _detections(
    images: Sequence[dict[str, Any]], names: dict[str, str], *, where: str
) -> tuple[pa.Array, npt.NDArray[np.bool_], Findings]:
    """The list of boxes of each entry, whether it has none or one can be read, and the findings."""
    pairs = [(n, one) for n, row in enumerate(images) for one in row["detections"]]
    for n, one in pairs:
        if not isinstance(one, dict):
            raise SchemaError(f"{where}: a detection of {images[n]['file']} is not an object")
    images_B = np.array([n for n, _ in pairs], np.int64)
    boxes = parse_boxes([one.get("bbox") for _, one in pairs])
    scores = np.array([number(one.get("conf")) for _, one in pairs], np.float64)
    categories = text_column([one for _, one in pairs], "category", where=where)
    codes = pc.index_in(categories, value_set=pa.array(list(names), TEXT), skip_nulls=True)
    is_known = codes.is_valid().to_numpy(zero_copy_only=False)
    is_box = ~np.isnan(boxes).any(axis=1) & ~np.isnan(scores) & is_known
    files = [str(images[n]["file"]) for n in images_B[~is_box]]
    found = Findings().listed("unreadable_detections", files)
    found = found.counted(boxes_beyond_the_image=int(is_beyond_image(boxes[is_box]).sum()))
    kept = pa.array(is_box)
    labels = pa.array(list(names.values()), TEXT).take(codes.filter(kept))
    n_given, n_read = (np.bincount(b, minlength=len(images)) for b in (images_B, images_B[is_box]))
    is_read = (n_given == 0) | (n_read > 0)
    confidences = pa.array(scores[is_box])
    lists = box_lists(images_B[is_box], boxes[is_box], labels, confidences, is_read)
    return lists, is_read, found


def match_files(files: pa.Array, uris: pa.Array) -> _Matches:
    """The image of each file, by the rule of `add_boxes`.

    Args:
        files: distinct names.
        uris: distinct URIs.
    """
    exact = pc.index_in(files, value_set=uris).fill_null(-1).to_numpy().astype(np.int64)
    ambiguous = np.zeros(len(files), bool)
    is_free = np.ones(len(uris), bool)
    is_free[exact[exact >= 0]] = False
    matched = exact.copy()
    for spelling in (_paths, _with_small_endings):
        left, free = np.flatnonzero((matched < 0) & ~ambiguous), np.flatnonzero(is_free)
        paths, names = spelling(files.take(pa.array(left))), spelling(uris.take(pa.array(free)))
        has_name = pc.is_in(_ends(names, 1), value_set=_ends(paths, 1))
        free = free[has_name.to_numpy(zero_copy_only=False)]
        names = spelling(uris.take(pa.array(free)))
        found = np.concatenate([_end_in(paths, names), _end_in(names, paths)[:, ::-1]])
        found = np.unique(found, axis=0)
        n_of_file = np.bincount(found[:, 0], minlength=len(left))
        n_of_uri = np.bincount(found[:, 1], minlength=len(free))
        certain = (n_of_file[found[:, 0]] == 1) & (n_of_uri[found[:, 1]] == 1)
        matched[left[found[certain, 0]]] = free[found[certain, 1]]
        ambiguous[left[found[~certain, 0]]] = True
        is_free[free[found[:, 1]]] = False
    return _Matches(matched, ambiguous)


def _paths(names: pa.Array) -> pa.Array:
    """The names with slashes for backslashes, without leading `./` or `/` and repeated slashes.

    Letters with marks are one character each (Unicode NFC); macOS writes two.
    """
    slashes = pc.replace_substring(pc.utf8_normalize(names, form="NFC"), "\\", "/")
    return pc.replace_substring_regex(
        pc.replace_substring_regex(slashes, "/(\\./)*/*", "/"), "^(\\./|/)+", ""
    )


def _with_small_endings(names: pa.Array) -> pa.Array:
    """The paths with their file endings in small letters."""
    paths = _paths(names)
    ending = pc.struct_field(pc.extract_regex(paths, r"(?P<ending>\.[^./]*$)"), "ending")
    ending = pc.fill_null(ending, "")
    stems = pc.replace_substring_regex(paths, r"\.[^./]*$", "")
    return pc.binary_join_element_wise(stems, pc.utf8_lower(ending), pa.scalar("", paths.type))


def _ends(paths: pa.Array, n_parts: int) -> pa.Array:
    """The last `n_parts` parts of each path; null where it has fewer."""
    pattern = f"(?:^|/)(?P<end>(?:[^/]+/){{{n_parts - 1}}}[^/]+)$"
    return pc.struct_field(pc.extract_regex(paths, pattern), "end")


def _end_in(short: pa.Array, long: pa.Array) -> Ints:
    """The pairs of indices (short, long) such that the long path ends with the short path."""
    pairs = [np.empty((0, 2), np.int64)]
    n_parts = pc.add(pc.count_substring(short, "/"), 1).to_numpy(zero_copy_only=False)
    for n in np.unique(n_parts):
        chosen = np.flatnonzero(n_parts == n)
        ends = _ends(long, int(n))
        # short paths may be equal; each of them pairs with every long path
        distinct = short.take(pa.array(chosen)).dictionary_encode()
        codes = pc.index_in(ends, value_set=distinct.dictionary, skip_nulls=True)
        by_code = np.argsort(distinct.indices.to_numpy(), kind="stable")
        sizes = np.bincount(distinct.indices.to_numpy())
        starts = np.cumsum(sizes) - sizes
        longs = np.flatnonzero(codes.is_valid().to_numpy(zero_copy_only=False))
        code = codes.take(pa.array(longs)).to_numpy()
        n_each = sizes[code]
        offsets = np.arange(n_each.sum()) - np.repeat(np.cumsum(n_each) - n_each, n_each)
        shorts = chosen[by_code[np.repeat(starts[code], n_each) + offsets]]
        pairs.append(np.stack([shorts, np.repeat(longs, n_each)], axis=1))
    return np.concatenate(pairs)
