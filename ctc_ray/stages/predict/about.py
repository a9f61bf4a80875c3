"""What predictions say of the model that made them: in the manifest, and in every file."""

import json
from dataclasses import dataclass

from ctc_ray import __version__
from ctc_ray.config.prediction import PredictConfig
from ctc_ray.labels import LabelSpace
from ctc_ray.models.bundle import Bundle, bundle_fingerprint
from ctc_ray.runs.records import ModelRecord
from ctc_ray.schemas import SCHEMA_VERSION


@dataclass(frozen=True)
class AnsweringModel:
    """The model of a run."""

    bundle: Bundle
    """Calibrated, or as the configuration wants it."""
    record: ModelRecord
    about: str
    """What every file of answers says of itself."""

    @property
    def labels(self) -> LabelSpace:
        """Its heads and classes."""
        return self.bundle.label_space


def describe_model(config: PredictConfig, bundle: Bundle) -> AnsweringModel:
    """The model as predictions name it: its folder's name, and a fingerprint of all that counts."""
    record = ModelRecord(
        name=config.bundle_uri.rstrip("/").rpartition("/")[2],
        backbone=bundle.model.backbone_name,
        fingerprint=bundle_fingerprint(config.bundle_uri),
    )
    bundle = bundle.uncalibrated() if config.uncalibrated else bundle
    return AnsweringModel(bundle, record, _about(config, bundle.label_space, record))


def _about(config: PredictConfig, labels: LabelSpace, model: ModelRecord) -> str:
    """What a file of answers says of itself, as JSON, so that it is understood without its folder.

    All that an answer depends on besides its image, and nothing else: files stay equal from run to
    run. The whole configuration is in the manifest.
    """
    return json.dumps(
        {
            "schema_version": SCHEMA_VERSION,
            "ctc_version": __version__,
            "model": model.model_dump(mode="json"),
            "uncalibrated": config.uncalibrated,
            "aggregation": config.aggregation,
            "renormalize": config.renormalize,
            "top_k": config.top_k,
            "classes": labels.to_json(),
        },
        ensure_ascii=False,
    )
