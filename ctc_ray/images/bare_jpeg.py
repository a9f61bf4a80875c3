"""A JPEG without its metadata, and with every pixel as it was.

Where an endangered animal was photographed is written in EXIF, XMP and the notes of camera makers,
none of which training needs. A JPEG is a list of segments, so these are left out without decoding.
"""

import re

_START, _END = b"\xff\xd8", b"\xff\xd9"
_JFIF, _ADOBE = 0xE0, 0xEE  # both tell a decoder which colours the pixels have
_APPLICATION = range(0xE0, 0xF0)
_COMMENT = 0xFE
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9
_JFIF_BYTES = 12  # of a payload, up to the size of its thumbnail
_ADOBE_BYTES = 12  # the whole payload

_NEXT_MARKER = re.compile(rb"\xff+[^\x00\xff\xd0-\xd7]")  # after pixels: no stuffing, no restart


def strip_jpeg_metadata(raw: bytes) -> bytes | None:
    """The JPEG without application segments, comments, and whatever follows its end.

    Of JFIF and Adobe what decides the colours stays; a thumbnail in JFIF goes. None where the
    segments do not lead to the end of an image.
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
    """Start and end of the segment at a place, a scan together with its pixels."""
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
    """What of a segment (marker, length, payload) a decoder needs."""
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
