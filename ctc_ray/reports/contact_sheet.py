"""Many images at one glance: tiles with a caption, on one sheet."""

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
    """A small image, or why there is none, and the lines below it."""

    image: Image.Image | Failure
    caption: Sequence[str]


def thumbnail(raw: bytes, side: int) -> Image.Image | Failure:
    """The image scaled down to fit into a square; of a truncated one what is left of it."""
    image_HWC = decode(raw, smallest_side=side, max_pixels=_MAX_PIXELS, truncated="keep")
    if isinstance(image_HWC, Failure):
        return image_HWC
    image = Image.fromarray(image_HWC)
    image.thumbnail((side, side))
    return image


def contact_sheet(tiles: Sequence[Tile], *, columns: int, side: int) -> bytes:
    """The tiles row by row as a PNG; the same tiles give the same bytes.

    A failure is a gray square with its code. Of a line that is too long the end is left out.

    Args:
        columns: tiles side by side; with fewer tiles the sheet is narrower.
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
    """The text as one line, cut where it would be wider than a tile."""
    # Pillow's own font has no accents and draws a box for a letter that it does not have.
    letters = unicodedata.normalize("NFKD", text)
    text = " ".join("".join(x for x in letters if not unicodedata.combining(x)).split())
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "...") > width:
        text = text[:-1]
    return text + "..."
