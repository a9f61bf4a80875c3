"""A Camtrap DP package as an inventory; N media, M observations, D deployments."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ctc_ray.columns.factorize import factorize
from ctc_ray.config.choices import MachineLabels
from ctc_ray.errors import SchemaError
from ctc_ray.files import storage
from ctc_ray.inventory.clock_corrections import NO_CORRECTIONS, ClockCorrections
from ctc_ray.inventory.events.assemble import TEXT, Inventory, SourceRows, assemble
from ctc_ray.inventory.findings import Findings, unreadable_times
from ctc_ray.inventory.sources.boxes import Ints, box_lists, is_beyond_image
from ctc_ray.inventory.sources.camtrap_events import (
    Intervals,
    find_intervals,
    prefix_repeated_event_ids,
)
from ctc_ray.inventory.sources.camtrap_labels import labels_of_observations, observations_of_choice
from ctc_ray.inventory.sources.camtrap_package import CamtrapPackage, as_numbers, read_package
from ctc_ray.inventory.sources.gap_events import group_by_gap, in_camera_order_by
from ctc_ray.inventory.sources.paths import portable_paths
from ctc_ray.inventory.sources.times import parse_instants, parse_times

_EDGES = ("bboxX", "bboxY", "bboxWidth", "bboxHeight")
_EVENT = ("eventID", "sequenceID")  # the latter in 0.1, where media have it too

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class _Media:
    ids: pa.Array
    uris: pa.Array
    deployments: pa.Array
    timestamps: pa.Array
    is_image: Bools


def read_camtrap_dp(
    uri: str,
    *,
    gap_s: float,
    max_images: int | None = None,
    strip_prefix: str | None = None,
    machine_labels: MachineLabels = "where-unlabelled",
    corrections: ClockCorrections = NO_CORRECTIONS,
) -> Inventory:
    """The inventory of a Camtrap DP package, 0.1 to 1.0.2.

    Heads: `species` is the scientific name, or the observation type if that is blank, human,
    vehicle, unknown or unclassified. count, lifeStage, sex and behavior are heads if any
    observation has a value.

    Events: a medium is in the first of these that is known:

    1. the event given in the medium's row or in its media-level observations
    2. an event of its deployment, if the interval of an event-level observation contains the
       medium's time (compared in UTC)
    3. likewise by the interval of a media-level observation of another medium
    4. an event made by gaps in time

    A label that a model gave (classificationMethod) is left out where a person has labelled the
    image or its event, see `machine_labels`. The numbers of one species of an image, or of a whole
    event, add up: one adult and two young foxes are three foxes, without a lifeStage.

    Observations of a whole event replace the observations of its single media, unless all of them
    are unclassified. An observation "blank" is left out if its event has another label.

    `captured_at` is the time on the camera's clock. Videos and sounds are findings, not rows. A
    relative file path is relative to the package's folder. The location is the deployment's
    locationID, else its locationName, else its coordinates.

    Args:
        uri: see `read_package`.
        gap_s: see `group_by_gap`.
        max_images: see `group_by_gap`.
        strip_prefix: see `portable_paths`.
        machine_labels: keep all labels of models, or only these.
        corrections: applied to the times of media. The times of observations are by the same
            clock and are compared with the media as both were written.

    Raises:
        ConfigError: a file of the package does not exist.
        SchemaError: a file cannot be read, or the package has no image.
    """
    package = read_package(uri)
    media, found = _media(package, where=uri, strip_prefix=strip_prefix)
    media_of, found = _media_of_observations(package, media, found)
    event_ids, rows_of, found = _named_events(package, media, media_of, found)
    times = parse_times(media.timestamps)
    locations, found = _locations(package, media, found)
    corrected = corrections.find(times, media.deployments, locations)
    instants = corrected.of(parse_instants(media.timestamps))
    event_ids, order = _all_events(media, event_ids, instants, gap_s=gap_s, max_images=max_images)
    rank_N = np.empty(len(order), np.int64)
    rank_N[order] = np.arange(len(order))
    events = factorize(event_ids, sort=True)[0].astype(np.int64)
    of_choice, found = observations_of_choice(
        package, rows_of, events, media_of, machine_labels, found
    )
    labels, kept, found = labels_of_observations(package, of_choice, events, media_of, found)
    observed = np.where(rows_of >= 0, rank_N[rows_of], -1)[kept]
    by_row = np.argsort(observed, kind="stable")
    chosen = pa.array(order)
    found = found.plus(unreadable_times(media.uris, media.timestamps, times))
    found = found.plus(_unreadable_times(package)).plus(corrected.findings)
    boxes, found = _boxes(package, media_of, media, found)
    is_image = media.is_image[order]
    images = np.flatnonzero(is_image)
    of_images = chosen.take(pa.array(images))
    rows = SourceRows(
        event_ids=event_ids.take(chosen),
        image_rows=images,
        image_uris=media.uris.take(of_images),
        observation_rows=observed[by_row],
        labels={
            head: values.take(pa.array(np.flatnonzero(kept)[by_row]))
            for head, values in labels.items()
        },
        location_ids=locations.take(chosen),
        deployment_ids=media.deployments.take(chosen),
        captured_at=corrected.of(times).take(of_images),
        boxes=None if boxes is None else boxes.take(of_images),
    )
    return assemble(rows, where=uri, findings=found)


def _unreadable_times(package: CamtrapPackage) -> Findings:
    """The times of deployments and observations that cannot be read."""
    found = Findings()
    for table, identifier, names in (
        ("deployments", "deploymentID", ("deploymentStart", "deploymentEnd", "start", "end")),
        ("observations", "observationID", ("eventStart", "eventEnd", "timestamp")),
    ):
        rows = package.column(table, identifier)
        for name in names:
            texts = package.column(table, name)
            found = found.plus(unreadable_times(rows, texts, parse_instants(texts)))
    return found


def _media(
    package: CamtrapPackage, *, where: str, strip_prefix: str | None
) -> tuple[_Media, Findings]:
    ids, paths = (package.column("media", name) for name in ("mediaID", "filePath"))
    if len(ids) == 0:
        raise SchemaError(f"{where}: the table media has no row")
    if ids.null_count:
        raise SchemaError(f"{where}: {ids.null_count} of {len(ids)} media have no mediaID")
    kinds = package.column("media", "fileMediatype")
    is_sound = pc.fill_null(pc.match_substring_regex(kinds, "^(?i:video|audio)/"), False)
    set_aside = is_sound.to_numpy(zero_copy_only=False)
    has_path = paths.is_valid().to_numpy(zero_copy_only=False)
    first = np.zeros(len(ids), bool)
    codes = ids.dictionary_encode().indices.to_numpy()
    first[np.unique(codes, return_index=True)[1]] = True
    paths, found = portable_paths(paths, where=where, strip_prefix=strip_prefix)
    found = (
        found.listed("media_not_images", ids.filter(is_sound), kinds.filter(is_sound))
        .listed("media_without_path", ids.filter(pa.array(~has_path & ~set_aside)))
        .listed("repeated_media_ids", ids.filter(pa.array(~first)))
    )
    is_remote = pc.fill_null(pc.match_substring(paths, "://"), True)
    below = pc.replace_substring_regex(paths, r"^(\./)+", "")
    root = pa.scalar(storage.join(package.root_uri, "x")[:-1], TEXT)
    joined = pc.binary_join_element_wise(root, below, pa.scalar("", TEXT))
    uris = pc.if_else(is_remote, paths, joined)
    deployments = package.column("media", "deploymentID")
    timestamps = package.column("media", "timestamp")
    return _Media(ids, uris, deployments, timestamps, ~set_aside & has_path), found


def _media_of_observations(
    package: CamtrapPackage, media: _Media, found: Findings
) -> tuple[Ints, Findings]:
    """The index of each observation's medium; -1: of a whole event, or the medium is unknown."""
    media_ids = package.column("observations", "mediaID")
    indices = pc.index_in(media_ids, value_set=media.ids, skip_nulls=True)
    wrong = pc.and_(media_ids.is_valid(), indices.is_null())
    names = package.column("observations", "observationID")
    lost = pc.fill_null(names.filter(wrong), "?")
    found = found.listed("observations_of_unknown_media", lost, media_ids.filter(wrong))
    return indices.fill_null(-1).to_numpy().astype(np.int64), found


