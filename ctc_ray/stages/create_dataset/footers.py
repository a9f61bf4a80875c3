"""What a dataset holds, counted: in the footer of each shard, and from these in the manifest.

A helper of `ctc create-dataset`.
"""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ctc_ray.columns.event_runs import run_starts
from ctc_ray.runs.failures import Footer
from ctc_ray.runs.manifest import Manifest
from ctc_ray.runs.records import PixelSums, RowGroupRecord, ShardRecord, SplitRecord
from ctc_ray.schemas import label_column

_GROUPS_KEY, _LABELS_KEY = "ctc_row_groups", "ctc_labels"  # of a shard's footer
_PIXELS_KEY = "ctc_pixels"
_N_MOMENTS, _ONE = 6, 1 << 16  # number and unit of `Moments`


def footer_counts(groups: Sequence[pa.Table], heads: Sequence[str]) -> dict[str, str]:
    """What a shard of these row groups says of itself."""
    return {
        _GROUPS_KEY: json.dumps([_group_counts(group) for group in groups]),
        _LABELS_KEY: json.dumps(_label_counts(pa.concat_tables(groups), heads)),
    }


def _group_counts(group: pa.Table) -> dict[str, int]:
    """What training plans its epochs by; see `RowGroupRecord`."""
    starts = run_starts(group["capture_event_id"])
    usable = pc.is_null(group["failure"]).to_numpy().astype(np.int64)
    usable_events = np.count_nonzero(np.add.reduceat(usable, starts))
    return RowGroupRecord(
        n_images=group.num_rows,
        n_events=len(starts),
        n_usable_events=int(usable_events),
        n_usable_images=int(usable.sum()),
    ).model_dump()


def _label_counts(shard: pa.Table, heads: Sequence[str]) -> dict[str, dict[str, int]]:
    """Head -> class -> usable images with this label."""
    usable = shard.filter(pc.is_null(shard["failure"]))
    return {
        head: {
            found["values"]: found["counts"]
            for found in pc.value_counts(usable[label_column(head)].drop_null()).to_pylist()
        }
        for head in heads
    }


def footer_pixels(moments: pa.ChunkedArray) -> dict[str, str]:
    """What a shard says of its pixels: the sums of the moments of its images.

    Args:
        moments: of each image; null where it failed.
    """
    found = pc.drop_null(moments)
    values = found.combine_chunks().flatten().to_numpy().reshape(len(found), _N_MOMENTS)
    return {_PIXELS_KEY: json.dumps({"n": len(found), "sums": values.sum(axis=0).tolist()})}


def pixel_sums(footers: Sequence[Footer]) -> dict[str, PixelSums]:
    """Split -> how bright its usable images are; not of a split that has an older shard.

    The sums are whole numbers, so they do not depend on how images were divided into units.
    """
    by_split: dict[str, list[str | None]] = {}
    for footer in footers:
        by_split.setdefault(_split(footer), []).append(footer.metadata.get(_PIXELS_KEY))
    found = {}
    for split, texts in by_split.items():
        parts = [json.loads(text) for text in texts if text is not None]
        if len(parts) == len(texts):
            n_images = sum(part["n"] for part in parts)
            sums = [sum(values) / _ONE for values in zip(*(p["sums"] for p in parts), strict=True)]
            found[split] = PixelSums.model_validate({"n_images": n_images, "sums": sums})
    return found


def shard_record(footer: Footer) -> ShardRecord:
    """A shard as the manifest lists it."""
    return ShardRecord(
        path=footer.name,
        split=_split(footer),
        n_images=footer.n_rows,
        n_failed=footer.n_failed,
        row_groups=json.loads(footer.metadata[_GROUPS_KEY]),
    )


def label_counts(
    manifest: Manifest, footers: Sequence[Footer]
) -> dict[str, dict[str, dict[str, int]]]:
    """Split -> head -> class -> usable images; every class is named in every split."""
    labels: dict[str, dict[str, dict[str, int]]] = {}
    for footer in footers:
        split = labels.setdefault(
            _split(footer), {h: dict.fromkeys(names, 0) for h, names in manifest.classes.items()}
        )
        for head, counts in json.loads(footer.metadata[_LABELS_KEY]).items():
            for name, n in counts.items():
                split[head][name] += n
    return labels


def label_tables(labels: dict[str, dict[str, dict[str, int]]]) -> dict[str, Any]:
    """Usable images per class and split, as tables for the summary."""
    heads = next(iter(labels.values()))
    return {
        f"usable images per class of {head}": [
            {"class": name, **{split: counts[head][name] for split, counts in labels.items()}}
            for name in heads[head]
        ]
        for head in heads
    }


def _split(footer: Footer) -> str:
    return footer.name.partition("/")[0].removeprefix("split=")


def split_counts(shards: Sequence[ShardRecord]) -> list[SplitRecord]:
    """Images, events and failures of each split, in the order of the shards."""
    by_split: dict[str, list[ShardRecord]] = {}
    for shard in shards:
        by_split.setdefault(shard.split, []).append(shard)
    return [
        SplitRecord(
            split=name,
            images=sum(shard.n_images for shard in own),
            events=sum(group.n_events for shard in own for group in shard.row_groups),
            failed=sum(shard.n_failed for shard in own),
        )
        for name, own in by_split.items()
    ]
