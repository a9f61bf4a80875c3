"""Labels of a Camtrap DP package: which observations give them, and what they are.

N media, M observations.
"""

from typing import assert_never

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ctc_ray.columns.arrays import TEXT
from ctc_ray.config.choices import MachineLabels
from ctc_ray.inventory.findings import Findings
from ctc_ray.inventory.sources.blanks import blanks_beside_labels
from ctc_ray.inventory.sources.boxes import Ints
from ctc_ray.inventory.sources.camtrap_package import CamtrapPackage
from ctc_ray.inventory.sources.counts import add_up, whole_numbers

_NAMELESS = ("blank", "human", "vehicle", "unknown", "unclassified")
_FURTHER_HEADS = {
    "count": ("count",),
    "lifeStage": ("lifeStage",),
    "sex": ("sex",),
    "behavior": ("behavior", "behaviour"),  # the latter in 0.1
}

Bools = npt.NDArray[np.bool_]


def labels_of_observations(
    package: CamtrapPackage, rows_of: Ints, events_N: Ints, media_of: Ints, found: Findings
) -> tuple[dict[str, pa.Array], Bools, Findings]:
    """Head -> label of each observation; which observations are kept; the findings.

    Args:
        rows_of: a medium of each observation's event; -1: none.
        events_N: event index of each medium.
        media_of: medium of each media-level observation; -1: none.
    """
    species = _species(package)
    labels = {"species": species}
    for head, names in _FURTHER_HEADS.items():
        values = package.column("observations", *names)
        if values.null_count < len(values):
            labels[head] = whole_numbers(values) if head == "count" else values
    kept = rows_of >= 0
    events = np.where(kept, events_N[rows_of], -1)
    is_classified = pc.fill_null(pc.not_equal(species, "unclassified"), True)
    of_event = media_of < 0
    described = np.zeros(events_N.max() + 1, bool)
    described[events[kept & of_event & is_classified.to_numpy(zero_copy_only=False)]] = True
    is_replaced = kept & ~of_event & described[events]
    kept &= ~is_replaced
    is_blank = pc.fill_null(pc.equal(species, "blank"), False).to_numpy(zero_copy_only=False)
    chosen = np.flatnonzero(kept)
    beside = blanks_beside_labels(events[chosen], species.take(pa.array(chosen)), is_blank[chosen])
    kept[chosen[beside]] = False
    units = np.where(of_event, len(media_of) + events, media_of)
    units = _of_one_observer(package, labels, np.where(kept, units, -1))
    labels, remain = add_up(labels, units, counts="count", by="species")
    found = found.counted(
        media_observations_of_described_events=int(is_replaced.sum()),
        blank_beside_labelled=int(beside.sum()),
        observations_added_up=int((kept & ~remain).sum()),
    )
    return labels, kept & remain, found


def _of_one_observer(package: CamtrapPackage, labels: dict[str, pa.Array], units_M: Ints) -> Ints:
    """The units, of which only those stay that one observer has divided into different kinds.

    What two people, or a person and a model, say of an image is the same animal seen twice; so may
    be two rows that agree in life stage, sex and behaviour. The others become -1.
    """
    names = ("classificationMethod", "classifiedBy")
    observers = [package.column("observations", name) for name in names]
    kinds = [labels[head] for head in ("lifeStage", "sex", "behavior") if head in labels]
    codes = [_codes(values) for values in (*observers, *kinds)]
    together = np.flatnonzero(units_M >= 0)
    observer = np.stack([units_M[together], *(c[together] for c in codes[: len(observers)])])
    kind = np.stack([units_M[together], *(c[together] for c in codes[len(observers) :])])
    n_units = int(units_M.max()) + 1 if len(units_M) else 0
    n_observers = np.bincount(np.unique(observer, axis=1)[0], minlength=n_units)
    n_kinds = np.bincount(np.unique(kind, axis=1)[0], minlength=n_units)
    n_rows = np.bincount(units_M[together], minlength=n_units)
    divided = (n_observers == 1) & (n_kinds == n_rows)
    result = units_M.copy()
    result[together[~divided[units_M[together]]]] = -1
    return result


def _codes(values: pa.Array) -> Ints:
    encoded = values.dictionary_encode(null_encoding="encode").indices
    codes: Ints = encoded.to_numpy(zero_copy_only=False).astype(np.int64)
    return codes


def observations_of_choice(
    package: CamtrapPackage,
    rows_of: Ints,
    events_N: Ints,
    media_of: Ints,
    machine_labels: MachineLabels,
    found: Findings,
) -> tuple[Ints, Findings]:
    """`rows_of` with -1 for observations of models or people that are left out; the findings.

    Args:
        rows_of: a medium of each observation's event; -1: none.
        events_N: event index of each medium.
        media_of: medium of each media-level observation; -1: none.
    """
    methods = package.column("observations", "classificationMethod")
    is_machine = pc.fill_null(pc.equal(pc.utf8_lower(methods), "machine"), False)
    machine = is_machine.to_numpy(zero_copy_only=False) & (rows_of >= 0)
    species = _species(package)
    is_label = pc.fill_null(pc.not_equal(species, "unclassified"), False)
    person = ~machine & (rows_of >= 0) & is_label.to_numpy(zero_copy_only=False)
    is_animal = pc.fill_null(pc.not_equal(species, "blank"), False)
    animal = person & is_animal.to_numpy(zero_copy_only=False)
    events = np.where(rows_of >= 0, events_N[rows_of], -1)
    of_event = media_of < 0
    match machine_labels:
        case "where-unlabelled":
            of_animal, of_whole, of_medium = (
                np.isin(where, where[chosen])
                for where, chosen in (
                    (events, animal),
                    (events, person & of_event),
                    (media_of, person & ~of_event),
                )
            )
            # that one frame is blank says nothing about the others of its event
            labelled = events_N[np.unique(media_of[person & ~of_event])]
            n_events = int(events_N.max()) + 1
            n_labelled, n_media = (np.bincount(e, minlength=n_events) for e in (labelled, events_N))
            of_all_media = np.where(events >= 0, (n_labelled == n_media)[events], False)
            by_event = of_animal | of_whole | of_all_media
            left_out = machine & np.where(of_event, by_event, of_whole | of_medium)
        case "keep":
            left_out = np.zeros(len(machine), bool)
        case "only":
            left_out = ~machine
        case _:
            assert_never(machine_labels)
    found = found.counted(
        machine_labels=int((machine & ~left_out).sum()),
        machine_labels_left_out=int((machine & left_out).sum()),
        labels_of_people_left_out=int((person & left_out).sum()),
    )
    return np.where(left_out, -1, rows_of), found


def _species(package: CamtrapPackage) -> pa.Array:
    kinds = package.column("observations", "observationType")
    names = package.column("observations", "scientificName")
    is_nameless = pc.is_in(kinds, value_set=pa.array(_NAMELESS, TEXT))
    return pc.if_else(is_nameless, kinds, names)
