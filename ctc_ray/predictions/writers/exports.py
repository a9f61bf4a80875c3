"""The files of predictions for other programs and for people, each made of parts.

A part holds the lines of one unit's events, in order. A file is what it opens with, its parts with
something between two of them, and what it closes with. So a part can be made where and when its
unit is, and a file may be larger than the memory.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import assert_never

import pyarrow as pa

from ctc_ray.config.choices import ExportFormat
from ctc_ray.files.csv_text import csv_lines
from ctc_ray.labels import LabelSpace
from ctc_ray.predictions.writers import camera_trap_classifier as original
from ctc_ray.predictions.writers import table


@dataclass(frozen=True)
class Export:
    """A file of predictions."""

    name: str
    part: Callable[[pa.Table, pa.Table], bytes]
    """Makes a part from predictions of images of whole events and those of these events, in equal
    order; without events it is empty."""
    opening: bytes = b""
    between: bytes = b""
    closing: bytes = b""

    def whole(self, parts: Iterable[bytes]) -> Iterator[bytes]:
        """The file in pieces, from its parts in their order."""
        yield self.opening
        is_first = True
        for part in parts:
            if part:
                yield part if is_first else self.between + part
                is_first = False
        yield self.closing


def exports(
    formats: Sequence[ExportFormat],
    label_space: LabelSpace,
    meta: Sequence[str],
    labelled: Sequence[str],
) -> list[Export]:
    """The files of some formats.

    Args:
        meta: metadata fields, without prefix.
        labelled: heads for which the source has labels.
    """
    found: list[Export] = []
    for name in formats:
        match name:
            case "csv":
                found.append(
                    Export(
                        "predictions.csv",
                        lambda _, events: original.csv_part(events, label_space, meta),
                        opening=original.csv_opening(meta),
                    )
                )
            case "json":
                found.append(
                    Export(
                        "predictions.json",
                        lambda images, events: original.json_part(
                            images, events, label_space, meta
                        ),
                        opening=b"{",
                        between=original.JSON_BETWEEN,
                        closing=b"}",
                    )
                )
            case "table":
                found += _tables(label_space, meta, labelled)
            case _:
                assert_never(name)
    return found


def _tables(
    label_space: LabelSpace, meta: Sequence[str], labelled: Sequence[str]
) -> tuple[Export, Export]:
    return (
        Export(
            "predictions_events.csv",
            lambda images, events: table.events_part(images, events, label_space, meta, labelled),
            opening=csv_lines([table.events_header(label_space, meta, labelled)]),
        ),
        Export(
            "predictions_images.csv",
            lambda images, _: table.images_part(images, label_space, meta, labelled),
            opening=csv_lines([table.images_header(label_space, meta, labelled)]),
        ),
    )
