"""The report of a training, made of the files that it has left."""

import json

from ctc_ray.files import storage
from ctc_ray.files.csv_text import numbers_of_csv
from ctc_ray.models.bundle import HISTORY_FILE, METRICS_FILE, read_provenance
from ctc_ray.reports.attempt import attempt

PAGE_FILE, PNG_FILE = "training.html", "training.png"


def write(output_uri: str) -> None:
    """Write the report into the folder of a model; one that cannot be drawn is a warning."""
    from ctc_ray.reports.training import (  # charts take seconds to import and to draw
        Training,
        training_page,
        training_png,
    )

    training = Training(
        numbers_of_csv(storage.read_bytes(storage.join(output_uri, HISTORY_FILE))),
        json.loads(storage.read_bytes(storage.join(output_uri, METRICS_FILE))),
        read_provenance(output_uri).config,
    )
    uri = storage.join(output_uri, PAGE_FILE)
    drawn: dict[str, bytes] = {}
    with attempt(uri):
        drawn = {
            uri: training_page(training),
            storage.join(output_uri, PNG_FILE): training_png(training),
        }
    for written, content in drawn.items():
        storage.write_bytes(written, content)
