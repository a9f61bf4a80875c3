"""Bytes of an image file -> upright pixels, or the failure that says why there are none.

A plain JPEG, which nearly every file of a camera trap is, goes through libjpeg-turbo, which scales
while it decodes. Everything else, and every JPEG that it refuses or warns about, goes through
Pillow, which has the last word: what it loads is an image, what it loads only leniently is
`truncated`, and the rest is

- `unsupported` where the bytes are recognisably something else: text, PDF, video, an archive, an
  image format that is not decoded (HEIC, JPEG XL, icons);
- `unreadable` otherwise: a damaged header, an erased block, nothing at all.

Shape letters: H height, W width, C channels (1 gray or 3 RGB).
"""

import io
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import ExifTags, Image, ImageFile, TiffImagePlugin

from ctc_ray.config.dataset import TruncatedPolicy
from ctc_ray.images import exif, signatures
from ctc_ray.schemas import Failure

Pixels = npt.NDArray[np.uint8]

PILLOW_FORMATS = (
    *("JPEG", "PNG", "TIFF", "BMP", "GIF", "WEBP", "AVIF", "JPEG2000", "PPM", "PSD", "FLI"),
)
"""Formats that Pillow may open here; others of its formats run programs (EPS) or have no signature
(TGA), so that damaged bytes pass for them."""

_PILLOW_ERRORS = (
    *(ArithmeticError, AssertionError, AttributeError, EOFError, LookupError, MemoryError, OSError),
    *(RuntimeError, SyntaxError, TypeError, ValueError, struct.error, zlib.error),
)
"""What Pillow is known to raise on damaged or hostile bytes; UnidentifiedImageError is an OSError,
UnicodeDecodeError a ValueError."""

_PLAIN_JPEG = {"YCbCr": "RGB", "RGB": "RGB", "Gray": "GRAY"}  # space in the file -> to decode to
_DEEP_MODES = frozenset({"I;16", "I;16L", "I;16B", "I;16N", "I", "F"})
_BAND_PIXELS = 1 << 20


@dataclass(frozen=True)
class Decoded:
    """Upright pixels, perhaps scaled down, and the size of the whole image."""

    pixels: Pixels
    """HWC; C is 1 for a gray image, 3 (RGB) otherwise."""
    width: int
    height: int


def decode(
    raw: bytes, *, smallest_side: int | None, max_pixels: int, truncated: TruncatedPolicy
) -> Pixels | Failure:
    """The image as upright RGB, HWC; see `decode_scaled`."""
    decoded = decode_scaled(
        raw, smallest_side=smallest_side, max_pixels=max_pixels, truncated=truncated
    )
    return decoded if isinstance(decoded, Failure) else as_rgb(decoded.pixels)


def as_rgb(image_HWC: Pixels) -> Pixels:
    """The image with three channels."""
    return image_HWC if image_HWC.shape[2] == 3 else np.repeat(image_HWC, 3, axis=2)


def decode_scaled(
    raw: bytes, *, smallest_side: int | None, max_pixels: int, truncated: TruncatedPolicy
) -> Decoded | Failure:
    """The upright image, gray or RGB, as small as is cheap.

    Transparent pixels are black, like everything outside an image here. More than 8 bits are scaled
    by what the format can hold (12 or 16 bits), or from the image's own least to greatest value
    where that is unknown (32 bits, floats). Of several frames the first is taken.

    Args:
        smallest_side: a hint: the smaller side of the result is at least this, if the image's is;
            None decodes every pixel.
        max_pixels: width * height above which an image is `too_large`, judged before decoding.
            Beyond a plain JPEG, Pillow's own limit of 179 million holds too.
        truncated: "keep" returns an image of which a part is lost, instead of a failure.
    """
    if raw.startswith(b"\xff\xd8\xff"):
        plain = decode_plain_jpeg(raw, smallest_side, max_pixels)
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
    return lenient if truncated == "keep" or isinstance(lenient, Failure) else Failure.TRUNCATED


def decode_plain_jpeg(
    raw: bytes, smallest_side: int | None, max_pixels: int
) -> Decoded | Failure | None:
    """Decode with libjpeg-turbo; None where it is not plain, or not to be trusted."""
    least = smallest_side or 0
    try:
        height, width, space, _ = simplejpeg.decode_jpeg_header(raw, strict=True)
        if space not in _PLAIN_JPEG:
            return None
        if width * height > max_pixels:
            return Failure.TOO_LARGE
        image_HWC = simplejpeg.decode_jpeg(
            raw, _PLAIN_JPEG[space], min_height=least, min_width=least, strict=True
        )
    except ValueError:
        return None
    return _decoded(image_HWC, exif.orientation(raw), (width, height))


def _decode_with_pillow(
    raw: bytes, smallest_side: int | None, max_pixels: int
) -> Decoded | Failure:
    """Decode with Pillow; `unreadable` for whatever it raises."""
    try:
        with Image.open(io.BytesIO(raw), formats=PILLOW_FORMATS) as image:
            width, height = image.size
            if width * height > max_pixels:
                return Failure.TOO_LARGE
            if smallest_side is not None:
                image.draft(None, (smallest_side, smallest_side))  # of a JPEG
            image.load()
            small = _shrink(image, smallest_side)
            return _decoded(np.array(small), _orientation(image, raw), (width, height))
    except Image.DecompressionBombError:
        return Failure.TOO_LARGE
    except _PILLOW_ERRORS:
        return Failure.UNREADABLE


def _orientation(image: ImageFile.ImageFile, raw: bytes) -> int:
    """EXIF orientation of a loaded image; Pillow has already turned a TIFF."""
    if raw.startswith(b"\xff\xd8"):
        return exif.orientation(raw)
    value = image.getexif().get(ExifTags.Base.Orientation)
    return value if isinstance(value, int) else 1


def _decoded(pixels: Pixels, orientation: int, size: tuple[int, int]) -> Decoded:
    image_HWC = pixels if pixels.ndim == 3 else pixels[:, :, None]
    if 5 <= orientation <= 8:
        image_HWC, size = image_HWC.transpose(1, 0, 2), (size[1], size[0])
    # after the transpose: 5 as 1, 6 as 2, 7 as 3, 8 as 4
    if orientation in (2, 3, 6, 7):
        image_HWC = image_HWC[:, ::-1]
    if orientation in (3, 4, 7, 8):
        image_HWC = image_HWC[::-1]
    return Decoded(np.ascontiguousarray(image_HWC), *size)


def _shrink(image: Image.Image, smallest_side: int | None) -> Image.Image:
    """The image in mode L or RGB, averaged down by a whole factor.

    Bands are converted and averaged one after the other, so that 100 million pixels of a palette or
    with transparency never exist as RGB.
    """
    factor = 1 if smallest_side is None else max(1, min(image.size) // smallest_side)
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
    """Values that become 0 and 255 in an image of more than 8 bits."""
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
    """Guards what is global to the process in Pillow's behaviour, for threads that decode at once.

    Leniency is a flag of a module, so a lenient load runs while no other load does. Warnings are
    filtered in a global list that is restored by whoever leaves last.
    """

    def __init__(self) -> None:
        self._entry = threading.Lock()
        self._change = threading.Condition()
        self._n_inside = 0
        self._silence: warnings.catch_warnings[None] | None = None

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Strict loading, by any number of threads."""
        with self._entry:
            self._enter()
        try:
            yield
        finally:
            self._leave()

    @contextmanager
    def lenient(self) -> Iterator[None]:
        """Loading that accepts lost data, by this thread alone."""
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
