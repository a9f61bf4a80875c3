"""The report of a training, made of the files that it has left."""

import json

from ctc_ray.files import storage
from ctc_ray.files.csv_text import numbers_of_csv
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
        numbers_of_csv(storage.read_bytes(storage.join(output_uri, HISTORY_FILE))),
        json.loads(storage.read_bytes(storage.join(output_uri, METRICS_FILE))),
        read_provenance(output_uri).config,
    )
    storage.write_bytes(storage.join(output_uri, PAGE_FILE), training_page(training))
    storage.write_bytes(storage.join(output_uri, PNG_FILE), training_png(training))
