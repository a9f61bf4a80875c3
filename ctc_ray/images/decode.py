"""Decode an image file to upright pixels, or to the failure that explains why it has none.

libjpeg-turbo decodes plain JPEGs, nearly all files of camera traps, and scales them while it
decodes. Pillow decodes all other files, and every JPEG that libjpeg-turbo refuses or warns about.
Pillow decides what a file is:

- an image, if Pillow loads it;
- `truncated`, if Pillow loads it only leniently, with a part of the pixels lost;
- `unsupported`, if its first bytes belong to something else: text, PDF, video, an archive, an image
  format that is not decoded (HEIC, JPEG XL, icons);
- `unreadable` otherwise: a damaged header, an erased block, an empty file.

Shape letters: H height, W width, C channels (1 gray or 3 RGB).
"""

import io
import math
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import assert_never

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import ExifTags, Image, ImageFile, TiffImagePlugin

from ctc_ray.config.choices import TruncatedPolicy
from ctc_ray.images import exif, signatures
from ctc_ray.schemas import Failure

Pixels = npt.NDArray[np.uint8]

PILLOW_FORMATS = (
    *("JPEG", "PNG", "TIFF", "BMP", "GIF", "WEBP", "AVIF", "JPEG2000", "PPM", "PSD", "FLI"),
)
"""Formats that Pillow may open. Its other formats run programs (EPS) or have no signature (TGA):
Pillow takes damaged bytes for them."""

_PILLOW_ERRORS = (
    *(ArithmeticError, AssertionError, AttributeError, EOFError, LookupError, MemoryError, OSError),
    *(RuntimeError, SyntaxError, TypeError, ValueError, struct.error, zlib.error),
)
"""Exceptions that Pillow raises for damaged or hostile bytes. UnidentifiedImageError is an OSError,
UnicodeDecodeError a ValueError."""

# colour space of the file -> of the pixels
_PLAIN_JPEG = {"YCbCr": "RGB", "RGB": "RGB", "Gray": "GRAY"}
_DEEP_MODES = frozenset({"I;16", "I;16L", "I;16B", "I;16N", "I", "F"})
_BAND_PIXELS = 1 << 20


EIGHTHS = (1, 2, 3, 4, 5, 6, 7, 8)
"""All scales to which libjpeg-turbo decodes, in eighths of the full size."""
FAST_EIGHTHS = (1, 2, 3, 4, 8)
"""Without the three that take longer than decoding all pixels."""


@dataclass(frozen=True)
class Decoded:
    """Upright pixels, possibly scaled down, and the size of the full image."""

    pixels: Pixels
    """HWC; C is 1 for a gray image, 3 (RGB) otherwise."""
    width: int
    """Width of the full image after it is turned upright, in pixels."""
    height: int
    box: tuple[float, float, float, float]
    """Left, top, right and bottom edge of the image in `pixels`: scaled decoding rounds sizes up,
    so the last row and column may be covered in part."""


def decode(
    raw: bytes, *, smallest_side: int | None, max_pixels: int, truncated: TruncatedPolicy
) -> Pixels | Failure:
    """The image as upright RGB pixels (H, W, 3), or its failure; see `decode_scaled`."""
    decoded = decode_scaled(
        raw, smallest_side=smallest_side, max_pixels=max_pixels, truncated=truncated
    )
    return decoded if isinstance(decoded, Failure) else as_rgb(decoded.pixels)


def as_rgb(image_HWC: Pixels) -> Pixels:
    """The image (H, W, 3); a gray channel is repeated."""
    return image_HWC if image_HWC.shape[2] == 3 else np.repeat(image_HWC, 3, axis=2)


def decode_scaled(
    raw: bytes,
    *,
    smallest_side: int | None,
    max_pixels: int,
    truncated: TruncatedPolicy,
    eighths: Sequence[int] = EIGHTHS,
) -> Decoded | Failure:
    """The upright image, gray or RGB, scaled down where that makes decoding faster.

    Transparent pixels become black. Values of more than 8 bits are scaled from the range of the
    format (12 or 16 bits), or from the image's own range where the format has none (32 bits,
    floats). Only the first frame of an animation or a multi-page file is decoded.

    Args:
        smallest_side: smallest side of the result that the caller needs, in pixels; an image with a
            smaller side is not scaled. None decodes all pixels.
        max_pixels: an image with a larger width * height is `too_large`; checked before decoding.
            Pillow's own limit of 179 million pixels applies too, except to plain JPEGs.
        truncated: "keep" returns an image that has lost a part of its pixels, "fail" the failure.
        eighths: scales to which libjpeg-turbo may decode; ascending, ends with 8.
    """
    if raw.startswith(b"\xff\xd8\xff"):
        plain = decode_plain_jpeg(raw, smallest_side, max_pixels, eighths)
        if plain is not None:
            return plain
    with _pillow.shared():
        strict = _decode_with_pillow(raw, smallest_side, max_pixels)
    if strict is not Failure.UNREADABLE or not raw:
        return strict
    if signatures.is_something_else(raw[: signatures.SIGNATURE_BYTES]):
        return Failure.UNSUPPORTED
    with _pillow.lenient():
        lenient = _decode_with_pillow(raw, smallest_side, max_pixels)
    if isinstance(lenient, Failure):
        return lenient
    match truncated:
        case "keep":
            return lenient
        case "fail":
            return Failure.TRUNCATED
        case _:
            assert_never(truncated)


