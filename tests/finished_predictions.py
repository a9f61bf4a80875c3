"""A folder as `ctc predict` leaves it, drawn by a seed and without a model."""

import datetime as dt
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ctc_ray.columns.event_runs import cut_by_events
from ctc_ray.files import parquet
from ctc_ray.labels import LabelSpace
from ctc_ray.predictions.events import aggregate_by_event
from ctc_ray.predictions.scores import score_rows
from ctc_ray.runs.manifest import Manifest
from ctc_ray.schemas import image_fields

LABELS = LabelSpace({"species": ("blank", "Füchsin", "zèbre"), "count": ("1", "2"), "any": ("x",)})
META = ["saison", "ä ö"]
NOON = dt.datetime(2021, 4, 11, 12)

Image = Mapping[str, Any]


def random_images(seed: int, n_events: int, *, cameras: int = 5) -> list[dict[str, Any]]:
    """Images of events of 1 to 6: some failed, some events wholly, some without time or place."""
    rng = np.random.default_rng(seed)
    images = []
    for event in range(n_events):
        n_images, fails = int(rng.integers(1, 7)), rng.random() < 0.1
        camera = int(rng.integers(cameras))
        begin = NOON + dt.timedelta(minutes=int(rng.integers(5_000)))
        for index in range(n_images):
            is_failed = bool(fails or rng.random() < 0.1)
            images.append(
                {
                    "image_id": f"{event:016x}{index:016x}",
                    "image_uri": f"Fotos/ü{event}_{index}.jpg",
                    "capture_event_id": f"Ereignis {event * 7919 % n_events:05d}",
                    "image_index": index,
                    "n_images": n_images,
                    "location_id": None if camera == 0 else f"Ort|{camera // 2}",
                    "deployment_id": None if camera < 2 else f"cam?{camera}",
                    "captured_at": None
                    if rng.random() < 0.05
                    else begin + dt.timedelta(seconds=20 * index),
                    "meta_saison": [None, "Frühling", "été"][int(rng.integers(3))],
                    "meta_ä ö": str(event % 3),
                    "failure": "missing" if is_failed else None,
                    "probs": None
                    if is_failed
                    else {
                        head: rng.dirichlet(np.ones(len(names)) * 0.3).astype(np.float32).tolist()
                        if rng.random() < 0.8
                        else [1 / len(names)] * len(names)  # a tie
                        for head, names in LABELS.classes.items()
                    },
                }
            )
    return images


def prediction_rows(images: Sequence[Image]) -> pa.Table:
    """The images as `ctc predict` writes them."""
    schema = pa.schema([*image_fields(META), pa.field("failure", pa.string())])
    rows = pa.Table.from_pylist(
        [{k: v for k, v in i.items() if k != "probs"} for i in images], schema
    )
    scored = [image["probs"] for image in images if image["probs"] is not None]
    probs = {
        head: np.array([one[head] for one in scored], np.float32).reshape(len(scored), len(names))
        for head, names in LABELS.classes.items()
    }
    return score_rows(rows, LABELS, probs)


def write_predictions(
    folder: Path, images: Sequence[Image], *, images_per_file: int, method: str = "mean"
) -> Path:
    """Files of images and events, and the manifest."""
    rows = prediction_rows(images)
    for number, (start, stop) in enumerate(
        cut_by_events(rows["capture_event_id"], images_per_file)
    ):
        part = rows.slice(start, stop - start)
        events = aggregate_by_event(part, LABELS, method=method)
        for name, table in (("images", part), ("events", events)):
            parquet.write_table(str(folder / name / f"part-{number:05d}.parquet"), table)
    Manifest(
        kind="predictions",
        config={},
        rows_in=len(images),
        rows_out=len(images),
        failures={"missing": rows.num_rows - rows["failure"].null_count},
        classes=LABELS.to_json(),
        meta=META,
    ).write(str(folder))
    return folder


def by_hand(
    images: Sequence[Image], event_of: Callable[[Image], Any], *, order: Callable[[Image], Any]
) -> dict[Any, dict[str, Any]]:
    """Means of each event, image by image in plain Python, with its first image's place."""
    events: dict[Any, list[Image]] = {}
    for image in images:
        events.setdefault(event_of(image), []).append(image)
    answers = {}
    for event, own in events.items():
        own.sort(key=order)
        scored = [image["probs"] for image in own if image["probs"] is not None]
        answers[event] = {
            "n_images": len(own),
            "n_failed": len(own) - len(scored),
            "location_id": own[0]["location_id"],
            "deployment_id": own[0]["deployment_id"],
            "captured_at": next((i["captured_at"] for i in own if i["captured_at"]), None),
            **{name: own[0][name] for name in ("meta_saison", "meta_ä ö")},
        }
        for head, names in LABELS.classes.items():
            columns = zip(*[one[head] for one in scored], strict=True)
            probs = [math.fsum(column) / len(scored) for column in columns]
            top = max(range(len(names)), key=lambda i: np.float32(probs[i])) if scored else None
            answers[event] |= {
                f"pred_{head}": None if top is None else names[top],
                f"probs_{head}": probs or None,
            }
    return answers
