"""Put predicted images into other capture events.

N predicted images, R rows of images in their new events, where an event's rows are neighbours.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ctc_ray.columns.arrays import TEXT
from ctc_ray.columns.event_runs import run_starts_of_codes
from ctc_ray.columns.factorize import factorize
from ctc_ray.columns.hashing import hash_text, repeated_hashes, repeated_images

_UNKNOWN, _JOINER, _ESCAPE = "?", "|", "\\"

Ints = npt.NDArray[np.int64]
Numbers = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Regrouped:
    """The images of the new events, event by event."""

    rows: Ints
    """R: row of each image among the predictions; -1: the image has no prediction."""
    events: Numbers
    """R: index of each image's event, ascending."""
    event_ids: pa.Array
    """Id of each event."""
    columns: Mapping[str, pa.Array] = field(default_factory=dict)
    """R values per column that stand in for those of the predictions."""
    n_repeated: int = 0
    """Images that are left out because they occur earlier in the same event."""


def without_repeated(
    rows: Ints, events: Numbers, event_ids: pa.Array, image_uris: pa.Array
) -> Regrouped:
    """The images of the new events, each image of an event once.

    Args:
        rows: row of each image among the predictions, event by event.
        events: index of each image's event, ascending.
        image_uris: of the N predictions.
    """
    hashes = hash_text(image_uris)[rows]
    if len(repeated_hashes(hashes)) == 0:
        return Regrouped(rows, events, event_ids)
    repeated = repeated_images(events, image_uris.take(pa.array(rows)), hashes)
    kept = np.delete(np.arange(len(rows)), repeated)
    return Regrouped(rows[kept], events[kept], event_ids, n_repeated=len(repeated))


def group_by_values(
    values: Mapping[str, pa.Array], captured_at: pa.Array, image_uris: pa.Array
) -> Regrouped:
    """Events of images with equal values; null is a value, too. An event's images are by time.

    An event's id is the values as text, with | between them; ? is null. These characters have a
    backslash in front where they are in a value.

    Args:
        values: text per field, N values each; fastest where dictionary-encoded.
        captured_at: timestamp[us]; null is unknown, and comes last.
    """
    codes, names = {}, {}
    for name, column in values.items():
        codes[name], names[name] = factorize(column, sort=True)
    micros = captured_at.cast(pa.int64()).fill_null(np.iinfo(np.int64).max).to_numpy()
    order = np.lexsort((micros, *reversed(codes.values())))
    order = _ties_by_text(order, [*codes.values(), micros], image_uris)
    sorted_codes = [codes_N[order] for codes_N in codes.values()]
    if len(order) == 0:
        return Regrouped(order, np.zeros(0, np.int32), pa.array([], pa.string()))
    starts_E = run_starts_of_codes(sorted_codes)
    events = np.repeat(
        np.arange(len(starts_E), dtype=np.int32), np.diff(starts_E, append=len(order))
    )
    words = [
        _escaped(names[name]).take(pa.array(column[starts_E], mask=column[starts_E] < 0))
        for name, column in zip(codes, sorted_codes, strict=True)
    ]
    texts = [pc.fill_null(word, _UNKNOWN) for word in words]
    ids = pc.binary_join_element_wise(*texts, pa.scalar(_JOINER, TEXT))
    return without_repeated(order, events, ids.cast(pa.string()), image_uris)


def _ties_by_text(order: Ints, keys: Sequence[npt.NDArray[np.integer]], texts: pa.Array) -> Ints:
    """The order, where rows that are equal in all keys are sorted by their text."""
    is_same = np.ones(max(len(order) - 1, 0), bool)
    for key in keys:
        in_order = key[order]
        is_same &= in_order[1:] == in_order[:-1]
    in_run = np.append(is_same, False) | np.append(False, is_same)
    tied = np.flatnonzero(in_run[: len(order)])
    if len(tied) == 0:
        return order
    run = np.cumsum(~np.append(False, is_same))[tied]
    found = pa.table({"run": run, "text": texts.take(pa.array(order[tied]))})
    by_text = pc.sort_indices(found, sort_keys=[("run", "ascending"), ("text", "ascending")])
    result = order.copy()
    result[tied] = order[tied[by_text.to_numpy()]]
    return result


def _escaped(names: pa.Array) -> pa.Array:
    for character in (_ESCAPE, _JOINER, _UNKNOWN):
        names = pc.replace_substring(names, character, _ESCAPE + character)
    return names.cast(TEXT)


def match_images(named: pa.Table, predicted: pa.Table) -> Ints:
    """The row of each named image's prediction, by `image_id` or else by `image_uri`; -1: none.

    Of several predictions of one image the first is taken.
    """
    rows = rows_of(named["image_id"], predicted["image_id"])
    missing = np.flatnonzero(rows < 0)
    if len(missing):
        uris = named["image_uri"].take(pa.array(missing))
        rows[missing] = rows_of(uris, predicted["image_uri"])
    return rows


def rows_of(values: pa.ChunkedArray, among: pa.ChunkedArray) -> Ints:
    """The first row of each value among other values; -1: it is not there."""
    texts, known = (_one_array(column) for column in (values, among))
    if len(known) == 0:
        return np.full(len(texts), -1, np.int64)
    hashes, known_hashes = hash_text(texts), hash_text(known)
    order = np.argsort(known_hashes, kind="stable")
    queries = np.argsort(hashes)  # searching in ascending order stays in the processor's cache
    found = np.empty(len(texts), np.int64)
    at = np.searchsorted(known_hashes[order], hashes[queries])
    found[queries] = order[np.minimum(at, len(order) - 1)]
    is_equal = pc.equal(texts, known.take(pa.array(found))).to_numpy(zero_copy_only=False)
    result: Ints = np.where(is_equal, found, -1)
    return result


def _one_array(values: pa.ChunkedArray) -> pa.Array:
    return values.cast(TEXT).combine_chunks()
