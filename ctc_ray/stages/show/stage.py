"""`ctc show`: what a folder holds, finished or not; nothing in it is changed.

in:  any folder that a command has written
out: a summary, and on request a contact sheet and a sheet of what training sees (PNG)
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa

from ctc_ray.config.base import to_yaml
from ctc_ray.config.show import ShowConfig
from ctc_ray.console import summaries
from ctc_ray.console.summaries import Summary
from ctc_ray.errors import ConfigError
from ctc_ray.files import parquet, storage
from ctc_ray.runs.append_journal import growing_by
from ctc_ray.runs.manifest import MADE_BY, MANIFEST_NAME, Manifest, is_complete, read_manifest
from ctc_ray.runs.output_folder import run_progress
from ctc_ray.schemas import FAILURES_FILE, FINDINGS_FILE
from ctc_ray.stages.show import gallery

_CLASSES_SHOWN, _FAILURES_SHOWN = 20, 20


def run(config: ShowConfig) -> Summary:
    """Read the manifest, and of the tables only what was asked for."""
    uri = storage.absolute(config.uri)
    if not storage.is_folder(uri):
        found = "is a file; name its folder" if storage.exists(uri) else "no such folder"
        raise ConfigError(f"{uri}: {found}")
    if not is_complete(uri):
        return _unfinished(config, uri)
    manifest = read_manifest(uri)
    short = summaries.of_manifest(manifest, output_uri=uri)
    findings = _findings(uri, manifest)
    failed = _failed_images(uri, manifest) if config.failures else []
    sheet = gallery.draw(config, uri, manifest) if config.contact_sheet else {}
    if config.augmented:
        from ctc_ray.stages.show import augmented  # torch, which all else does without

        sheet |= augmented.draw(config, uri, manifest)
    growing = growing_by(uri, done=manifest.inputs)
    facts = [
        short.facts[0],
        ("written by", f"{MADE_BY[manifest.kind]}, version {manifest.ctc_version}"),
        *short.facts[1:],
        *((f"classes of {head}", _classes(names)) for head, names in manifest.classes.items()),
        *((("metadata", ", ".join(manifest.meta)),) if manifest.meta else ()),
        *(("made from", f"{source} {digest}") for source, digest in manifest.inputs.items()),
        *(
            ("append not finished", f"of {source}; run the same command again to resume")
            for source in growing
        ),
        *((name.replace("_", " "), str(value)) for name, value in sheet.items()),
    ]
    cases: list[Mapping[str, Any]] = [
        {k: "" if v is None else v for k, v in row.items()} for row in findings
    ]
    extra = {"findings": cases, "failed images": failed}
    values = {
        "uri": uri,
        "complete": True,
        "growing_by": growing,
        **manifest.model_dump(mode="json", exclude={"shards"}),
        "finding_examples": findings,
        **({"failed_images": failed} if config.failures else {}),
        **sheet,
    }
    return Summary(
        facts,
        values,
        [*short.tables, *((name, rows) for name, rows in extra.items() if rows)],
        f"\nconfiguration\n{_as_yaml(manifest.config)}",
    )


def _unfinished(config: ShowConfig, uri: str) -> Summary:
    try:
        found_run = run_progress(uri)
    except ConfigError:  # says what to do with an output folder, which this is not
        found_run = None
    if found_run is None or found_run.kind not in MADE_BY:  # another program's, or of a later ctc
        raise ConfigError(
            f"{uri}: no {MANIFEST_NAME} and no unfinished run of a ctc command; give the folder "
            "that was its --output-uri"
        )
    if config.contact_sheet or config.augmented or config.failures:
        raise ConfigError(
            f"{uri}: is not finished, so it has no contact sheet and no failures yet; "
            f"run `{MADE_BY[found_run.kind]}` again"
        )
    command = MADE_BY[found_run.kind]
    again = "run the same command again to resume"
    if found_run.is_append:
        again = "it was growing; run the same command again, with --append"
    there = f"{found_run.n_files:,}" + (
        "" if found_run.n_planned is None else f" of {found_run.n_planned:,}"
    )
    facts = [
        (found_run.kind, uri),
        ("not finished", f"started by `{command}`; {again}"),
        ("files there", there),
    ]
    values = {
        "uri": uri,
        "complete": False,
        "kind": found_run.kind,
        "command": command,
        "files": found_run.n_files,
        "files_planned": found_run.n_planned,
    }
    return Summary(facts, values)


def _classes(names: list[str]) -> str:
    more = len(names) - _CLASSES_SHOWN
    shown = ", ".join(summaries.numbers_in_order(names)[:_CLASSES_SHOWN])
    return f"{len(names):,}: {shown}" + (f" and {more:,} more" if more > 0 else "")


def _as_yaml(config: Mapping[str, Any]) -> str:
    return to_yaml(json.loads(json.dumps(config))).rstrip()


def _findings(uri: str, manifest: Manifest) -> list[Mapping[str, Any]]:
    """Each kind of finding with its number and its first case."""
    counts: dict[str, int] = manifest.findings
    first: dict[str, dict[str, Any]] = {}
    if counts:
        for rows in _row_groups(storage.join(uri, FINDINGS_FILE)):
            for row in (
                rows.group_by("kind", use_threads=False)
                .aggregate([("row", "first"), ("detail", "first")])
                .to_pylist()
            ):
                first.setdefault(row["kind"], row)
            if first.keys() >= counts.keys():
                break
    return [
        {
            "finding": kind,
            "cases": n,
            "first": first.get(kind, {}).get("row_first"),
            "detail": first.get(kind, {}).get("detail_first"),
        }
        for kind, n in counts.items()
    ]


def _failed_images(uri: str, manifest: Manifest) -> list[Mapping[str, Any]]:
    table_uri = storage.join(uri, FAILURES_FILE)
    if not storage.exists(table_uri):
        raise ConfigError(
            f"--failures: {uri} holds {manifest.kind}, which has no table of failed images; "
            "dataset and predictions have one"
        )
    failed: list[Mapping[str, Any]] = []
    for rows in _row_groups(table_uri):
        failed += rows.slice(0, _FAILURES_SHOWN).to_pylist()
        if len(failed) >= _FAILURES_SHOWN:
            break
    return [
        {"image_uri": row["image_uri"], "event": row["capture_event_id"], "failure": row["failure"]}
        for row in failed[:_FAILURES_SHOWN]
    ]


def _row_groups(uri: str) -> Iterator[pa.Table]:
    if storage.exists(uri):
        with parquet.open_parquet(uri) as file:
            for index in range(file.num_row_groups):
                yield parquet.read_row_group(file, uri, index)
