"""What a training leaves behind: the model that is kept, its metrics, and its history."""

from collections.abc import Mapping, Sequence

from ctc_ray.config.training import TrainConfig
from ctc_ray.files import storage
from ctc_ray.files.csv_text import csv_of_records
from ctc_ray.models.bundle import HISTORY_FILE, METRICS_FILE, Bundle, Provenance, save_bundle
from ctc_ray.models.multi_head import MultiHeadModel
from ctc_ray.runs.manifest import Manifest, manifest_fingerprint
from ctc_ray.training.final_metrics import FinalMetrics


def write(
    config: TrainConfig,
    dataset: Manifest,
    model: MultiHeadModel,
    image_size: int,
    *,
    final: FinalMetrics,
    history: Sequence[Mapping[str, float]],
) -> None:
    """Write them into the output folder.

    Args:
        dataset: its manifest, with the classes that were learnt.
        image_size: width and height of the network's input in pixels.
        final: metrics of the model.
        history: the metrics of each epoch.
    """
    n_images = dataset.labels_of(config.train_splits)
    provenance = Provenance(
        config=config.model_dump(mode="json"),
        data_fingerprint=manifest_fingerprint(config.dataset_uri),
        metrics=final.with_calibration(),
        n_training_images={h: n_images[h] for h in config.heads},
        test_metrics={} if final.test is None else final.test.metrics,
    )
    bundle = Bundle(
        model,
        image_size,
        config.model.keep_aspect,
        provenance,
        {head: found.temperature for head, found in final.calibrations.items()},
        config.is_stack,
    )
    storage.write_bytes(storage.join(config.output_uri, HISTORY_FILE), csv_of_records(history))
    metrics = final.for_file(model.label_space, splits=config.val_splits, monitor=config.monitor)
    storage.write_json(storage.join(config.output_uri, METRICS_FILE), metrics)
    save_bundle(config.output_uri, bundle)
