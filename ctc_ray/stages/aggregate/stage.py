"""`ctc aggregate`: predictions per capture event from finished predictions per image.

Where the events are those of the predictions, every file of images holds whole events, and units of
work are a few files each. Where the events are others, an event may have images in several files;
`plan` says how they come together.

in:  PREDICTION (a folder of `ctc predict`), on request the events of an INVENTORY
out: EVENT_PREDICTION as events/part-NNNNN.parquet, _findings.parquet, _manifest.json
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from ctc_ray.config.aggregation import AggregateConfig
from ctc_ray.console.progress import Progress
from ctc_ray.files import parquet, storage
from ctc_ray.inventory.findings import Findings
from ctc_ray.labels import LabelSpace
from ctc_ray.predictions.event_counts import count_events
from ctc_ray.predictions.events import without_images
from ctc_ray.runs.executor import Executor, InThreads, Job, run_units
from ctc_ray.runs.failures import count_failures, require_all_rows
from ctc_ray.runs.manifest import Manifest, manifest_fingerprint, read_manifest
from ctc_ray.runs.output_folder import Run, finished_run, open_run
from ctc_ray.runs.unit_worker import UnitWorker
from ctc_ray.runs.units import Unit, missing_units
from ctc_ray.schemas import FINDINGS_FILE, META_PREFIX, labelled_heads
from ctc_ray.stages.aggregate.images import ImageFiles
from ctc_ray.stages.aggregate.new_events import NewEvents, find_new_events, require_fields
from ctc_ray.stages.aggregate.plan import plan_regrouped, plan_whole_events
from ctc_ray.stages.aggregate.work import Aggregator, MovedEvents, RegroupedEvents, WholeEvents
from ctc_ray.stages.cluster.in_process_or_ray import FEW_UNITS, is_on_cluster
from ctc_ray.stages.predict.answer_files import EVENTS, part_name, read_empty_events
from ctc_ray.stages.predict.counts import write_metrics

logger = logging.getLogger(__name__)


def run(config: AggregateConfig, *, executor: Executor | None = None) -> Manifest:
    """Do the units whose events are missing; the manifest comes last.

    Args:
        executor: runs the units; None: threads of this process, or the cluster that it belongs to.
    """
    config = _absolute(config)
    predictions = read_manifest(config.predictions_uri, "predictions")
    require_fields(config, predictions.meta)
    folders = [config.predictions_uri, *filter(None, [config.events_uri])]
    inputs = {uri: manifest_fingerprint(uri) for uri in folders}
    fields = {**config.result_fields(), "inputs": inputs}
    if not config.overwrite:
        finished = finished_run(config.output_uri, "events", fields)
        if finished is not None:
            return finished
    files = ImageFiles.of(config.predictions_uri, predictions)
    new = find_new_events(config, files, predictions.meta)
    for fact, n_images in (new.facts if new else {}).items():
        if n_images:
            logger.warning("aggregate: %d %s", n_images, fact)
    with open_run(config.output_uri, "events", fields, overwrite=config.overwrite) as run:
        if isinstance(run, Manifest):
            return run
        work = _Work(config, run, LabelSpace.from_json(predictions.classes), files, executor)
        n_images = work.whole_events() if new is None else work.regrouped(new)
        return _finish(work, predictions, new, inputs, n_images)


def _absolute(config: AggregateConfig) -> AggregateConfig:
    uris = {name: getattr(config, name) for name in ("predictions_uri", "output_uri", "events_uri")}
    return config.replaced(**{k: storage.absolute(v) for k, v in uris.items() if v is not None})


@dataclass(frozen=True)
class _Work:
    """A run at work."""

    config: AggregateConfig
    run: Run
    label_space: LabelSpace
    files: ImageFiles
    executor: Executor | None

    def whole_events(self) -> int:
        """Answer for the events of the predictions.

        Returns:
            Their images.
        """
        files = self.files.cut(self.config.images_per_unit)
        units = plan_whole_events(files)
        self._do("aggregate", units, WholeEvents(self._aggregator, files))
        empty, _ = read_empty_events(self.config.predictions_uri)
        if empty is not None:
            events = without_images(
                empty,
                self.label_space,
                labelled=self.labelled,
                is_top=self.config.top_k is not None,
            )
            name = part_name(EVENTS, len(units))
            parquet.write_table(storage.join(self.config.output_uri, name), events)
        return sum(self.files.n_rows)

    def regrouped(self, new: NewEvents) -> int:
        """Answer for other events.

        Returns:
            Their images.
        """
        images, config = new.images, self.config
        files = self.files.cut(config.images_per_unit)
        plan = plan_regrouped(config.output_uri, files, images, config.images_per_unit)
        logger.info(
            "aggregate: %d of %d images are in events with images in several units",
            plan.n_moved,
            len(images.rows),
        )
        given = {"capture_event_id", *images.columns}
        columns = [name for name in self.files.schema.names if name not in given]
        if images.columns:  # the metadata of the inventory stand in for all of the predictions
            columns = [name for name in columns if not name.startswith(META_PREFIX)]
        first = RegroupedEvents(self._aggregator, files, columns)
        second = MovedEvents(self._aggregator, plan.parts)
        parts = missing_units(config.output_uri, [part.unit for part in plan.parts])
        if self._is_shuffled_by_ray(parts):
            self._shuffle(plan.units, first, parts, second)
        elif parts or not plan.parts:
            self._do("aggregate", plan.units, first)
            if parts:
                self._do("aggregate: events of several files", parts, second)
        return len(images.rows)

    def _is_shuffled_by_ray(self, parts: Sequence[Unit]) -> bool:
        return self.executor is None and len(parts) > FEW_UNITS and is_on_cluster()

    def _shuffle(
        self,
        units: Sequence[Unit],
        first: RegroupedEvents,
        parts: Sequence[Unit],
        second: MovedEvents,
    ) -> None:
        from ctc_ray.stages.aggregate.ray_shuffle import RayShuffle  # Ray takes seconds to import

        shuffle = RayShuffle(self.run.claim, first, second)
        progress = Progress("aggregate: events of several files", sum(u.n_rows for u in parts))
        for n_rows in shuffle.run(units, parts):
            progress.add(n_rows)
        progress.finish()

    def _do(self, what: str, units: Sequence[Unit], worker: Callable[[int], UnitWorker]) -> None:
        missing = missing_units(self.config.output_uri, list(units))
        n_rows = sum(unit.n_rows for unit in units)
        progress = Progress(what, n_rows)
        progress.skip(n_rows - sum(unit.n_rows for unit in missing))
        job = Job(self.config.output_uri, self.run.claim, worker)
        run_units(self._executor(missing), missing, job, report=progress.add)
        progress.finish()

    def _executor(self, units: Sequence[Unit]) -> Executor:
        if self.executor is not None:
            return self.executor
        if len(units) <= FEW_UNITS or not is_on_cluster():
            return InThreads()
        from ctc_ray.stages.cluster.executor import RayExecutor  # Ray takes seconds to import

        return RayExecutor()

    @property
    def labelled(self) -> list[str]:
        """Heads that images have labels of."""
        return labelled_heads(self.files.schema, self.label_space.heads)

    @property
    def _aggregator(self) -> Aggregator:
        return Aggregator(self.config, self.label_space)

    def failures(self, new: NewEvents) -> dict[str, int]:
        """Failure code -> images of the new events."""
        rows = new.images.rows[new.images.rows >= 0]
        failures = self.files.read_at_once(["failure"]).take(pa.array(rows))
        return count_failures(failures.filter(pc.is_valid(failures["failure"])))


def _finish(
    work: _Work, predictions: Manifest, new: NewEvents | None, inputs: Mapping[str, str], n_in: int
) -> Manifest:
    uri, labels = work.config.output_uri, work.label_space
    counts = count_events(parquet.list_tables(storage.join(uri, EVENTS)), labels)
    require_all_rows(uri, counts.n_images, n_in)
    measured = write_metrics(uri, labels, work.labelled)
    findings = new.findings if new else Findings()
    parquet.write_table(storage.join(uri, FINDINGS_FILE), findings.table())
    finished = Manifest(
        kind="events",
        config=work.config.result_fields(),
        inputs=dict(inputs),
        rows_in=n_in,
        rows_out=counts.n_images,
        failures=work.failures(new) if new else predictions.failures,
        classes=predictions.classes,
        meta=list(new.meta) if new else predictions.meta,
        findings=dict(findings.counts),
        summary={
            "events": counts.n_events,
            **(new.facts if new else {}),
            **counts.tables(),
            **measured,
        },
    )
    work.run.finish(finished)
    logger.info("wrote %d events of %d images to %s", counts.n_events, n_in, uri)
    return finished
