"""The maker note of Reconyx HyperFire cameras: time, trigger and frame, which EXIF lacks there.

16-bit numbers in little-endian order (as ExifTool's table Reconyx::Main describes them): at 0 the
version, at 7 the frame and the number of frames of the trigger, at 9 the event number (high half
first), at 11 second, minute, hour, month, day and year.
"""

import struct
from dataclasses import dataclass
from datetime import datetime

_VERSION = 0xF101
_LAYOUTS = (2, 3)  # of other cameras that begin with the version by chance, none has these
_N_WORDS = 17


@dataclass(frozen=True)
class Trigger:
    """What a camera says of the trigger of an image."""

    event_number: int
    """Counts the events of the camera; begins again when the camera is reset."""
    frame: int
    """Number of the image within its event, from 1; 0: not part of a series."""


@dataclass(frozen=True)
class MakerNote:
    """The time, as a time and as text, and the trigger."""

    time: datetime | None
    """Local time of the camera; None if it is not a date."""
    text: str
    trigger: Trigger


def read_maker_note(note: bytes, make: str | None) -> MakerNote | None:
    """The maker note of a Reconyx HyperFire; None if it is of another camera.

    Args:
        note: the content of EXIF's MakerNote.
        make: EXIF's Make.
    """
    if len(note) < 2 * _N_WORDS:
        return None
    words = struct.unpack_from(f"<{_N_WORDS}H", note)
    is_reconyx = words[1] in _LAYOUTS or (make or "").strip().upper() == "RECONYX"
    if words[0] != _VERSION or not is_reconyx:
        return None
    second, minute, hour, month, day, year = words[11:17]
    text = f"{year:04}:{month:02}:{day:02} {hour:02}:{minute:02}:{second:02}"
    try:
        time = datetime(year, month, day, hour, minute, second)
    except ValueError:
        time = None
    return MakerNote(time, text, Trigger((words[9] << 16) + words[10], words[7]))
