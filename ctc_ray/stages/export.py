"""`ctc export`: write a model as one file that other programs run.

in:  a bundle
out: model.onnx or model.pt2, labels.json, manifest.json
"""

import logging

from ctc_ray.config.prediction import ExportConfig
from ctc_ray.files import storage
from ctc_ray.models.bundle import load_bundle
from ctc_ray.models.exporters import export_onnx, export_torch
from ctc_ray.runs.manifest import Manifest, manifest_fingerprint, read_manifest
from ctc_ray.runs.output_folder import begin_work, finish_work

logger = logging.getLogger(__name__)


def run(config: ExportConfig) -> Manifest:
    """Export on this machine: it takes seconds, and needs no cluster."""
    config = config.replaced(
        bundle_uri=storage.absolute(config.bundle_uri),
        output_uri=storage.absolute(config.output_uri),
    )
    bundle_manifest = read_manifest(config.bundle_uri, "bundle")
    inputs = {config.bundle_uri: manifest_fingerprint(config.bundle_uri)}
    work = {**config.work(), "inputs": inputs}
    if begin_work(config.output_uri, "export", work, overwrite=config.overwrite):
        logger.info("%s is complete already", config.output_uri)
        return read_manifest(config.output_uri, "export")
    bundle = load_bundle(config.bundle_uri)
    if config.format == "onnx":
        name, content = "model.onnx", export_onnx(bundle)
    else:
        name, content = "model.pt2", export_torch(bundle)
    storage.write_bytes(storage.join(config.output_uri, name), content)
    storage.write_json(storage.join(config.output_uri, "labels.json"), bundle_manifest.classes)
    manifest = Manifest(
        kind="export",
        config=config.work(),
        inputs=inputs,
        classes=bundle_manifest.classes,
        counts={
            "file": name,
            "megabytes": round(len(content) / 1e6, 2),
            "input": "images: uint8, (images, height, width, 3), RGB, any height and width",
            "outputs": [f"probs_{head}" for head in bundle_manifest.classes],
        },
    )
    finish_work(config.output_uri, manifest)
    logger.info("wrote %s, %.1f MB, to %s", name, len(content) / 1e6, config.output_uri)
    return manifest
