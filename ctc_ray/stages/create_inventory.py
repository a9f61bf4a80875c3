"""`ctc create-inventory`: a source becomes an inventory, one row per image.

in:  a csv, class folders, the original's inventory JSON, COCO, Camtrap DP; or an INVENTORY and a
     MegaDetector result file
out: INVENTORY as part-00000.parquet, …, and manifest.json
"""

import logging
from typing import Any

from ctc_ray import storage, tables
from ctc_ray.config.inventory import (
    CamtrapDpInventoryConfig,
    CocoInventoryConfig,
    CsvInventoryConfig,
    DirInventoryConfig,
    InventoryConfig,
    JsonInventoryConfig,
    MegadetectorInventoryConfig,
)
from ctc_ray.errors import ConfigError
from ctc_ray.inventory.assembly import Inventory
from ctc_ray.inventory.camtrap_dp_source import read_camtrap_dp
from ctc_ray.inventory.camtrap_package import package_files
from ctc_ray.inventory.checks import label_statistics
from ctc_ray.inventory.coco_source import read_coco
from ctc_ray.inventory.csv_source import CsvColumns, read_csv
from ctc_ray.inventory.dir_source import read_dir
from ctc_ray.inventory.json_source import read_json
from ctc_ray.inventory.megadetector_source import add_boxes
from ctc_ray.manifest import Manifest, fingerprint, manifest_fingerprint, read_manifest
from ctc_ray.schemas import conform, inventory_schema
from ctc_ray.units import begin_work, event_starts, finish_work

logger = logging.getLogger(__name__)

PART_FILE = "part-00000.parquet"
FINDINGS_FILE = "_findings.parquet"  # the underscore keeps it out of readers of the folder


def run(config: InventoryConfig) -> Manifest:
    """Read the source whole, check it, and write the inventory; on an error nothing is written."""
    config = config.replaced(
        source_uri=storage.absolute(config.source_uri),
        output_uri=storage.absolute(config.output_uri),
    )
    if isinstance(config, MegadetectorInventoryConfig):
        config = config.replaced(inventory_uri=storage.absolute(config.inventory_uri))
    inventory = _read(config)
    inputs = _inputs(config, inventory)
    work = {"source": type(config).__name__, **config.work(), "inputs": inputs}
    if begin_work(config.output_uri, "inventory", work, overwrite=config.overwrite):
        logger.info("%s is complete already", config.output_uri)
        return read_manifest(config.output_uri, "inventory")
    tables.write_table(storage.join(config.output_uri, PART_FILE), inventory.table)
    findings_uri = storage.join(config.output_uri, FINDINGS_FILE)
    tables.write_table(findings_uri, inventory.findings.table())
    manifest = Manifest(
        kind="inventory",
        config=config.work(),
        inputs=inputs,
        rows_in=inventory.table.num_rows,
        rows_out=inventory.table.num_rows,
        classes={head: _classes(labels) for head, labels in _statistics(inventory).items()},
        meta=list(inventory.meta),
        counts=_counts(inventory),
    )
    finish_work(config.output_uri, manifest)
    logger.info("wrote %d images to %s", manifest.rows_out, config.output_uri)
    return manifest


def _read(config: InventoryConfig) -> Inventory:
    match config:
        case CsvInventoryConfig():
            columns = CsvColumns(
                event_column=config.event_column,
                image_columns=config.image_columns,
                head_columns=config.head_columns,
                meta_columns=config.meta_columns,
                location_column=config.location_column,
                deployment_column=config.deployment_column,
                captured_at_column=config.captured_at_column,
            )
            return read_csv(config.source_uri, columns)
        case DirInventoryConfig():
            return read_dir(config.source_uri)
        case JsonInventoryConfig():
            return read_json(config.source_uri)
        case CocoInventoryConfig():
            return read_coco(
                config.source_uri,
                gap_s=config.event_gap_s,
                max_images=config.max_images_per_event,
            )
        case CamtrapDpInventoryConfig():
            return read_camtrap_dp(
                config.source_uri,
                gap_s=config.event_gap_s,
                max_images=config.max_images_per_event,
            )
        case MegadetectorInventoryConfig():
            return _with_boxes(config)
        case _:
            raise ConfigError(f"{type(config).__name__} names no source that ctc reads")


def _with_boxes(config: MegadetectorInventoryConfig) -> Inventory:
    manifest = read_manifest(config.inventory_uri, "inventory")
    heads, meta = tuple(manifest.classes), tuple(manifest.meta)
    rows = tables.read_folder(config.inventory_uri)
    rows = conform(rows, inventory_schema(heads, meta), where=config.inventory_uri)
    return add_boxes(config.source_uri, rows, heads=heads, meta=meta)


def _inputs(config: InventoryConfig, inventory: Inventory) -> dict[str, str]:
    inputs = {config.source_uri: _fingerprint(config, inventory)}
    if isinstance(config, MegadetectorInventoryConfig):
        inputs[config.inventory_uri] = manifest_fingerprint(config.inventory_uri)
    return inputs


def _fingerprint(config: InventoryConfig, inventory: Inventory) -> str:
    """Changes with the source's content: of a folder its file names, of a file its bytes."""
    if isinstance(config, DirInventoryConfig):
        return fingerprint(inventory.table["image_uri"].to_pylist())
    if isinstance(config, CamtrapDpInventoryConfig):
        return fingerprint([storage.digest(uri) for uri in package_files(config.source_uri)])
    return storage.digest(config.source_uri)


def _statistics(inventory: Inventory) -> dict[str, list[dict[str, Any]]]:
    statistics = label_statistics(inventory.table, inventory.heads)
    return {
        head: [{"label": c.label, "count": c.count, "share": c.share} for c in counts]
        for head, counts in statistics.items()
    }


def _classes(labels: list[dict[str, Any]]) -> list[str]:
    return sorted(row["label"] for row in labels if row["label"] is not None)


def _counts(inventory: Inventory) -> dict[str, Any]:
    counts: dict[str, Any] = {
        "events": len(event_starts(inventory.table["capture_event_id"])),
        "findings": dict(inventory.findings.counts),
    }
    for head, labels in _statistics(inventory).items():
        counts[f"labels of {head} (per observation)"] = labels
    return counts
