"""What a training leaves as files of TensorBoard's; the same history gives the same bytes.

`tensorboard --logdir MODEL` shows it, and as runs of their own `speed` and `images`; of a trial of
a search also `hparams`. A file of a store must be copied first: TensorBoard reads s3:// only with a
library of its own.
"""

import io
import struct
from collections.abc import Mapping, Sequence
from typing import Any

from tensorboardX.crc32c import crc32c
from tensorboardX.proto.api_pb2 import Status
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.plugin_hparams_pb2 import (
    HParamsPluginData,
    SessionEndInfo,
    SessionStartInfo,
)
from tensorboardX.proto.summary_pb2 import Summary, SummaryMetadata

from ctc_ray.config.training import MONITORED

_NAME = "events.out.tfevents.0.ctc"
EVENTS_FILE = f"tensorboard/{_NAME}"
SPEED_EVENTS_FILE = f"tensorboard/speed/{_NAME}"
IMAGES_EVENTS_FILE = f"tensorboard/images/{_NAME}"
HPARAMS_EVENTS_FILE = f"tensorboard/hparams/{_NAME}"
SPEED = ("seconds", "images_per_s", "waiting_share")
"""How fast an epoch was: how long it took, images of training and validation per second, and the
share of the time in which there was no batch."""
_MASK = 0xA282EAD8  # of TFRecord's checksums


def events_of(history: Sequence[Mapping[str, float]]) -> bytes:
    """The events: a scalar per column and epoch, e.g. `species/val_accuracy`.

    There are no times: epoch k has the time of k seconds.

    Args:
        history: one row per epoch, with its number, from 1, as `epoch`.
    """
    content = _begun()
    for row in history:
        epoch = int(row["epoch"])
        values = [
            Summary.Value(tag=_tag(name), simple_value=value)
            for name, value in row.items()
            if name != "epoch" and "_n_" not in name
        ]
        _write(content, Event(wall_time=epoch, step=epoch, summary=Summary(value=values)))
    return content.getvalue()


def events_of_image(tag: str, png: bytes, *, width: int, height: int) -> bytes:
    """One image, before the first epoch."""
    image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=png)
    content = _begun()
    _write(content, Event(summary=Summary(value=[Summary.Value(tag=tag, image=image)])))
    return content.getvalue()


def events_of_trial(
    sample: Mapping[str, Any], final: Mapping[str, float], *, epoch: int, is_sound: bool
) -> bytes:
    """What TensorBoard's HPARAMS tab shows of a trial that has ended.

    Args:
        sample: setting -> its value.
        final: the metrics that compare trials.
        epoch: the last one.
        is_sound: whether the trial has not failed.
    """
    start = SessionStartInfo()
    for name, value in sample.items():
        match value:
            case bool():
                start.hparams[name].bool_value = value
            case int() | float():
                start.hparams[name].number_value = value
            case _:
                start.hparams[name].string_value = str(value)
    status = Status.Value("STATUS_SUCCESS" if is_sound else "STATUS_FAILURE")
    content = _begun()
    for name, part in (
        ("session_start_info", {"session_start_info": start}),
        ("session_end_info", {"session_end_info": SessionEndInfo(status=status)}),
    ):
        told = HParamsPluginData(**part, version=0).SerializeToString(deterministic=True)
        plugin = SummaryMetadata.PluginData(plugin_name="hparams", content=told)
        value = Summary.Value(tag=f"_hparams_/{name}", metadata=SummaryMetadata(plugin_data=plugin))
        _write(content, Event(summary=Summary(value=[value])))
    metrics = [Summary.Value(tag=name, simple_value=value) for name, value in final.items()]
    _write(content, Event(wall_time=epoch, step=epoch, summary=Summary(value=metrics)))
    return content.getvalue()


def _begun() -> io.BytesIO:
    content = io.BytesIO()
    _write(content, Event(wall_time=0.0, file_version="brain.Event:2"))
    return content


def _tag(column: str) -> str:
    """Groups the columns of a head: `val_accuracy_species` is `species/val_accuracy`."""
    for metric in MONITORED:
        for split in ("train", "val"):
            prefix = f"{split}_{metric}_"
            if column.startswith(prefix):
                return f"{column[len(prefix) :]}/{split}_{metric}"
    return f"{'speed' if column in SPEED else 'training'}/{column}"


def _write(content: io.BytesIO, event: Event) -> None:
    """One record: its length and its bytes, each with a checksum."""
    data = event.SerializeToString(deterministic=True)
    for part in (struct.pack("<Q", len(data)), data):
        content.write(part)
        checksum = crc32c(part)
        masked = (((checksum >> 15) | (checksum << 17)) + _MASK) & 0xFFFFFFFF
        content.write(struct.pack("<I", masked))