def decode_plain_jpeg(
    raw: bytes,
    smallest_side: int | None,
    max_pixels: int,
    eighths: Sequence[int] = EIGHTHS,
) -> Decoded | Failure | None:
    """Decode with libjpeg-turbo; None if this is no plain JPEG, or libjpeg-turbo warns about it.

    For the arguments see `decode_scaled`.
    """
    try:
        height, width, space, _ = simplejpeg.decode_jpeg_header(raw, strict=True)
        if space not in _PLAIN_JPEG:
            return None
        if width * height > max_pixels:
            return Failure.TOO_LARGE
        scale = _scale(min(width, height), smallest_side, eighths)
        # simplejpeg takes the smallest scale with this size; 0 is the full size
        least = (0, 0) if scale == 1 else (math.ceil(height * scale), math.ceil(width * scale))
        image_HWC = simplejpeg.decode_jpeg(
            raw, _PLAIN_JPEG[space], min_height=least[0], min_width=least[1], strict=True
        )
    except ValueError:
        return None
    covered = width * scale, height * scale
    return _decoded(image_HWC, exif.orientation(raw), (width, height), covered)


def _scale(shorter: int, smallest_side: int | None, eighths: Sequence[int]) -> float:
    """The smallest of the scales that leaves the shorter side long enough; 1 if none does."""
    if smallest_side is None:
        return 1
    return next((n / 8 for n in eighths if math.ceil(shorter * n / 8) >= smallest_side), 1)


def decode_pillow_image(
    image: Image.Image, *, smallest_side: int | None, max_pixels: int
) -> Decoded | Failure:
    """The image upright, as from a lossless file, or its failure.

    An image that is not loaded yet is loaded; `unreadable` if that fails. For the arguments see
    `decode_scaled`.
    """
    with _pillow.shared(), _one_caller:  # the same image may be in a list twice
        return _decode_image(image, None, smallest_side, max_pixels)


def _decode_with_pillow(
    raw: bytes, smallest_side: int | None, max_pixels: int
) -> Decoded | Failure:
    """Decode with Pillow; `unreadable` if Pillow raises an exception."""
    try:
        with Image.open(io.BytesIO(raw), formats=PILLOW_FORMATS) as image:
            return _decode_image(image, raw, smallest_side, max_pixels)
    except Image.DecompressionBombError:
        return Failure.TOO_LARGE
    except _PILLOW_ERRORS:
        return Failure.UNREADABLE


