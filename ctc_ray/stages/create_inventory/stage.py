"""`ctc create-inventory`: a source becomes an inventory, one row per image.

in:  a csv, class folders, a tree of images, the original's inventory JSON, COCO, Camtrap DP; or an
     INVENTORY and a MegaDetector result file
out: INVENTORY as part-00000.parquet, …, and _manifest.json
"""

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from ctc_ray.columns.fingerprints import table_fingerprint
from ctc_ray.columns.threads import run_both
from ctc_ray.config.inventory import (
    CamtrapDpInventoryConfig,
    CocoInventoryConfig,
    CsvInventoryConfig,
    DirInventoryConfig,
    ImagesInventoryConfig,
    InventoryConfig,
    JsonInventoryConfig,
    LabelledInventoryConfig,
    MegadetectorInventoryConfig,
    TimedInventoryConfig,
)
from ctc_ray.files import parquet, storage
from ctc_ray.files.image_uris import require_reachable, rows_to_look_for
from ctc_ray.inventory.checks.clocks import check_clocks
from ctc_ray.inventory.checks.labels import (
    IMAGES_OF_SEVERAL_EVENTS,
    check_images,
    check_labels,
    count_labels,
)
from ctc_ray.inventory.clock_corrections import KIND as CORRECTIONS
from ctc_ray.inventory.events.assemble import Inventory, SourceRows
from ctc_ray.inventory.events.images import AssembledImages, StoredImages
from ctc_ray.inventory.findings import Findings
from ctc_ray.inventory.sources.camtrap_dp import read_camtrap_dp
from ctc_ray.inventory.sources.camtrap_package import package_files
from ctc_ray.inventory.sources.class_folders import read_dir
from ctc_ray.inventory.sources.coco import read_coco
from ctc_ray.inventory.sources.csv_source import CsvColumns, read_csv
from ctc_ray.inventory.sources.megadetector import add_boxes
from ctc_ray.inventory.sources.original_json import read_json
from ctc_ray.runs.layout import part_stem
from ctc_ray.runs.manifest import Manifest, fingerprint, manifest_fingerprint, read_manifest
from ctc_ray.runs.output_folder import Run, finished_run, is_begun, open_run
from ctc_ray.schemas import FINDINGS_FILE, conform, inventory_schema
from ctc_ray.stages.create_inventory.files import (
    content_hashes,
    missing_files,
    same_content,
)
from ctc_ray.stages.create_inventory.image_folder import (
    clock_corrections,
    digest_of_corrections,
    images_below,
    read_image_folder,
)

logger = logging.getLogger(__name__)

_ROWS_PER_PART = 1 << 20
_ROWS_PER_GROUP = 1 << 16  # what a task of create-dataset reads to get its thousand rows
_WRITERS = 2
_ENCODINGS = (
    parquet.Encodings(  # a part is written in half the time of the default, at half the size
        no_dictionary=("image_id", "image_uri", "capture_event_id"),
        delta=("captured_at",),
        statistics=("capture_event_id", "location_id", "captured_at"),
    )
)


def run(config: InventoryConfig) -> Manifest:
    """Read the source whole, check it, and write the inventory; on an error nothing is written."""
    config = _absolute(config)
    inputs = _inputs_if_begun(config)
    if inputs:
        finished = finished_run(config.output_uri, "inventory", _fields(config, inputs))
        if finished is not None:
            return finished
    inventory, inputs = run_both(lambda: _read(config), lambda: inputs or _inputs_of_files(config))
    missing = _missing_files(config, inventory.images)
    if config.same_content:
        inventory = _compared(config, inventory)
    if not inputs and isinstance(inventory.images, AssembledImages):
        inputs = _inputs_of_folder(config, inventory.images.source)
    fields = _fields(config, inputs)
    with open_run(config.output_uri, "inventory", fields, overwrite=config.overwrite) as run:
        return run if isinstance(run, Manifest) else _write(config, run, inventory, missing, inputs)


def _write(
    config: InventoryConfig,
    run: Run,
    inventory: Inventory,
    missing: Findings,
    inputs: dict[str, str],
) -> Manifest:
    _, (checked, statistics) = run_both(
        lambda: _write_parts(config.output_uri, inventory.images),
        lambda: (_checks(config, inventory.images), _statistics(inventory)),
    )
    inventory = _with(inventory, *checked, missing)
    findings_uri = storage.join(config.output_uri, FINDINGS_FILE)
    parquet.write_table(findings_uri, inventory.findings.table())
    manifest = run.finish(
        Manifest(
            kind="inventory",
            config=config.result_fields(),
            inputs=inputs,
            rows_in=len(inventory.images),
            rows_out=len(inventory.images),
            classes={head: _classes(labels) for head, labels in statistics.items()},
            meta=list(inventory.meta),
            findings=dict(inventory.findings.counts),
            summary=_summary(inventory, statistics),
        )
    )
    logger.info("wrote %d images to %s", manifest.rows_out, config.output_uri)
    return manifest


