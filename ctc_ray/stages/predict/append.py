"""Predictions that grow: new and replaced files are scored, and their events answered again.

A helper of `ctc predict --append`. The folder itself says how far an append has come, so that it
resumes whatever has changed since it was killed. An event that has changed is answered in a new
file; the file that has answered it before keeps its rows until all new files are there. Of several
files with the same event, that with the highest number is valid.
"""

from collections.abc import Mapping
from typing import Any

import pyarrow.compute as pc

from ctc_ray.config.prediction import PredictConfig
from ctc_ray.errors import ConfigError
from ctc_ray.files import storage
from ctc_ray.runs.append_journal import is_growing, note_append
from ctc_ray.runs.layout import WORK_FOLDER
from ctc_ray.runs.manifest import MANIFEST_NAME, is_complete
from ctc_ray.runs.output_folder import difference, work_of
from ctc_ray.runs.units import PlanWriter, Unit
from ctc_ray.stages.predict.answer_files import IMAGES, keep_events, part_number
from ctc_ray.stages.predict.export_files import forget_parts
from ctc_ray.stages.predict.growth import Growth, plan_growth, read_answered
from ctc_ray.stages.predict.scoring import ANSWER_FILE
from ctc_ray.stages.predict.sources import Source, versions_now

_SOURCES = ("csv_uri", "inventory_uri", "dataset_uri")  # may be other ones; image ids are theirs
_OF_LABELS = ("head_columns",)  # other labels change no answer
_PLAN = "append"


def require_same_settings(
    output_uri: str, there: Mapping[str, Any], now: Mapping[str, Any], *, bundle_uri: str
) -> None:
    """Check that these predictions can grow by what another run would make.

    Args:
        there: the fields that determine the predictions.
        now: those of this run. It may have another csv, inventory or dataset.

    Raises:
        ConfigError: another setting differs, or the model does.
    """
    old, new = (_settings(fields, bundle_uri) for fields in (there, now))
    if old != new:
        raise ConfigError(
            f"{output_uri}: was made with other settings ({difference(old, new)}); append with the "
            "same ones, or choose another --output-uri"
        )


def _settings(fields: Mapping[str, Any], bundle_uri: str) -> dict[str, Any]:
    """The fields without what the source holds, and where a source lies that may be another."""
    model = {"inputs": {bundle_uri: fields["inputs"].get(bundle_uri)}}
    given = {name: fields.get(name) is not None for name in _SOURCES}
    settings = {name: value for name, value in fields.items() if name not in _OF_LABELS}
    return {**settings, **given, **model}


def begin(growth: Growth, inputs: Mapping[str, str], *, images_per_unit: int) -> list[Unit]:
    """Write the plan; from now on the predictions are not complete.

    Returns:
        The units of all images that are to be answered again.
    """
    uri = growth.answered.uri
    note_append(uri, inputs)
    storage.delete_file(storage.join(uri, MANIFEST_NAME))
    for plan in (_PLAN, IMAGES):  # of a run that was killed
        storage.delete_folder(storage.join(uri, WORK_FOLDER, plan))
    writer = PlanWriter(
        uri,
        IMAGES,
        images_per_unit,
        first=growth.answered.next_number,
        plans=storage.join(WORK_FOLDER, _PLAN),
    )
    writer.add(growth.rows)
    return writer.finish()


def drop_former_answers(growth: Growth) -> list[Unit]:
    """Take the answers that are no longer valid out of the files that were there before.

    Returns:
        These files as units that are done.
    """
    answered, units = growth.answered, []
    unchanged = pc.invert(pc.is_in(answered.rows["capture_event_id"], value_set=growth.changed))
    valid = answered.rows.filter(unchanged).select([ANSWER_FILE, "capture_event_id"])
    n_valid = {v["values"]: v["counts"] for v in pc.value_counts(valid[ANSWER_FILE]).to_pylist()}
    for name, n_rows in answered.n_rows_of_file.items():
        n_left = n_valid.get(name, 0)
        if n_left < n_rows:
            events = valid.filter(pc.equal(valid[ANSWER_FILE], name))["capture_event_id"]
            forget_parts(answered.uri, part_number(name))
            keep_events(answered.uri, name, pc.unique(events))
        if n_left:
            units.append(Unit(name, plan_file="", index=0, n_rows=n_left))
    return units


def require_unchanged(config: PredictConfig, fields: Mapping[str, Any], found: Source) -> None:
    """Check that a run that goes on, or has finished, has the images that it began with.

    Args:
        fields: what determines the predictions.
        found: the source, as it is now.

    Raises:
        ConfigError: images are new or replaced; or an append is not finished.
    """
    uri = config.output_uri
    there = work_of(uri, "predictions") if storage.is_folder(uri) else None
    if there is None:
        return
    is_finished = is_complete(uri)
    if is_growing(uri) and not is_finished:
        raise ConfigError(f"{uri}: an append is not finished; run it again, with --append")
    if _settings(there, config.bundle_uri) != _settings(fields, config.bundle_uri):
        return  # `open_run` raises the error for this
    if not is_finished:
        if there != fields:
            raise ConfigError(
                f"{uri}: the source has changed since this was begun; --append keeps what is "
                "answered and does the rest, --overwrite begins anew"
            )
        return
    rows = found.whole().rows
    growth = plan_growth(read_answered(uri, found.schema), rows, versions_now(config, rows))
    if there != fields or growth.n_replaced:
        raise ConfigError(
            f"{uri}: the source has changed since ({growth}); --append answers for what is new, "
            "--overwrite begins anew"
        )
