"""The settings of a new training that continues from a finished model.

A helper of `ctc train --continue-from`.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from ctc_ray.config.base import merge
from ctc_ray.errors import IncompleteDataError, SchemaError

_BUNDLE_FILE = "bundle.json"
# Of the old data, the old machines, and what the old weights began with.
_NOT_TAKEN = (
    "dataset_uri", "output_uri", "overwrite", "continue_from", "workers", "gpu_per_worker",
    "cpu_per_worker", "decode_threads", "track",
)  # fmt: skip
_NOT_TAKEN_OF_MODEL = ("pretrained", "normalisation")


class _OldConfig(BaseModel, extra="allow"):
    model: dict[str, Any] = {}
    loss_weights: dict[str, float] = {}
    monitor: str = ""


class _Provenance(BaseModel):
    config: _OldConfig


class _Description(BaseModel):
    """What matters here of bundle.json; `models/bundle.py` checks all of it."""

    backbone: str
    classes: dict[str, list[str]]
    image_size: int
    keep_aspect: bool
    dropout: float
    provenance: _Provenance


def continued(uri: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """What is given, and where it is silent the settings that the model was trained with.

    The result names the model as the weights to begin with. What the model was trained with for
    heads that are not given is left out.

    Args:
        uri: folder of a model.

    Raises:
        IncompleteDataError: there is no finished model.
        SchemaError: it is damaged.
    """
    about = _read(uri)
    old = about.provenance.config.model_dump(exclude_unset=True, exclude=set(_NOT_TAKEN))
    model = {k: v for k, v in old.get("model", {}).items() if k not in _NOT_TAKEN_OF_MODEL}
    model |= {
        "backbone": about.backbone,
        "image_size": about.image_size,
        "keep_aspect": about.keep_aspect,
        "dropout": about.dropout,
        "pretrained": uri,
    }
    old |= {"model": model, "heads": list(about.classes)}
    given = {key: _plain(value) for key, value in given.items()}
    heads = given.get("heads")
    gone = set(about.classes) - set(heads) if isinstance(heads, list | tuple) else set()
    weights = about.provenance.config.loss_weights
    old["loss_weights"] = {head: value for head, value in weights.items() if head not in gone}
    if _head_of(about.provenance.config.monitor, about.classes) in gone:
        del old["monitor"]
    return merge(old, given)


def _head_of(metric: str, heads: Iterable[str]) -> str | None:
    """The head that a metric is of, e.g. `count` of `val_loss_count`."""
    found = (head for head in heads if metric.endswith(f"_{head}"))
    return max(found, key=len, default=None)


def _plain(value: Any) -> Any:
    return value.model_dump(exclude_unset=True) if isinstance(value, BaseModel) else value


def _read(uri: str) -> _Description:
    from ctc_ray.files import (
        storage,  # pyarrow takes 0.2 s to import; `ctc --help` needs none of it
    )

    file_uri = storage.join(uri, _BUNDLE_FILE)
    try:
        return _Description.model_validate_json(storage.read_bytes(file_uri))
    except FileNotFoundError:
        raise IncompleteDataError(
            f"continue_from: {uri}: no {_BUNDLE_FILE}, so this is not a finished bundle "
            "(run `ctc train`)"
        ) from None
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        found = f"{key}: {first['msg']}" if key else first["msg"]
        raise SchemaError(f"continue_from: {file_uri}: not a bundle: {found}") from error
