"""The door for other programs: load a model, open a dataset, run a command from Python.

`ctc_ray/__init__.py` exports what is here. Importing this module imports neither Ray nor torch nor
Arrow; a function imports what it needs when it is called.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow.dataset as pads
    from PIL import Image

    from ctc_ray.config.aggregation import AggregateConfig
    from ctc_ray.config.choices import TruncatedPolicy
    from ctc_ray.config.dataset import CreateDatasetConfig
    from ctc_ray.config.demo import DemoConfig
    from ctc_ray.config.inventory import InventoryConfig
    from ctc_ray.config.prediction import ExportConfig, PredictConfig
    from ctc_ray.config.show import ShowConfig
    from ctc_ray.config.training import TrainConfig
    from ctc_ray.config.tuning import TuneConfig
    from ctc_ray.console.summaries import Summary
    from ctc_ray.models.bundle import Bundle
    from ctc_ray.predictions.by_head import Predictions
    from ctc_ray.runs.manifest import Kind, Manifest
    from ctc_ray.schemas import Failure

    ImageLike: TypeAlias = str | os.PathLike[str] | bytes | Image.Image | npt.NDArray[np.uint8]

_READERS, _REMOTE_READERS = 4, 16  # threads at least, as in `ctc predict`


# -- a model ---------------------------------------------------------------------------------------


def load_bundle(
    uri: str | os.PathLike[str], *, device: str = "cpu", calibrated: bool = True
) -> LoadedBundle:
    """The model in a folder that `ctc train` has written, ready to predict.

    Args:
        uri: a local path, `s3://…` or `gs://…`.
        device: of torch, e.g. "cuda".
        calibrated: divide the logits by the temperature that training has found for each head.

    Raises:
        IncompleteDataError: a file of the bundle is missing.
        SchemaError: a file is not part of a bundle, or the weights do not fit.
    """
    from ctc_ray.models.bundle import load_bundle as load

    bundle = load(os.fspath(uri), device=device)
    return LoadedBundle(bundle if calibrated else bundle.uncalibrated())


class LoadedBundle:
    """A model in memory; any number of threads may predict with it."""

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle

    @property
    def heads(self) -> tuple[str, ...]:
        """The heads, in the order of the model's outputs."""
        return self._bundle.label_space.heads

    @property
    def classes(self) -> Mapping[str, tuple[str, ...]]:
        """Head -> classes, in the order of the probabilities."""
        return self._bundle.label_space.classes

    def predict(
        self,
        images: Iterable[ImageLike],
        *,
        batch_size: int = 32,
        max_pixels: int = 100_000_000,
        truncated: TruncatedPolicy = "fail",
    ) -> Predictions:
        """Predictions of every head for every image, in the order of the images.

        An image is one of

        - a path or URI (`str` or `Path`; local, `s3://…`, `gs://…`) of an image file,
        - the bytes of an image file,
        - a Pillow image; its EXIF orientation is applied,
        - an array of pixels: uint8, (height, width, 3) in RGB, or (height, width) in gray.

        Files and bytes are decoded and scaled as `ctc predict` does, so batches of the same images
        give the same numbers. Pillow images and arrays are scaled like a lossless file (PNG) with
        these pixels; a JPEG file gives slightly other numbers, because it is scaled while it is
        decoded. An image that cannot be used has a failure instead of a prediction. Images are
        taken from `images` as they are needed, so an iterator may yield any number.

        Args:
            batch_size: images per step of the model.
            max_pixels: width * height above which an image is `too_large`.
            truncated: "keep" predicts from a file that has lost a part of its pixels; otherwise it
                is `truncated`.

        Raises:
            TypeError: an image is of another kind.
            ConfigError: the model takes stacks of the images of an event; use `ctc predict`.
            ConnectionError: an object store does not answer, so nothing is known about the image.
        """
        from ctc_ray.columns.threads import map_ahead
        from ctc_ray.predictions.by_head import join_batches
        from ctc_ray.runs.machine import n_cpus

        if isinstance(images, str | bytes | os.PathLike):
            raise TypeError("images is one image; give a list of images")
        self._bundle.require_single_images("predict of a list of images")
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; it must be at least 1")
        decode = partial(_decode, self._bundle, max_pixels=max_pixels, truncated=truncated)
        first, rest = _peek(images)
        decoded = map_ahead(decode, rest, n_threads=max(n_cpus(), _n_readers(first)))
        batches = iter(lambda: list(itertools.islice(decoded, batch_size)), [])
        tables = [self._predict_batch(batch) for batch in batches]
        return join_batches(tables, self._bundle.label_space)

    def _predict_batch(self, batch: list[_Decoded]) -> Any:
        import numpy as np

        from ctc_ray.models.classifier import predict_probs
        from ctc_ray.predictions.by_head import batch_table
        from ctc_ray.schemas import Failure

        uris, results = zip(*batch, strict=True)
        failures = [str(item) if isinstance(item, Failure) else None for item in results]
        pixels = [item for item in results if not isinstance(item, Failure)]
        side = self._bundle.image_size
        stacked = np.stack(pixels) if pixels else np.zeros((0, side, side, 3), np.uint8)
        probs = predict_probs(self._bundle, stacked)
        return batch_table(uris, failures, self._bundle.label_space, probs)


