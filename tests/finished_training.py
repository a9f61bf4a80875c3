"""A training that has ended, as its report takes it."""

from typing import Any

from ctc_ray.reports.training import Training


def training_of(n_epochs: int = 3, **heads: Any) -> Training:
    history = [
        {"epoch": k, "learning_rate": 0.1 / k, "train_loss": 2 / k, "val_loss": 3 / k}
        | {f"val_accuracy_{head}": 0.5 for head in heads}
        | {f"val_event_macro_f1_{head}": 0.25 for head in heads}
        for k in range(1, n_epochs + 1)
    ]
    metrics = {"epoch": n_epochs, "monitor": "val_loss", "loss": 1.0, "heads": heads}
    config = {"model": {"backbone": "resnet18"}, "dataset_uri": "s3://herd/dataset"}
    return Training(history, metrics, config)


def row(name: str, images: float, value: float) -> dict[str, Any]:
    return {"class": name, "images": images, "precision": value, "recall": value, "f1": value}


SPECIES = {
    "accuracy": 0.75,
    "event_accuracy": 0.875,
    "n": 12.0,
    "classes": [
        row("lion", 2.0, 0.5),
        row("unseen", 0.0, 0.0),
        row("zebra", 9.0, 0.9),
        row("eland", 2.0, 0.4),
    ],
}
