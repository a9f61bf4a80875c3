"""Configuration of `ctc predict` and `ctc export`."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator

from ctc_ray.config.aggregation import CombiningConfig
from ctc_ray.config.base import Shown, StageConfig
from ctc_ray.config.choices import Engine, ExportFormat, ModelFormat, Precision
from ctc_ray.config.image_reading import ReadingConfig
from ctc_ray.config.image_tree import EventConfig, TreeConfig
from ctc_ray.config.keys import option_name

_ON_CPU, _ON_GPU = 32, 128  # images at once: on a CPU, more cost memory and no less time
_SOURCES = ("images_uri", "csv_uri", "inventory_uri", "dataset_uri")


(_EVENTS,) = EventConfig.option_groups.values()
_OF_FOLDERS = (
    *("layout", "allow_unmatched", "time_from", "camera_events"),
    *("max_images_per_event", "clock_corrections_uri"),
)


class PredictConfig(CombiningConfig, TreeConfig, ReadingConfig):
    """Predict the classes of every image and every capture event."""

    example: ClassVar[str] = """\
ctc predict --bundle-uri model --output-uri predictions \\
    --images-uri s3://bucket/new --export csv"""
    operational: ClassVar[frozenset[str]] = ReadingConfig.operational | {
        "append",
        "export",
        "workers",
        "gpu_per_worker",
        "cpu_per_worker",
    }
    option_groups: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "Source (exactly one)": _SOURCES,
        "Parts of the source": (
            "split",
            "event_column",
            "image_columns",
            "path_columns",
            "head_columns",
            "strip_prefix",
        ),
        "Used with --images-uri": (*_OF_FOLDERS[:4], *_EVENTS),
        **ReadingConfig.option_groups,
        "Files for people and other programs": ("export",),
    }

    bundle_uri: str = Field(min_length=1)
    """Model written by `ctc train`."""
    images_uri: str | None = None
    """Folder of images, with subfolders of any depth, read as by create-inventory images."""
    csv_uri: str | None = None
    """A csv file with one row per capture event or per image."""
    inventory_uri: str | None = None
    """Folder written by `ctc create-inventory`."""
    dataset_uri: str | None = None
    """Folder written by `ctc create-dataset`. The images stored in it are used."""
    split: Annotated[str | None, Shown("all splits")] = None
    """Used with --dataset-uri: predict only this split."""
    event_column: str | None = None
    """Required with --csv-uri: column with the id of the capture event."""
    image_columns: tuple[str, ...] = ()
    """Columns of the csv with the images: either these or --path-columns are required with
    --csv-uri. Columns without a role are copied to the predictions."""
    path_columns: tuple[str, ...] = ()
    """Columns of the csv with the folders and the file name of one image."""
    head_columns: tuple[str, ...] = ()
    """Columns of the csv with labels, to compare the predictions with. Each has the name of a head
    of the model, or is given as head=column or head=column+column. An empty cell or -1 is a missing
    label."""
    strip_prefix: Annotated[str | None, Shown("nothing")] = None
    """Used with --csv-uri: folder to take away where an image path begins with it."""
    append: bool = False
    """Answer for images that are new in the source, again for files that were replaced, and for
    their events again. All other answers are kept, also those of images that the source no longer
    names. Where --output-uri holds no predictions, this begins them."""
    uncalibrated: bool = False
    """Give the scores of the network as they are. Otherwise they are probabilities as far as the
    validation split of the training could tell (one temperature per head)."""
    export: tuple[ExportFormat, ...] = ()
    """Also write the predictions as other files. table, for people and spreadsheets: one row per
    event in predictions_events.csv, and one per image in predictions_images.csv. csv and json:
    predictions.csv and predictions.json as camera-trap-classifier wrote them. Of predictions that
    are finished, the files that are not there are written."""
    batch_size: Annotated[int | None, Field(gt=0), Shown("32 on CPUs, 128 on a GPU")] = None
    """Number of images that the model processes at once."""
    engine: Engine = "auto"
    """What computes the network on CPUs. torch: PyTorch. onnx: ONNX Runtime, which is faster and
    takes some seconds to begin. auto: onnx for 1,000 images or more. Scores differ by at most
    0.00001."""
    precision: Precision = "float32"
    """Numbers that the network computes with. bfloat16 and, on GPUs only, float16 are faster where
    the processor has them; scores then differ, for most images by less than 0.01."""
    images_per_unit: int = Field(1000, gt=0)
    """Approximate number of images per file of predictions, which is also one step of the work: a
    stopped command loses at most two per worker. A capture event is never divided."""
    workers: Annotated[
        int | None, Field(gt=0), Shown("as many as there are CPUs, or GPUs, for")
    ] = None
    """Largest number of processes that run the model. The work begins with as many as fit into the
    cluster; more are started when it grows."""
    gpu_per_worker: float = Field(0, ge=0)
    """GPUs per process; 0.5 lets two processes share one."""
    cpu_per_worker: Annotated[
        int | None, Field(gt=0), Shown("1; with a GPU, its share of the CPUs of its machine")
    ] = None
    """CPUs that Ray reserves for each process, and its threads that decode images."""

    @property
    def images_at_once(self) -> int:
        """Images that the model processes at once."""
        return self.batch_size or (_ON_GPU if self.gpu_per_worker else _ON_CPU)

    @model_validator(mode="after")
    def _engine_of_cpus(self) -> Self:
        if self.engine == "onnx" and self.gpu_per_worker:
            raise ValueError("--engine onnx computes on CPUs: leave out --gpu-per-worker")
        return self

    @model_validator(mode="after")
    def _precision_of_processor(self) -> Self:
        if self.precision != "float32" and self.engine == "onnx":
            raise ValueError(f"--precision {self.precision} is for --engine torch")
        if self.precision == "float16" and not self.gpu_per_worker:
            raise ValueError("--precision float16 needs --gpu-per-worker; CPUs have bfloat16")
        return self

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        given = [name for name in _SOURCES if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"give exactly one of {', '.join(map(option_name, _SOURCES))}; "
                f"given: {', '.join(map(option_name, given)) or 'none'}"
            )
        names_images = bool(self.image_columns) != bool(self.path_columns)
        if self.csv_uri is not None and (self.event_column is None or not names_images):
            raise ValueError(
                "--csv-uri needs --event-column and either --image-columns or --path-columns"
            )
        of_csv = self.path_columns or self.head_columns or self.strip_prefix is not None
        if self.csv_uri is None and of_csv:
            raise ValueError("--path-columns, --head-columns and --strip-prefix need --csv-uri")
        if self.split is not None and self.dataset_uri is None:
            raise ValueError("--split needs --dataset-uri")
        if self.images_uri is None:
            fields = type(self).model_fields
            given = [n for n in _OF_FOLDERS if getattr(self, n) != fields[n].default]
            if given:
                raise ValueError(f"{option_name(given[0])} needs --images-uri")
        return self

    @model_validator(mode="after")
    def _nothing_that_excludes_another(self) -> Self:
        if self.append and self.overwrite:
            raise ValueError("--append keeps what --overwrite deletes: give one of them")
        if self.top_k is not None and self.export:
            raise ValueError("--export writes all probabilities, --top-k only some: give one")
        return self


class ExportConfig(StageConfig):
    """Write a model as one file that other programs can run."""

    example: ClassVar[str] = "ctc export --bundle-uri model --output-uri exported"

    bundle_uri: str = Field(min_length=1)
    """Model written by `ctc train`."""
    uncalibrated: bool = False
    """Export the network without the temperatures that training has found."""
    format: ModelFormat = "onnx"
    """onnx: for ONNX Runtime and most other programs. torch-export: for PyTorch only."""