if TYPE_CHECKING:
    # path or URI if the image has one; pixels of the network's input, or why there are none
    _Decoded: TypeAlias = tuple[str | None, npt.NDArray[np.uint8] | Failure]


def _peek(images: Iterable[ImageLike]) -> tuple[ImageLike | None, Iterator[ImageLike]]:
    """The first image, None if there is none, and all images."""
    items = iter(images)
    first = list(itertools.islice(items, 1))
    return (first[0] if first else None), itertools.chain(first, items)


def _n_readers(image: ImageLike | None) -> int:
    """Threads that wait for the disk or the store, as far as one image tells."""
    from ctc_ray.files.storage import is_remote

    if not isinstance(image, str | os.PathLike):
        return 1
    return _REMOTE_READERS if is_remote(os.fspath(image)) else _READERS


def _decode(
    bundle: Bundle, image: ImageLike, *, max_pixels: int, truncated: TruncatedPolicy
) -> _Decoded:
    from ctc_ray.files.prefetch import fetch
    from ctc_ray.images.resize import pillow_to_input, to_input
    from ctc_ray.schemas import Failure

    side, keep_aspect = bundle.image_size, bundle.keep_aspect
    uri = os.fspath(image) if isinstance(image, str | os.PathLike) else None
    content = fetch(uri) if uri is not None else image
    if isinstance(content, Failure):
        return uri, content
    if isinstance(content, bytes | bytearray | memoryview):
        return uri, to_input(
            bytes(content),
            image_size=side,
            keep_aspect=keep_aspect,
            max_pixels=max_pixels,
            truncated=truncated,
        )
    pillow = _as_pillow(content)
    return uri, pillow_to_input(
        pillow, image_size=side, keep_aspect=keep_aspect, max_pixels=max_pixels
    )


def _as_pillow(image: Any) -> Image.Image:
    import numpy as np
    from PIL import Image

    if isinstance(image, Image.Image):
        return image
    if not isinstance(image, np.ndarray):
        raise TypeError(
            f"an image is a {type(image).__name__}; give a path, bytes, a Pillow image or an array"
        )
    pixels = image[:, :, 0] if image.ndim == 3 and image.shape[2] == 1 else image
    is_image = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 3)
    if pixels.dtype != np.uint8 or not is_image or not pixels.size:
        raise TypeError(
            f"an image is an array of {image.dtype} with shape {image.shape}; give uint8 with shape"
            " (height, width, 3) or (height, width)"
        )
    return Image.fromarray(np.ascontiguousarray(pixels))