def _absolute(config: InventoryConfig) -> InventoryConfig:
    config = config.replaced(
        source_uri=storage.absolute(config.source_uri),
        output_uri=storage.absolute(config.output_uri),
    )
    if isinstance(config, MegadetectorInventoryConfig):
        return config.replaced(inventory_uri=storage.absolute(config.inventory_uri))
    if isinstance(config, TimedInventoryConfig) and config.clock_corrections_uri is not None:
        uri = storage.absolute(config.clock_corrections_uri)
        return config.replaced(clock_corrections_uri=uri)
    return config


def _inputs_if_begun(config: InventoryConfig) -> dict[str, str]:
    """Fingerprint of a source file if an inventory may already exist in the output; else empty.

    The content of a folder is known only when it has been read.
    """
    may_be_there = not config.overwrite and is_begun(config.output_uri)
    return _inputs_of_files(config) if may_be_there and storage.is_file(config.source_uri) else {}


def _fields(config: InventoryConfig, inputs: dict[str, str]) -> dict[str, Any]:
    return {"source": type(config).__name__, **config.result_fields(), "inputs": inputs}


def _write_parts(output_uri: str, images: AssembledImages | StoredImages) -> None:
    """Write the rows as part-00000.parquet, …, each made when its turn comes."""

    def write(start: int) -> None:
        uri = storage.join(output_uri, f"{part_stem(start // _ROWS_PER_PART)}.parquet")
        rows = images.rows(start, start + _ROWS_PER_PART)
        parquet.write_table(uri, rows, rows_per_group=_ROWS_PER_GROUP, encodings=_ENCODINGS)

    with ThreadPoolExecutor(_WRITERS) as pool:
        list(pool.map(write, range(0, len(images), _ROWS_PER_PART)))


def _read(config: InventoryConfig) -> Inventory:
    readers: dict[type[InventoryConfig], Callable[[Any], Inventory]] = {
        CsvInventoryConfig: _read_csv,
        DirInventoryConfig: _read_dir,
        ImagesInventoryConfig: _read_tree,
        JsonInventoryConfig: lambda config: read_json(
            config.source_uri, strip_prefix=config.strip_prefix
        ),
        CocoInventoryConfig: lambda config: read_coco(
            config.source_uri, strip_prefix=config.strip_prefix, **_gaps(config)
        ),
        CamtrapDpInventoryConfig: lambda config: read_camtrap_dp(
            config.source_uri,
            strip_prefix=config.strip_prefix,
            machine_labels=config.machine_labels,
            **_gaps(config),
        ),
        MegadetectorInventoryConfig: _read_boxes,
    }
    return readers[type(config)](config)


def _gaps(config: TimedInventoryConfig) -> dict[str, Any]:
    return {
        "gap_s": config.event_gap_s,
        "max_images": config.max_images_per_event,
        "corrections": clock_corrections(config),
    }


def _read_csv(config: CsvInventoryConfig) -> Inventory:
    columns = CsvColumns(
        event_column=config.event_column,
        image_columns=config.image_columns,
        path_columns=config.path_columns,
        head_columns=config.head_columns,
        meta_columns=config.meta_columns,
        location_column=config.location_column,
        deployment_column=config.deployment_column,
        captured_at_column=config.captured_at_column,
        strip_prefix=config.strip_prefix,
        time_format=config.time_format,
    )
    return read_csv(config.source_uri, columns, **_gaps(config))


def _read_dir(config: DirInventoryConfig) -> Inventory:
    found = images_below(config.source_uri, time_from=(), n_threads=config.read_threads)
    return _with(read_dir(config.source_uri, found.files), found.findings)


def _read_tree(config: ImagesInventoryConfig) -> Inventory:
    return read_image_folder(config, config.source_uri, n_threads=config.read_threads)


def _read_boxes(config: MegadetectorInventoryConfig) -> Inventory:
    manifest = read_manifest(config.inventory_uri, "inventory")
    heads, meta = tuple(manifest.classes), tuple(manifest.meta)
    rows = parquet.read_folder(config.inventory_uri)
    rows = conform(rows, inventory_schema(heads, meta), where=config.inventory_uri)
    inventory = add_boxes(config.source_uri, rows, heads=heads, meta=meta)
    n_repeated = manifest.findings.get(IMAGES_OF_SEVERAL_EVENTS, 0)  # create-dataset asks for it
    return _with(inventory, Findings().counted(**{IMAGES_OF_SEVERAL_EVENTS: n_repeated}))


