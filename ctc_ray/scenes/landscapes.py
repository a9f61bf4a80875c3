"""Draw landscapes for scenes: the view of a camera without animals, one per location.

Shape letters: H height, W width, C channels.
"""

from functools import lru_cache

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

Colour = tuple[int, int, int]

_GROUNDS: tuple[Colour, ...] = ((158, 142, 104), (110, 122, 74), (142, 118, 90), (126, 130, 102))
_SKIES: tuple[Colour, ...] = ((176, 202, 226), (206, 212, 214), (226, 214, 190))
_LEAVES: tuple[Colour, ...] = ((62, 88, 44), (88, 98, 52), (48, 74, 52))


@lru_cache(maxsize=64)
def draw_landscape(location: int, size: tuple[int, int]) -> Image.Image:
    """The landscape of a location, RGB; equal arguments give equal pixels.

    The image is cached: draw into a copy of it.

    Args:
        size: width and height in pixels.
    """
    rng = np.random.default_rng([location, 4])
    width, height = size
    horizon = round(height * rng.uniform(0.28, 0.5))
    image = Image.new("RGB", size, _near(rng, _SKIES))
    pen = ImageDraw.Draw(image)
    ground = _near(rng, _GROUNDS)
    _draw_hills(pen, rng, size, horizon)
    pen.rectangle((0, horizon, width, height), fill=ground)
    leaves = _near(rng, _LEAVES)
    for _ in range(rng.integers(3, 9)):
        _draw_tree(
            pen, rng, (rng.uniform(0, width), horizon + rng.uniform(0, 0.08) * height), leaves
        )
    _draw_grass(pen, rng, size, horizon, ground)
    for _ in range(rng.integers(0, 5)):
        _draw_rock(pen, rng, size, horizon)
    soft = image.filter(ImageFilter.GaussianBlur(width / 640))
    return Image.fromarray(_textured(np.asarray(soft, np.float32), horizon, rng))


def _near(rng: np.random.Generator, colours: tuple[Colour, ...]) -> Colour:
    """A random colour close to one of the given colours."""
    near = np.add(
        colours[rng.integers(len(colours))], rng.integers(-14, 15) + rng.integers(-5, 6, 3)
    )
    red, green, blue = near.tolist()
    return red, green, blue


def _draw_hills(
    pen: ImageDraw.ImageDraw, rng: np.random.Generator, size: tuple[int, int], horizon: int
) -> None:
    width, height = size
    x = np.linspace(0, width, 24)
    for depth in range(2):
        waves = np.zeros_like(x)
        for _ in range(3):
            ripples, shift, rise = rng.uniform((3, 0, 0.01), (14, 6, 0.03))
            waves += np.sin(x / width * ripples + shift) * rise
        top = horizon - height * (0.05 * (2 - depth) + waves)
        shade = int(rng.integers(96, 132)) - 24 * depth
        line = list(zip(x.tolist(), top.tolist(), strict=True))
        pen.polygon([*line, (width, horizon), (0, horizon)], fill=(shade - 12, shade, shade - 20))


def _draw_tree(
    pen: ImageDraw.ImageDraw, rng: np.random.Generator, foot: tuple[float, float], leaves: Colour
) -> None:
    x, y = foot
    tall = float(rng.uniform(0.25, 0.9)) * y
    thick = tall * float(rng.uniform(0.03, 0.07))
    lean = float(rng.uniform(-0.1, 0.1)) * tall
    bark = int(rng.integers(44, 84))
    trunk = [(x - thick, y), (x + thick, y), (x + lean + thick / 2, y - tall), (x + lean, y - tall)]
    pen.polygon(trunk, fill=(bark + 14, bark + 4, bark - 8))
    for _ in range(12):
        radius = tall * float(rng.uniform(0.08, 0.2))
        crown_x = x + lean + float(rng.normal(0, 0.2)) * tall
        crown_y = y - tall + float(rng.normal(0, 0.1)) * tall
        light = int(rng.integers(-18, 19))
        fill = (leaves[0] + light, leaves[1] + light, leaves[2] + light)
        box = (crown_x - radius, crown_y - 0.6 * radius, crown_x + radius, crown_y + 0.6 * radius)
        pen.ellipse(box, fill=fill)


def _draw_grass(
    pen: ImageDraw.ImageDraw,
    rng: np.random.Generator,
    size: tuple[int, int],
    horizon: int,
    ground: Colour,
) -> None:
    """Draw tufts of grass, larger towards the camera."""
    width, height = size
    near = np.sort(rng.random(int(rng.integers(300, 900))))
    for share in near:
        x, y = float(rng.uniform(0, width)), horizon + float(share) * (height - horizon)
        tall = height * (0.008 + 0.06 * float(share)) * float(rng.uniform(0.5, 1.3))
        light = int(rng.integers(-60, 34))
        fill = (ground[0] + light, ground[1] + light + 6, ground[2] + light - 8)
        thick = max(1, round(width / 300 * float(share)))
        for lean in rng.uniform(-0.5, 0.5, 3):
            pen.line((x, y, x + float(lean) * tall, y - tall), fill=fill, width=thick)


def _draw_rock(
    pen: ImageDraw.ImageDraw, rng: np.random.Generator, size: tuple[int, int], horizon: int
) -> None:
    width, height = size
    x, y = float(rng.uniform(0, width)), float(rng.uniform(horizon, height))
    radius = width * float(rng.uniform(0.01, 0.05))
    gray = int(rng.integers(88, 150))
    pen.chord(
        (x - radius, y - radius, x + radius, y + radius), 180, 360, fill=(gray, gray, gray - 8)
    )


def _textured(
    image_HWC: npt.NDArray[np.float32], horizon: int, rng: np.random.Generator
) -> npt.NDArray[np.uint8]:
    """The image with patches of light and shade in several sizes, like leaves and soil."""
    height, width = image_HWC.shape[:2]
    texture_HW = np.zeros((height, width), np.float32)
    for cells, strength in ((6, 10), (24, 6), (96, 8), (320, 8)):
        coarse = rng.normal(0, strength, (cells * 3 // 4, cells)).astype(np.float32)
        fine = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
        texture_HW += np.asarray(fine)
    texture_HW[:horizon] *= 0.3  # the sky is smoother than the ground
    return (image_HWC + texture_HW[..., None]).clip(0, 255).astype(np.uint8)
