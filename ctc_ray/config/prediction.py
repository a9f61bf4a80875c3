"""Configuration of `ctc predict` and `ctc export`."""

from typing import ClassVar, Self

from pydantic import Field, model_validator

from ctc_ray.config.base import StageConfig
from ctc_ray.config.choices import Aggregation, ExportFormat, ModelFormat, TruncatedPolicy


class PredictConfig(StageConfig):
    """Answer for every image and every capture event."""

    operational: ClassVar[frozenset[str]] = StageConfig.operational | {
        "max_failure_fraction",
        "workers",
        "gpu_per_worker",
        "threads_per_task",
    }

    bundle_uri: str = Field(min_length=1)
    """Model written by `ctc train`."""
    images_uri: str | None = None
    """Folder of images, searched to any depth; each image is an event of its own."""
    csv_uri: str | None = None
    """A csv with one row per capture event or per image."""
    inventory_uri: str | None = None
    """Folder written by `ctc create-inventory`."""
    dataset_uri: str | None = None
    """Folder written by `ctc create-dataset`; the images in its shards are used."""
    split: str | None = None
    """Of dataset_uri: only this split."""
    event_column: str | None = None
    """Of csv_uri: column with the id of the capture event."""
    image_columns: tuple[str, ...] = ()
    """Of csv_uri: columns with the images; all other columns are carried along."""
    image_root_uri: str | None = None
    """Of csv_uri and inventory_uri: folder that the image paths are relative to."""
    aggregation: Aggregation = "mean"
    """How the probabilities of an event's images become the event's."""
    export: tuple[ExportFormat, ...] = ()
    """Further files with the event predictions, in the original's formats."""
    batch_size: int = Field(128, gt=0)
    """Images per step of the model."""
    images_per_unit: int = Field(1000, gt=0)
    """Images per file of predictions, about: events are never divided."""
    max_pixels: int = Field(100_000_000, gt=0)
    """Pixels above which an image is a `too_large` failure; checked before it is decoded."""
    truncated: TruncatedPolicy = "fail"
    """An image of which a part is lost: a `truncated` failure, or used with the lost part gray."""
    max_failure_fraction: float = Field(0.1, ge=0, le=1)
    """Share of images that may fail before the stage ends in an error; done work is kept."""
    workers: int | None = Field(None, gt=0)
    """Model actors; the default is one per CPU, or one where gpu_per_worker is set."""
    gpu_per_worker: float = Field(0, ge=0)
    """GPUs per model actor."""
    threads_per_task: int | None = Field(None, gt=0)
    """Files that a task reads at once, and holds, before they are decoded; the default is 4, or 16
    from an object store."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        sources = ("images_uri", "csv_uri", "inventory_uri", "dataset_uri")
        given = [name for name in sources if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"give exactly one of {', '.join(sources)}; given: {', '.join(given) or 'none'}"
            )
        if self.csv_uri is not None and (self.event_column is None or not self.image_columns):
            raise ValueError("csv_uri needs event_column and image_columns")
        if self.split is not None and self.dataset_uri is None:
            raise ValueError("split goes with dataset_uri")
        return self


class ExportConfig(StageConfig):
    """Write a model as one file that other programs run."""

    bundle_uri: str = Field(min_length=1)
    """Model written by `ctc train`."""
    format: ModelFormat = "onnx"
    """onnx (onnxruntime and most others) or torch-export (torch.export, PyTorch only)."""
