"""`ctc export`: write a model as one file that other programs run.

in:  a bundle
out: model.onnx or model.pt2, labels.json, _manifest.json
"""

import logging
from typing import assert_never

from ctc_ray.config.prediction import ExportConfig
from ctc_ray.files import storage
from ctc_ray.models.bundle import Bundle, bundle_fingerprint, load_bundle
from ctc_ray.models.exporters import export_onnx, export_torch
from ctc_ray.runs.manifest import Manifest, read_manifest
from ctc_ray.runs.output_folder import open_run
from ctc_ray.schemas import probs_column

logger = logging.getLogger(__name__)


def run(config: ExportConfig) -> Manifest:
    """Export on this machine: it takes seconds, and needs no cluster."""
    config = config.replaced(
        bundle_uri=storage.absolute(config.bundle_uri),
        output_uri=storage.absolute(config.output_uri),
    )
    read_manifest(config.bundle_uri, "bundle")
    bundle = load_bundle(config.bundle_uri)
    bundle.require_single_images("export")
    bundle = bundle.uncalibrated() if config.uncalibrated else bundle
    classes = bundle.label_space.to_json()
    inputs = {config.bundle_uri: bundle_fingerprint(config.bundle_uri)}
    fields = {**config.result_fields(), "inputs": inputs}
    with open_run(config.output_uri, "export", fields, overwrite=config.overwrite) as run:
        if isinstance(run, Manifest):
            return run
        name, content = _exported(config, bundle)
        storage.write_bytes(storage.join(config.output_uri, name), content)
        storage.write_json(storage.join(config.output_uri, "labels.json"), classes)
        manifest = Manifest(
            kind="export",
            config=config.result_fields(),
            inputs=inputs,
            classes=classes,
            summary={
                "file": name,
                "megabytes": round(len(content) / 1e6, 2),
                "input": "images: uint8, (images, height, width, 3), RGB, any height and width",
                "outputs": [probs_column(head) for head in classes],
            },
        )
        logger.info("wrote %s, %.1f MB, to %s", name, len(content) / 1e6, config.output_uri)
        return run.finish(manifest)


def _exported(config: ExportConfig, bundle: Bundle) -> tuple[str, bytes]:
    """Name and content of the exported file."""
    match config.format:
        case "onnx":
            return "model.onnx", export_onnx(bundle)
        case "torch-export":
            return "model.pt2", export_torch(bundle)
        case _:
            assert_never(config.format)