def _named_events(
    package: CamtrapPackage, media: _Media, media_of: Ints, found: Findings
) -> tuple[pa.Array, Ints, Findings]:
    """The events that the package gives.

    Returns:
        Event id of each medium, null where it has none; for each observation its medium, or any
        medium of its event (-1: none); the findings.
    """
    deployments = package.column("observations", "deploymentID")
    media_events = package.column("media", "sequenceID"), media.deployments
    (own, named), repeated = prefix_repeated_event_ids(
        [media_events, (package.column("observations", *_EVENT), deployments)]
    )
    found = found.listed("event_ids_of_several_deployments", repeated)
    names = package.column("observations", "observationID")
    begun, ended = (
        package.column("observations", name, "timestamp") for name in ("eventStart", "eventEnd")
    )
    starts, ends = parse_instants(begun), parse_instants(pc.coalesce(ended, begun))
    of_event = package.column("observations", "mediaID").is_null()
    is_timed = pc.and_(pc.and_(starts.is_valid(), ends.is_valid()), deployments.is_valid())
    nameless = pc.binary_join_element_wise(
        deployments, starts.cast(TEXT), ends.cast(TEXT), pa.scalar(" ", TEXT)
    )
    named = pc.if_else(pc.and_(named.is_null(), of_event), nameless, named)
    single = np.flatnonzero((media_of >= 0) & named.is_valid().to_numpy(zero_copy_only=False))
    first = np.full(len(media.ids), -1, np.int64)
    first[media_of[single[::-1]]] = single[::-1]  # the last one assigned, the first, is kept
    event_ids = pc.coalesce(own, named.take(pa.array(first, mask=first < 0)))
    differs = pc.not_equal(
        named.take(pa.array(single)), event_ids.take(pa.array(media_of[single]))
    ).to_numpy(zero_copy_only=False)
    several = pa.array(np.unique(media_of[single[differs.astype(bool)]]))
    found = found.listed("media_of_several_events", media.ids.take(several))
    of_frame = pc.and_(pc.invert(of_event), named.is_valid())
    for own_time in (of_event, of_frame):  # some frames of an event may have no observation
        timed = np.flatnonzero(pc.and_(own_time, is_timed).to_numpy(zero_copy_only=False))
        inside = _inside(media, deployments, (starts, ends), timed)
        event_ids = pc.coalesce(event_ids, named.take(pa.array(inside, mask=inside < 0)))
    rows = pc.index_in(named, value_set=event_ids, skip_nulls=True).fill_null(-1).to_numpy()
    whole = of_event.to_numpy(zero_copy_only=False)
    rows_of = np.where(whole, rows.astype(np.int64), media_of)
    lost = pc.and_(pa.array(rows_of < 0), of_event)
    found = found.listed("event_observations_without_media", pc.fill_null(names.filter(lost), "?"))
    return event_ids, rows_of, found


