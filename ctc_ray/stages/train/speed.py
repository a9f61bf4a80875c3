"""How fast each epoch of a training was: a table, and a file of TensorBoard's.

This differs from run to run, so it is kept apart from the history, which does not.
"""

from collections.abc import Mapping

from ctc_ray.files import storage
from ctc_ray.files.csv_text import csv_of_records, numbers_of_csv
from ctc_ray.stages.train.tensorboard import SPEED_EVENTS_FILE, events_of

SPEED_FILE = "speed.csv"


def seconds_of(output_uri: str) -> float:
    """Seconds of the epochs of a training, those before it was resumed included."""
    uri = storage.join(output_uri, SPEED_FILE)
    rows = numbers_of_csv(storage.read_bytes(uri)) if storage.is_file(uri) else []
    return sum(row["seconds"] for row in rows)


def add_epoch(output_uri: str, epoch: int, speed: Mapping[str, float]) -> None:
    """Add an epoch; it replaces what an earlier try or a killed run wrote for it and later ones.

    Args:
        epoch: its number, from 1.
        speed: see `tensorboard.SPEED`.
    """
    uri = storage.join(output_uri, SPEED_FILE)
    before = numbers_of_csv(storage.read_bytes(uri)) if storage.is_file(uri) else []
    rows = [{**row, "epoch": int(row["epoch"])} for row in before if row["epoch"] < epoch]
    rows.append({"epoch": epoch, **speed})
    storage.write_bytes(uri, csv_of_records(rows))
    storage.write_bytes(storage.join(output_uri, SPEED_EVENTS_FILE), events_of(rows))
