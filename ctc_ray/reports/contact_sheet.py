"""Draw many images on one sheet, each with a caption."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO

from PIL import Image, ImageDraw, ImageFont

from ctc_ray.images.decode import decode
from ctc_ray.schemas import Failure

_MAX_PIXELS = 100_000_000
_GAP = 6
_PAPER, _INK, _FAINT_INK, _NO_IMAGE = "white", "black", "dimgray", "silver"
_LINE_SPACING = 1.3


@dataclass(frozen=True)
class Tile:
    """A small image, or the failure that it had, and the lines below it."""

    image: Image.Image | Failure
    caption: Sequence[str]


def thumbnail(raw: bytes, side: int) -> Image.Image | Failure:
    """The image scaled down to fit into a square, or its failure.

    A truncated image shows the pixels that are left.

    Args:
        raw: content of the image file.
        side: of the square, in pixels.
    """
    image_HWC = decode(raw, smallest_side=side, max_pixels=_MAX_PIXELS, truncated="keep")
    if isinstance(image_HWC, Failure):
        return image_HWC
    image = Image.fromarray(image_HWC)
    image.thumbnail((side, side))
    return image


def contact_sheet(tiles: Sequence[Tile], *, columns: int, side: int) -> bytes:
    """The tiles as a PNG, in rows from left to right; equal tiles give equal bytes.

    A failure is a gray square with its code. A line that is wider than its tile loses its end.

    Args:
        columns: number of tiles in a row; a sheet with fewer tiles is narrower.
        side: of the square around an image, in pixels.
    """
    size = max(10, side / 13)
    font, line_height = ImageFont.load_default(size), round(_LINE_SPACING * size)
    n_lines = max((len(tile.caption) for tile in tiles), default=0)
    columns = max(1, min(columns, len(tiles)))
    n_rows = max(1, -(-len(tiles) // columns))
    step_x, step_y = side + _GAP, side + n_lines * line_height + _GAP
    sheet = Image.new("RGB", (columns * step_x + _GAP, n_rows * step_y + _GAP), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for index, tile in enumerate(tiles):
        left, top = _GAP + index % columns * step_x, _GAP + index // columns * step_y
        if isinstance(tile.image, Failure):
            draw.rectangle((left, top, left + side - 1, top + side - 1), _NO_IMAGE)
            middle = (left + side / 2, top + side / 2)
            draw.text(middle, _fitting(tile.image.value, font, side), _INK, font, anchor="mm")
        else:
            width, height = tile.image.size
            sheet.paste(tile.image, (left + (side - width) // 2, top + side - height))
        for line, text in enumerate(tile.caption):
            at = (left, top + side + line * line_height)
            draw.text(at, _fitting(text, font, side), _FAINT_INK if line else _INK, font)
    png = BytesIO()
    sheet.save(png, "PNG")
    return png.getvalue()


def _fitting(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """The text as one line, shortened to at most `width` pixels."""
    # Pillow's own font has no accents, and draws a box for an unknown letter.
    letters = unicodedata.normalize("NFKD", text)
    text = " ".join("".join(x for x in letters if not unicodedata.combining(x)).split())
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "...") > width:
        text = text[:-1]
    return text + "..."