def _checks(config: InventoryConfig, images: AssembledImages | StoredImages) -> list[Findings]:
    if not isinstance(images, AssembledImages):  # rows of another inventory were checked with it
        return []
    observations_E, heads = images.observations, tuple(images.source.labels)
    rare = config.rare_class_events if isinstance(config, LabelledInventoryConfig) else 0
    return [
        check_labels(observations_E, heads, rare_class_events=rare),
        check_images(images),
        check_clocks(
            images.source.image_uris,
            images.source.captured_at,
            images.cameras,
            now=datetime.now(UTC),
        ),
    ]


def _missing_files(config: InventoryConfig, images: AssembledImages | StoredImages) -> Findings:
    if not config.check_files:
        return Findings()
    root, n_threads = config.image_root_uri, config.read_threads
    return missing_files(images.uris, root_uri=root, n_threads=n_threads)


def _compared(config: InventoryConfig, inventory: Inventory) -> Inventory:
    """The inventory with the hash of each file, by which `create-dataset` reports leakage.

    Raises:
        ConfigError: of a few dozen files none is there.
    """
    images = inventory.images
    chosen = pa.array(rows_to_look_for(len(images)))
    require_reachable(
        images.uris.take(chosen).to_pylist(),
        root_uri=config.image_root_uri,
        allow=(),
        n_rows=len(images),
        may_be_missing=config.check_files,  # then they are listed
    )
    hashes = content_hashes(
        images.uris, root_uri=config.image_root_uri, n_threads=config.read_threads
    )
    inventory = replace(inventory, images=images.with_content(hashes))
    return _with(inventory, same_content(images.uris, hashes))


def _with(inventory: Inventory, *findings: Findings) -> Inventory:
    for others in findings:
        inventory = replace(inventory, findings=inventory.findings.plus(others))
    return inventory


def _inputs_of_files(config: InventoryConfig) -> dict[str, str]:
    """Source URI -> SHA-256 of its content; empty for image folders."""
    if isinstance(config, DirInventoryConfig | ImagesInventoryConfig):
        return {}
    corrections = digest_of_corrections(config) if isinstance(config, TimedInventoryConfig) else {}
    if isinstance(config, CamtrapDpInventoryConfig):
        files = [storage.digest(uri) for uri in package_files(config.source_uri)]
        return {config.source_uri: fingerprint(files), **corrections}
    inputs = {config.source_uri: storage.digest(config.source_uri), **corrections}
    if isinstance(config, MegadetectorInventoryConfig):
        inputs[config.inventory_uri] = manifest_fingerprint(config.inventory_uri)
    return inputs


def _inputs_of_folder(config: InventoryConfig, source: SourceRows) -> dict[str, str]:
    """Fingerprint of an image folder: its file names and, if read, capture times."""
    columns = {"image_uri": source.image_uris}
    if source.captured_at is not None:
        columns["captured_at"] = source.captured_at
    inputs = {config.source_uri: table_fingerprint(pa.table(columns))}
    return inputs | (
        digest_of_corrections(config) if isinstance(config, TimedInventoryConfig) else {}
    )


def _statistics(inventory: Inventory) -> dict[str, list[dict[str, Any]]]:
    statistics = count_labels(inventory.images.observations, inventory.heads)
    return {
        head: [{"label": c.label, "count": c.count, "share": c.share} for c in counts]
        for head, counts in statistics.items()
    }


def _classes(labels: list[dict[str, Any]]) -> list[str]:
    return sorted(row["label"] for row in labels if row["label"] is not None)


def _summary(inventory: Inventory, statistics: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    counts: dict[str, Any] = {"events": inventory.images.n_events}
    corrections = inventory.findings.cases(CORRECTIONS)
    if corrections:
        counts["clock corrections"] = [
            {"deployment": row["row"], "correction": row["detail"]} for row in corrections
        ]
    examples = _examples(inventory.findings)
    if examples:
        counts["examples of findings"] = examples
    for head, labels in statistics.items():
        counts[f"labels of {head} (per observation)"] = labels
    return counts


def _examples(findings: Findings) -> list[dict[str, Any]]:
    """The first cases of each kind that has any; all of them are in `_findings.parquet`."""
    shown = [(kind, n, findings.examples(kind)) for kind, n in findings.counts.items()]
    return [{"finding": k, "count": n, "such as": "; ".join(e)} for k, n, e in shown if e]
