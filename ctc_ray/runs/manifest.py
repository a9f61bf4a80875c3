"""_manifest.json says what a folder of finished data holds; written last, it means "complete"."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from ctc_ray import __version__
from ctc_ray.errors import ConfigError, IncompleteDataError, SchemaError
from ctc_ray.files import storage
from ctc_ray.runs.records import (
    AppendRecord,
    BundleRecord,
    ModelRecord,
    PixelRecord,
    PixelSums,
    ShardRecord,
    SplitRecord,
)
from ctc_ray.schemas import SCHEMA_VERSION

MANIFEST_NAME = "_manifest.json"

Kind = Literal[
    "inventory",
    "dataset",
    "bundle",
    "trials",
    "predictions",
    "events",
    "export",
    "demo",
    "check",
]

MADE_BY: dict[str, str] = {
    "inventory": "ctc create-inventory",
    "dataset": "ctc create-dataset",
    "bundle": "ctc train",
    "trials": "ctc tune",
    "predictions": "ctc predict",
    "events": "ctc aggregate",
    "export": "ctc export",
    "demo": "ctc demo",
    "check": "ctc create-dataset --check",  # never written
}


class Manifest(BaseModel):
    """Counts, configuration and inputs of a finished folder. No times: same work, same bytes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Kind
    schema_version: int = SCHEMA_VERSION
    ctc_version: str = __version__
    config: dict[str, Any]
    inputs: dict[str, str] = {}
    """URI of each input -> a fingerprint that changes with its content."""
    rows_in: int = 0
    rows_out: int = 0
    failures: dict[str, int] = {}
    """Failure code -> number of images."""
    classes: dict[str, list[str]] = {}
    """Head -> classes in the order of their indices."""
    meta: list[str] = []
    """Metadata fields of the source, without prefix."""
    findings: dict[str, int] = {}
    """Kind of finding about the source -> number of cases."""
    splits: list[SplitRecord] = []
    """Splits of a dataset."""
    labels: dict[str, dict[str, dict[str, int]]] = {}
    """Labels of a dataset: split -> head -> class -> usable images with this label."""
    pixels: dict[str, PixelSums] = {}
    """How bright the images of a dataset are: split -> sums. A split that has shards from before
    they were kept has none."""
    shards: list[ShardRecord] = []
    """Shards of a dataset, in the order of their paths."""
    appended: list[AppendRecord] = []
    """Inventories that a dataset has grown by, in their order."""
    bundle: BundleRecord | None = None
    """What a program needs to know to feed a model."""
    model: ModelRecord | None = None
    """The model that has made predictions."""
    summary: dict[str, Any] = {}
    """Further facts and tables for people, in the order in which they are shown."""

    @property
    def heads(self) -> tuple[str, ...]:
        """The heads in their order."""
        return tuple(self.classes)

    def labels_of(self, splits: Sequence[str]) -> dict[str, dict[str, int]]:
        """Head -> class -> usable images with this label, in these splits together."""
        found: dict[str, dict[str, int]] = {}
        for split in splits:
            for head, counts in self.labels[split].items():
                total = found.setdefault(head, {})
                for name, n in counts.items():
                    total[name] = total.get(name, 0) + n
        return found

    def pixels_of(self, splits: Sequence[str]) -> PixelRecord | None:
        """Mean and deviation of the usable images of these splits; None: they are not known."""
        parts = [self.pixels[split] for split in splits if split in self.pixels]
        n_images = sum(part.n_images for part in parts)
        if len(parts) < len(splits) or n_images == 0:
            return None
        means = [sum(values) / n_images for values in zip(*(p.sums for p in parts), strict=True)]
        return PixelRecord.of_moments(n_images, means[:3], means[3:])

    @field_validator("pixels", mode="before")
    @classmethod
    def _known_by_split(cls, value: Any) -> Any:
        """An earlier version kept the mean of one split, which cannot be added to others."""
        return {} if value is None or "mean" in value else value

    def for_people(self) -> dict[str, Any]:
        """Facts and tables by their titles, in the order in which they are shown."""
        shown = {
            "shards": len(self.shards),
            "splits": [split.model_dump() for split in self.splits],
            **self.summary,
            "findings": self.findings,
        }
        return {title: value for title, value in shown.items() if value or title in self.summary}

    def write(self, folder_uri: str) -> None:
        """Declare the folder complete."""
        storage.write_json(storage.join(folder_uri, MANIFEST_NAME), self.model_dump(mode="json"))


def fingerprint(value: Any) -> str:
    """SHA-256 of a JSON value, 64 hex digits; the order of keys does not matter."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def is_complete(folder_uri: str) -> bool:
    """Whether the folder has a manifest."""
    return storage.exists(storage.join(folder_uri, MANIFEST_NAME))


def read_manifest(folder_uri: str, *kinds: Kind) -> Manifest:
    """The manifest of a finished folder.

    Raises:
        ConfigError: the folder holds another kind of data.
        IncompleteDataError: there is no manifest.
        SchemaError: it was written for another schema version, or is no manifest.
    """
    wanted = " or ".join(f"{kind} (`{MADE_BY[kind]}`)" for kind in kinds) or "any data"
    uri = storage.join(folder_uri, MANIFEST_NAME)
    try:
        value = json.loads(storage.read_bytes(uri))
    except FileNotFoundError:
        raise IncompleteDataError(
            f"{folder_uri}: no {MANIFEST_NAME}, so this is no finished {wanted}; "
            "run that command (again)"
        ) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise SchemaError(f"{uri}: not JSON: {error}") from error
    version = value.get("schema_version") if isinstance(value, dict) else None
    if version != SCHEMA_VERSION:
        raise SchemaError(
            f"{uri}: schema version {version}, this ctc reads {SCHEMA_VERSION}; write the data anew"
        )
    try:
        manifest = Manifest.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise SchemaError(f"{uri}: not a manifest: {key}: {first['msg']}") from error
    if kinds and manifest.kind not in kinds:
        raise ConfigError(f"{folder_uri}: holds {manifest.kind}, expected {wanted}")
    return manifest


def manifest_fingerprint(folder_uri: str) -> str:
    """SHA-256 of a finished folder's manifest: changes when its data change."""
    return hashlib.sha256(storage.read_bytes(storage.join(folder_uri, MANIFEST_NAME))).hexdigest()
