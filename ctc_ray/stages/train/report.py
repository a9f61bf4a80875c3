"""The report of a training, made of the files that it has left."""

import csv
import io
import json

from ctc_ray.files import storage
from ctc_ray.models.bundle import HISTORY_FILE, METRICS_FILE, read_provenance

PAGE_FILE, PNG_FILE = "training.html", "training.png"


def write(output_uri: str) -> None:
    """Write the report into the folder of a model."""
    from ctc_ray.reports.training import (  # charts take seconds to import and to draw
        Training,
        training_page,
        training_png,
    )

    training = Training(
        read_history(output_uri),
        json.loads(storage.read_bytes(storage.join(output_uri, METRICS_FILE))),
        read_provenance(output_uri).config,
    )
    storage.write_bytes(storage.join(output_uri, PAGE_FILE), training_page(training))
    storage.write_bytes(storage.join(output_uri, PNG_FILE), training_png(training))


def read_history(output_uri: str) -> list[dict[str, float]]:
    """The metrics of each epoch; an epoch does not have those that are missing."""
    text = storage.read_bytes(storage.join(output_uri, HISTORY_FILE)).decode()
    return [
        {name: float(value) for name, value in row.items() if value}
        for row in csv.DictReader(io.StringIO(text))
    ]