# -- data ------------------------------------------------------------------------------------------


def read_manifest(uri: str | os.PathLike[str], *kinds: Kind) -> Manifest:
    """The manifest of a finished folder: counts, classes, configuration, inputs.

    Args:
        kinds: what the folder may hold, e.g. "dataset"; none: anything.

    Raises:
        ConfigError: the folder holds other data.
        IncompleteDataError: there is no manifest.
        SchemaError: another version of ctc wrote it, or it is not a manifest.
    """
    from ctc_ray.runs import manifest

    return manifest.read_manifest(os.fspath(uri), *kinds)


def open_dataset(uri: str | os.PathLike[str]) -> pads.Dataset:
    """A dataset that `ctc create-dataset` has written, as a dataset of Arrow; nothing is read yet.

    It has the columns of the shards and `split`, and exactly the shards that the manifest lists:
    those of an append that is not finished are left out. `to_table`, `to_batches`, `filter` and
    `count_rows` read only the columns and splits that are needed.

    Raises:
        ConfigError: the folder holds other data.
        IncompleteDataError: the dataset is not finished.
    """
    import pyarrow as pa
    import pyarrow.dataset as pads

    from ctc_ray.files import storage
    from ctc_ray.files.arrow_files import arrow_file_system
    from ctc_ray.runs.manifest import read_manifest
    from ctc_ray.schemas import shard_schema

    folder = storage.absolute(os.fspath(uri))
    manifest = read_manifest(folder, "dataset")
    split = pads.field("split")
    return pads.FileSystemDataset.from_paths(
        [storage.join(folder, shard.path) for shard in manifest.shards],
        schema=shard_schema(manifest.heads, manifest.meta).append(pa.field("split", pa.string())),
        format=pads.ParquetFileFormat(),
        filesystem=arrow_file_system(),
        partitions=[split == shard.split for shard in manifest.shards],
    )


# -- the commands ----------------------------------------------------------------------------------


def create_inventory(config: InventoryConfig) -> Manifest:
    """List the images of a source, one row per image: `ctc create-inventory`.

    Args:
        config: of one of the sources, e.g. `CsvInventoryConfig`.
    """
    from ctc_ray.stages.create_inventory import stage

    return stage.run(config)


def create_dataset(config: CreateDatasetConfig) -> Manifest:
    """Decode and resize the images of an inventory into Parquet shards: `ctc create-dataset`."""
    from ctc_ray.stages.create_dataset import stage

    return stage.run(config)


def train(config: TrainConfig) -> Manifest:
    """Train a model with one output per head: `ctc train`."""
    from ctc_ray.stages.train import stage

    return stage.run(config)


def tune(config: TuneConfig) -> Manifest:
    """Search for the training settings that give the best model: `ctc tune`."""
    from ctc_ray.stages.tune import stage

    return stage.run(config)


def predict(config: PredictConfig) -> Manifest:
    """Answer for every image and every capture event: `ctc predict`."""
    from ctc_ray.stages.predict import stage

    return stage.run(config)


def aggregate(config: AggregateConfig) -> Manifest:
    """Combine finished predictions per image to predictions per event: `ctc aggregate`."""
    from ctc_ray.stages.aggregate import stage

    return stage.run(config)


def export(config: ExportConfig) -> Manifest:
    """Write a model as one file that other programs run: `ctc export`."""
    from ctc_ray.stages import export as stage

    return stage.run(config)


def show(config: ShowConfig) -> Summary:
    """What a folder contains: `ctc show`. Nothing is printed."""
    from ctc_ray.stages.show import stage

    return stage.run(config)


def demo(config: DemoConfig) -> Manifest:
    """The whole pipeline in a few minutes, on drawn scenes or own class folders: `ctc demo`."""
    from ctc_ray.stages import demo as stage

    return stage.run(config)