def _decode_image(
    image: Image.Image, raw: bytes | None, smallest_side: int | None, max_pixels: int
) -> Decoded | Failure:
    """Load an opened image and scale it down.

    Args:
        raw: the bytes of the file. None: the image may be the caller's, and keeps all its pixels.
    """
    width, height = image.size
    if width * height > max_pixels:
        return Failure.TOO_LARGE
    try:
        if raw is not None and smallest_side is not None:
            image.draft(None, (smallest_side, smallest_side))  # scales a JPEG
        image.load()
        factor = 1 if smallest_side is None else max(1, min(image.size) // smallest_side)
        covered = [side / factor for side in _covered((width, height), image.size)]
        small = _shrink(image, factor)
        orientation = _orientation(image, raw or b"")
        return _decoded(np.array(small), orientation, (width, height), (covered[0], covered[1]))
    except Image.DecompressionBombError:
        return Failure.TOO_LARGE
    except _PILLOW_ERRORS:
        return Failure.UNREADABLE


def _orientation(image: Image.Image, raw: bytes) -> int:
    """EXIF orientation of a loaded image; 1 for a TIFF, which Pillow has turned already."""
    if raw.startswith(b"\xff\xd8"):
        return exif.orientation(raw)
    value = image.getexif().get(ExifTags.Base.Orientation)
    return value if isinstance(value, int) else 1


def _covered(size: tuple[int, int], scaled: tuple[int, int]) -> tuple[float, float]:
    """Width and height that an image covers after libjpeg has scaled it, in pixels.

    libjpeg scales by eighths and rounds the size up.
    """
    for eighths in range(8, 0, -1):
        if all(-(-side * eighths // 8) == s for side, s in zip(size, scaled, strict=True)):
            return size[0] * eighths / 8, size[1] * eighths / 8
    return float(scaled[0]), float(scaled[1])  # a file whose header names another size


def _decoded(
    pixels: Pixels, orientation: int, size: tuple[int, int], covered: tuple[float, float]
) -> Decoded:
    image_HWC = pixels if pixels.ndim == 3 else pixels[:, :, None]
    if 5 <= orientation <= 8:
        image_HWC, size = image_HWC.transpose(1, 0, 2), (size[1], size[0])
        covered = covered[1], covered[0]
    height, width = image_HWC.shape[:2]
    left, top, right, bottom = 0.0, 0.0, *covered
    # after the transpose, 5 is like 1, 6 like 2, 7 like 3, 8 like 4
    if orientation in (2, 3, 6, 7):
        image_HWC = image_HWC[:, ::-1]
        left, right = width - right, width - left
    if orientation in (3, 4, 7, 8):
        image_HWC = image_HWC[::-1]
        top, bottom = height - bottom, height - top
    return Decoded(np.ascontiguousarray(image_HWC), *size, (left, top, right, bottom))


def _shrink(image: Image.Image, factor: int) -> Image.Image:
    """The image in mode L or RGB, averaged down by an integer factor.

    The image is converted and averaged in bands, so that 100 million pixels of a palette image, or
    of one with transparency, are never in memory as RGB.
    """
    if image.mode in ("L", "RGB") and not image.has_transparency_data:
        return image.reduce(factor) if factor > 1 else image
    width, height = image.size
    span = _value_range(image)
    rows = factor * max(1, _BAND_PIXELS // (width * factor))
    bands = (image.crop((0, top, width, min(top + rows, height))) for top in range(0, height, rows))
    result: Image.Image | None = None
    for index, band in enumerate(bands):
        part = _to_eight_bits(band, span).reduce(factor)
        if result is None:
            result = Image.new(part.mode, (-(-width // factor), -(-height // factor)))
        result.paste(part, (0, index * rows // factor))
    if result is None:
        raise ValueError("image without pixels")
    return result


def _value_range(image: Image.Image) -> tuple[float, float]:
    """The values that become 0 and 255; (0, 255) for an image of 8 bits."""
    if image.mode not in _DEEP_MODES:
        return 0, 255
    if image.mode in ("I", "F"):
        low, high = image.getextrema()
        return float(low), float(high)  # type: ignore[arg-type]  # tuples only for several bands
    bits = 16
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        bits = image.tag_v2.get(TiffImagePlugin.BITSPERSAMPLE, (16,))[0]
    return 0, 2.0**bits - 1


def _to_eight_bits(band: Image.Image, span: tuple[float, float]) -> Image.Image:
    """The band in mode L or RGB."""
    if band.mode in _DEEP_MODES:
        low, high = span
        with np.errstate(all="ignore"):  # floats may hold anything
            values = (np.asarray(band, np.float32) - low) * (255 / ((high - low) or 1))
        values = np.nan_to_num(values, nan=0, posinf=255, neginf=0).clip(0, 255)
        return Image.fromarray((values + 0.5).astype(np.uint8))
    if band.has_transparency_data:
        rgba = band.convert("RGBA")
        black = Image.new("RGBA", rgba.size, (0, 0, 0, 255))
        return Image.alpha_composite(black, rgba).convert("RGB")
    return band.convert("L" if band.mode in ("1", "L") else "RGB")


class _PillowState:
    """Guards Pillow's process-wide state while several threads decode.

    Leniency is a flag of a module, so a lenient load waits until no other load runs. Warning
    filters are a global list; the last thread to leave restores them.
    """

    def __init__(self) -> None:
        self._entry = threading.Lock()
        self._change = threading.Condition()
        self._n_inside = 0
        self._silence: warnings.catch_warnings[None] | None = None

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Load strictly, with any number of threads at a time."""
        with self._entry:
            self._enter()
        try:
            yield
        finally:
            self._leave()

    @contextmanager
    def lenient(self) -> Iterator[None]:
        """Load images with lost data, with this thread alone."""
        with self._entry:
            with self._change:
                self._change.wait_for(lambda: self._n_inside == 0)
            self._enter()
            before = ImageFile.LOAD_TRUNCATED_IMAGES
            ImageFile.LOAD_TRUNCATED_IMAGES = True
            try:
                yield
            finally:
                ImageFile.LOAD_TRUNCATED_IMAGES = before
                self._leave()

    def _enter(self) -> None:
        with self._change:
            if self._n_inside == 0:
                self._silence = warnings.catch_warnings()
                self._silence.__enter__()
                warnings.filterwarnings("ignore", module=r"PIL\.")
            self._n_inside += 1

    def _leave(self) -> None:
        with self._change:
            self._n_inside -= 1
            if self._n_inside == 0 and self._silence is not None:
                self._silence.__exit__(None, None, None)
            self._change.notify_all()


_pillow = _PillowState()
_one_caller = threading.Lock()
