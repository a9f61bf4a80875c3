"""Recognise by its first bytes whether a file is an image, something else, or unknown."""

import posixpath

SIGNATURE_BYTES = 512
"""Number of bytes from the start of a file that are compared with signatures."""

_NO_IMAGE = (  # (offset, signature, description)
    *((0, b"%PDF", "a PDF"), (0, b"\xd0\xcf\x11\xe0", "an OLE file, as Thumbs.db is")),
    *((4, b"ftyp", "a video"), (4, b"moov", "a video"), (4, b"mdat", "a video")),
    *((4, b"wide", "a video"), (8, b"AVI ", "a video"), (0, b"\x1a\x45\xdf\xa3", "a video")),
    *((0, b"\x30\x26\xb2\x75", "a video"), (0, b"\0\0\x01\xba", "a video")),  # wmv, mpeg
    *((0, b"PK\x03\x04", "an archive"), (0, b"\x1f\x8b", "an archive")),
    *((0, b"7z\xbc\xaf", "an archive"), (0, b"Rar!", "an archive")),
    *((0, b"\0\x05\x16\x07", "a resource fork of macOS"), (0, b"SQLite", "a database")),
    (0, b"\0\0\0\x01Bud1", "a .DS_Store of macOS"),
)
_NOT_DECODED = ((0, b"\xff\x0a"), (4, b"JXL "), (0, b"\0\0\x01\0"))  # JPEG XL, icons
_DECODED = (
    *((0, b"\xff\xd8"), (0, b"\x89PNG"), (0, b"GIF8"), (0, b"II*\0"), (0, b"MM\0*")),
    *((0, b"II+\0"), (0, b"MM\0+"), (8, b"WEBP"), (0, b"8BPS"), (4, b"\x11\xaf")),
    *((4, b"\x12\xaf"), (4, b"jP  "), (0, b"\xff\x4f\xff\x51"), (0, b"BM")),
    *((0, b"P4\n"), (0, b"P5\n"), (0, b"P6\n"), (0, b"P5 "), (0, b"P6 ")),
)
_IMAGES_IN_FTYP = frozenset(
    {
        b"avif",
        b"avis",
        b"heic",
        b"heix",
        b"hevc",
        b"hevx",
        b"heim",
        b"heis",
        b"mif1",
        b"msf1",
        b"crx ",
    }
)
_EXTENSIONS = frozenset(
    (
        *("jpg", "jpeg", "jpe", "jfif", "mpo", "png", "apng", "tif", "tiff", "bmp", "dib", "gif"),
        *("webp", "avif", "avifs", "heic", "heif", "jp2", "j2k", "jpx", "jpf", "jxl", "ico"),
        *("ppm", "pgm", "pbm", "pnm", "psd", "fli", "flc", "cr3"),
    )
)
_TEXT_BYTES = bytes({*range(0x20, 0x7F), *range(0x80, 0x100), *b"\t\n\r\f"})


def is_something_else(head: bytes) -> bool:
    """Whether a file begins like text, a PDF, a video, HEIC or another file that is not decoded.

    Args:
        head: the first bytes of the file.
    """
    if head[8:12] in (b"avif", b"avis"):
        return False
    known = any(head.startswith(signature, offset) for offset, signature, _ in _NO_IMAGE)
    other = any(head.startswith(signature, offset) for offset, signature in _NOT_DECODED)
    return known or other or _is_text(head)


def has_image_extension(path: str) -> bool:
    """Whether a file is named like an image."""
    return posixpath.splitext(posixpath.basename(path))[1][1:].lower() in _EXTENSIONS


def not_an_image(path: str, head: bytes) -> str | None:
    """Description of a file that is clearly not an image; None if it is, or was, an image.

    A file with the extension of an image counts as an image with any bytes, so a damaged image gets
    a row with its failure. Exceptions are the `._name.jpg` files of macOS. For all other names, the
    bytes decide.

    Args:
        head: the first `SIGNATURE_BYTES` of the file, or more.
    """
    head, name = head[:SIGNATURE_BYTES], posixpath.basename(path)
    is_named_so = has_image_extension(path)
    if _is_image(head) or (is_named_so and not name.startswith("._")):
        return None
    for offset, signature, what in _NO_IMAGE:
        if head.startswith(signature, offset):
            return what
    if is_named_so:
        return None
    if not head:
        return "an empty file without the extension of an image"
    return "text" if _is_text(head) else "of an unknown kind, without the extension of an image"


def _is_image(head: bytes) -> bool:
    if head[4:8] == b"ftyp":
        return head[8:12] in _IMAGES_IN_FTYP
    known = any(head.startswith(signature, offset) for offset, signature in _DECODED + _NOT_DECODED)
    return known and not _is_text(head)


def _is_text(head: bytes) -> bool:
    return head[:1].isascii() and not head.translate(None, delete=_TEXT_BYTES)