def _inside(
    media: _Media, deployments: pa.Array, times: tuple[pa.Array, pa.Array], timed: Ints
) -> Ints:
    """The observation whose time interval contains each medium's time; -1: none.

    Args:
        deployments: deployment of each observation.
        times: start and end of each observation.
        timed: the observations to consider.
    """
    instants = parse_instants(media.timestamps)
    known = pc.and_(instants.is_valid(), media.deployments.is_valid())
    dated = np.flatnonzero(known.to_numpy(zero_copy_only=False))
    both = pa.concat_arrays([media.deployments, deployments])
    codes = both.dictionary_encode().indices.fill_null(-1).to_numpy().astype(np.int64)
    of_media, of_rows = codes[: len(media.ids)], codes[len(media.ids) :]
    starts, ends = (time.cast(pa.int64()).fill_null(0).to_numpy()[timed] for time in times)
    moments = instants.cast(pa.int64()).fill_null(0).to_numpy()[dated]
    intervals = Intervals(of_rows[timed], starts, ends)
    found = find_intervals(of_media[dated], moments, intervals)
    result = np.full(len(media.ids), -1, np.int64)
    result[dated[found >= 0]] = timed[found[found >= 0]]
    return result


def _all_events(
    media: _Media,
    event_ids: pa.Array,
    instants: pa.Array,
    *,
    gap_s: float,
    max_images: int | None,
) -> tuple[pa.Array, Ints]:
    """The event id of each medium, missing ones made by gaps in time; the media sorted by time.

    Media of one event and time are in the order of the camera's counter.
    """
    rest = np.flatnonzero(event_ids.is_null().to_numpy(zero_copy_only=False))
    names = pc.coalesce(media.uris, media.ids)
    chosen = pa.array(rest)
    columns = [column.take(chosen) for column in (names, instants, media.deployments)]
    grouped = group_by_gap(*columns, gap_s=gap_s, max_images=max_images)
    group_N = np.full(len(media.ids), -1, np.int64)
    group_N[rest[grouped.order]] = np.arange(len(rest))
    by_gap = grouped.event_ids.cast(TEXT).take(pa.array(group_N, mask=group_N < 0))
    event_ids = pc.coalesce(event_ids, by_gap)
    return event_ids, in_camera_order_by({"time": instants, "event": event_ids}, names)


