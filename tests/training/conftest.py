"""Small datasets with raw pixels in place of JPEGs, so that a test knows every pixel."""

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest

from ctc_ray.files import parquet, storage
from ctc_ray.labels import LabelSpace
from ctc_ray.runs.records import RowGroupRecord, ShardRecord
from ctc_ray.schemas import shard_schema
from ctc_ray.training.plans import RowGroup, list_row_groups

SIDE = 16
LABELS = LabelSpace({"species": ("cat", "dog", "hare"), "sex": ("f", "m")})

Event = tuple[str, Sequence[str | None]]  # id, and failure of each image
MakeDataset = Callable[..., list[RowGroup]]


def decode_raw(raw: bytes, seed: int = 0) -> npt.NDArray[np.uint8]:
    return np.frombuffer(raw, np.uint8).reshape(SIDE, SIDE, 3)


def pixels(event: int, image: int) -> bytes:
    """The class (event mod 3) sets the brightness; the noise differs between images."""
    rng = np.random.default_rng([event, image])
    noisy = rng.integers(0, 60, (SIDE, SIDE, 3)) + 70 * (event % 3)
    return noisy.astype(np.uint8).tobytes()


def row(event: int, image: int, event_id: str, failure: str | None) -> dict[str, Any]:
    return {
        "image_id": f"{event_id}-{image}",
        "image_uri": f"{event_id}-{image}.jpg",
        "capture_event_id": event_id,
        "image_index": image,
        "n_images": 0,
        "label_species": LABELS.classes["species"][event % 3],
        "label_sex": None if event % 4 else "m",
        "jpeg": None if failure else pixels(event, image),
        "failure": failure,
    }


@pytest.fixture
def make_dataset(tmp_path: Path) -> MakeDataset:
    """Writes events as shards of `events_per_group` x 2 row groups; the groups of one split."""

    def make(events: Sequence[Event], events_per_group: int = 4) -> list[RowGroup]:
        rows = [
            [row(number, i, event_id, failure) for i, failure in enumerate(failures)]
            for number, (event_id, failures) in enumerate(events)
        ]
        schema = shard_schema(LABELS.heads)
        groups = [rows[i : i + events_per_group] for i in range(0, len(rows), events_per_group)]
        shards = []
        for number in range(0, len(groups), 2):
            part = groups[number : number + 2]
            path = f"split=train/part-{number:05d}.parquet"
            parts = [
                pa.Table.from_pylist(list(itertools.chain(*group)), schema=schema) for group in part
            ]
            storage.write_bytes(
                storage.join(str(tmp_path), path),
                parquet.row_group_bytes(parts, raw_column="jpeg"),
            )
            own = [counts(group) for group in part]
            n_images, n_usable = (
                sum(getattr(group, name) for group in own)
                for name in ("n_images", "n_usable_images")
            )
            shards.append(
                ShardRecord(
                    path=path,
                    split="train",
                    n_images=n_images,
                    n_failed=n_images - n_usable,
                    row_groups=own,
                )
            )
        return list_row_groups(str(tmp_path), shards, "train")

    return make


def counts(group: list[list[dict[str, Any]]]) -> RowGroupRecord:
    usable = [[image for image in event if image["failure"] is None] for event in group]
    return RowGroupRecord(
        n_images=sum(map(len, group)),
        n_events=len(group),
        n_usable_events=sum(bool(event) for event in usable),
        n_usable_images=sum(map(len, usable)),
    )


@pytest.fixture
def label_space() -> LabelSpace:
    return LABELS


@pytest.fixture
def decode() -> Callable[[bytes, int], npt.NDArray[np.uint8]]:
    return decode_raw
