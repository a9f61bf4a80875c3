"""Remove the metadata of a JPEG without changing its pixels.

EXIF, XMP and the notes of camera makers may hold the location of an endangered animal; training
needs none of them. A JPEG is a list of segments, so metadata segments are removed without decoding.
"""

import re

_START, _END = b"\xff\xd8", b"\xff\xd9"
_JFIF, _ADOBE = 0xE0, 0xEE  # a decoder needs both to know the colour space
_APPLICATION = range(0xE0, 0xF0)
_COMMENT = 0xFE
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9
_JFIF_BYTES = 12  # of the payload, before the size of the thumbnail
_ADOBE_BYTES = 12  # the whole payload

_NEXT_MARKER = re.compile(
    rb"\xff+[^\x00\xff\xd0-\xd7]"
)  # the end of pixels: neither stuffed byte nor restart


def strip_jpeg_metadata(raw: bytes) -> bytes | None:
    """The JPEG without application segments, comments and the bytes after its end.

    JFIF and Adobe segments keep the fields that decide the colour space; a JFIF thumbnail is
    removed. None if the segments do not lead to the end of an image.
    """
    if not raw.startswith(_START):
        return None
    parts, at = [_START], 2
    while (segment := _segment(raw, at)) is not None:
        start, end = segment
        if raw[start + 1] == _END_OF_IMAGE:
            return b"".join([*parts, _END])
        parts.append(_needed(raw[start + 1], raw[start:end]))
        at = end
    return None


def _segment(raw: bytes, at: int) -> tuple[int, int] | None:
    """Start and end of the segment at an offset; a scan includes its pixels.

    None if there is no whole segment.
    """
    while raw[at : at + 2] == b"\xff\xff":  # fill bytes
        at += 1
    if at + 2 > len(raw) or raw[at] != 0xFF:
        return None
    if raw[at + 1] == _END_OF_IMAGE:
        return at, at + 2
    end = at + 2 + int.from_bytes(raw[at + 2 : at + 4], "big")
    if end < at + 4 or end > len(raw):
        return None
    if raw[at + 1] != _START_OF_SCAN:
        return at, end
    found = _NEXT_MARKER.search(raw, end)
    return None if found is None else (at, found.start())


def _needed(marker: int, segment: bytes) -> bytes:
    """The segment (marker, length, payload), reduced to the bytes that a decoder needs."""
    payload = segment[4:]
    if marker == _JFIF and payload.startswith(b"JFIF\0") and len(payload) >= _JFIF_BYTES:
        payload = payload[:_JFIF_BYTES] + b"\0\0"  # a thumbnail of 0 x 0
    elif marker == _ADOBE and payload.startswith(b"Adobe") and len(payload) >= _ADOBE_BYTES:
        payload = payload[:_ADOBE_BYTES]
    elif marker in _APPLICATION or marker == _COMMENT:
        return b""
    else:
        return segment
    return segment[:2] + (len(payload) + 2).to_bytes(2, "big") + payload