def _locations(
    package: CamtrapPackage, media: _Media, found: Findings
) -> tuple[pa.Array, Findings]:
    """The location of each medium: its deployment's locationID, locationName or coordinates."""
    names = [package.column("deployments", name) for name in ("locationID", "locationName")]
    coordinates = [package.column("deployments", name) for name in ("latitude", "longitude")]
    names.append(pc.binary_join_element_wise(*coordinates, pa.scalar(" ", TEXT)))
    deployments = package.column("deployments", "deploymentID")
    indices = pc.index_in(media.deployments, value_set=deployments, skip_nulls=True)
    lost = pc.and_(media.deployments.is_valid(), indices.is_null())
    ids = media.ids.filter(lost)
    found = found.listed("media_of_unknown_deployments", ids, media.deployments.filter(lost))
    return pc.coalesce(*names).take(indices), found


def _boxes(
    package: CamtrapPackage, media_of: Ints, media: _Media, found: Findings
) -> tuple[pa.Array | None, Findings]:
    """The list of boxes of each medium; None if the package has no box."""
    given = [package.column("observations", name) for name in _EDGES]
    confidences = package.column(
        "observations", "classificationProbability", "classificationConfidence"
    )
    boxes = np.stack([as_numbers(values) for values in given], axis=1)
    is_box = ~np.isnan(boxes).any(axis=1)
    is_given = np.any([v.is_valid().to_numpy(zero_copy_only=False) for v in given], axis=0)
    names = pc.fill_null(package.column("observations", "observationID"), "?")
    wrong = is_given & ~(is_box & (media_of >= 0))
    is_box &= media_of >= 0
    found = found.listed("unreadable_boxes", names.filter(pa.array(wrong)))
    found = found.counted(boxes_beyond_the_image=int(is_beyond_image(boxes[is_box]).sum()))
    if not is_box.any():
        return None, found
    kinds = package.column("observations", "observationType")
    categories = pc.coalesce(package.column("observations", "scientificName"), kinds)
    has_list = np.zeros(len(media.ids), bool)
    has_list[media_of[is_box]] = True
    scores = as_numbers(confidences)[is_box]
    chosen = pa.array(is_box)
    lists = box_lists(
        media_of[is_box],
        boxes[is_box],
        categories.filter(chosen),
        pa.array(scores, mask=np.isnan(scores)),
        has_list,
    )
    return lists, found
