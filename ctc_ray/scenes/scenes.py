"""Draw camera-trap scenes for the demo and the tests: a small but realistic task.

Every location has its own landscape, so a model is tested on landscapes that it has never seen.
Nights are infrared, animals walk from frame to frame, and a few files are broken.

Shape letters: H height, W width, C channels.
"""

import csv
import io
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageDraw, ImageFont

from ctc_ray.files import storage
from ctc_ray.scenes.animals import SPECIES, draw_animal
from ctc_ray.scenes.landscapes import draw_landscape

BLANK = "blank"
N_FRAMES = 3
SIZE = (640, 480)

_COLUMNS = ("event", *(f"image{k}" for k in range(1, N_FRAMES + 1)), "species", "count", "location")
_FIRST_DAY = datetime(2024, 3, 1)
_BLANK_SHARE, _NIGHT_SHARE = 0.25, 0.35
_JPEG_QUALITY = 85


@dataclass(frozen=True)
class Scene:
    """One capture event in front of a camera; `species` None is a blank."""

    location: int
    species: str | None = None
    count: int = 0
    night: bool = False
    n_frames: int = N_FRAMES


@dataclass(frozen=True)
class Scenes:
    """The files that `write_scenes` wrote."""

    csv_uri: str
    broken: dict[str, str]
    """Name of a broken file below the folder -> truncated, not an image, missing or empty."""


@dataclass(frozen=True)
class _Walker:
    """One walking animal; positions and lengths are shares of the frame's width."""

    species: str
    x: float
    feet: float
    step: float
    body: float
    stride: float


def write_scenes(folder_uri: str, *, n_events: int, n_locations: int, seed: int) -> Scenes:
    """Write the images `<location>/<event>_<k>.jpg` and `events.csv` with one row per event.

    Events have 1 to 3 frames. The columns are event, image1 to image3 (paths below the folder, or
    empty), species ("blank" is a class), count, location and night. With sixteen events or more,
    four files are broken in four ways: see `Scenes`. Equal arguments give equal bytes.
    """
    rng = np.random.default_rng([seed, 1])
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow([*_COLUMNS, "night"])
    breaks = _plan_breaks(n_events)
    broken: dict[str, str] = {}
    for index in range(n_events):
        scene = _draw_scene(rng, index % n_locations)
        if index in breaks:
            scene = replace(scene, n_frames=N_FRAMES)
        event, location = f"E{index:05d}", f"L{scene.location:02d}"
        names = []
        for k, jpeg in enumerate(draw_event(int(rng.integers(1 << 32)), scene), start=1):
            name = f"{location}/{event}_{k}.jpg"
            names.append(name)
            if k == 2 and index in breaks:
                broken[name] = breaks[index]
            content = _break(jpeg, broken.get(name))
            if content is not None:
                storage.write_bytes(storage.join(folder_uri, name), content)
        night = "yes" if scene.night else "no"
        names += [""] * (N_FRAMES - len(names))
        writer.writerow([event, *names, scene.species or BLANK, scene.count, location, night])
    csv_uri = storage.join(folder_uri, "events.csv")
    storage.write_bytes(csv_uri, table.getvalue().encode())
    return Scenes(csv_uri, broken)


def _draw_scene(rng: np.random.Generator, location: int) -> Scene:
    night = bool(rng.random() < _NIGHT_SHARE)
    n_frames = int(rng.integers(1, N_FRAMES + 1))
    if rng.random() < _BLANK_SHARE:
        return Scene(location, night=night, n_frames=n_frames)
    species = SPECIES[rng.integers(len(SPECIES))]
    count = int(rng.choice([1, 2, 3], p=[0.6, 0.25, 0.15]))
    return Scene(location, species, count, night, n_frames)


def _plan_breaks(n_events: int) -> dict[int, str]:
    """Index of an event -> how its second image is broken; empty with fewer than 16 events."""
    kinds = ("truncated", "not an image", "missing", "empty")
    if n_events < 4 * len(kinds):
        return {}
    indices = (n_events * (2 * k + 1) // 8 - k * (k + 1) // 2 for k in range(len(kinds)))
    return dict(zip(indices, kinds, strict=True))


def _break(jpeg: bytes, kind: str | None) -> bytes | None:
    """The content of the file after it is broken; None if the file is to be missing."""
    if kind is None:
        return jpeg
    return {
        "truncated": jpeg[: len(jpeg) * 2 // 3],
        "not an image": b"<html><body>404 Not Found</body></html>\n",
        "empty": b"",
    }.get(kind)


def draw_event(seed: int, scene: Scene, *, size: tuple[int, int] = SIZE) -> list[bytes]:
    """The frames of a capture event as JPEGs with EXIF time and camera, one per second.

    The landscape depends on the location alone, all else on the seed and the scene.

    Args:
        size: width and height in pixels.
    """
    rng = np.random.default_rng([seed, 2])
    began = _began(rng, night=scene.night)
    walkers = _walkers(rng, scene)
    light = float(rng.uniform(0.8, 1.1))
    celsius = int(rng.integers(4, 16)) + (0 if scene.night else 12)
    frames = []
    for k in range(scene.n_frames):
        landscape = draw_landscape(scene.location, size)
        frame_HWC = _expose(_compose(landscape, walkers, k), rng, night=scene.night, light=light)
        at = began + timedelta(seconds=k)
        frames.append(_to_jpeg(frame_HWC, at, f"L{scene.location:02d}  {celsius}C"))
    return frames


def _began(rng: np.random.Generator, *, night: bool) -> datetime:
    seconds = int(rng.integers(8 * 3600))
    hours = 21 if night else 8
    return _FIRST_DAY + timedelta(days=int(rng.integers(300)), hours=hours, seconds=seconds)


def _walkers(rng: np.random.Generator, scene: Scene) -> list[_Walker]:
    """The animals of a scene, from far to near; all walk in one direction."""
    if scene.species is None:
        return []
    body = float(rng.uniform(0.20, 0.34)) * (0.8 if scene.species == "giraffe" else 1)
    step = float(rng.choice([-1, 1]) * rng.uniform(0.02, 0.07))
    middle = float(rng.uniform(0.3, 0.7)) - step * (scene.n_frames - 1) / 2
    feet = float(rng.uniform(0.60, 0.68))
    walkers = []
    for k in range(scene.count):
        shift = (k - (scene.count - 1) / 2) * min(1.1 * body, 0.3) + float(rng.uniform(-0.02, 0.02))
        near = float(rng.uniform(-0.03, 0.03))
        size = body * (1 + 3 * near)
        walkers.append(
            _Walker(scene.species, middle + shift, feet + near, step, size, float(rng.random()))
        )
    return sorted(walkers, key=lambda walker: walker.feet)


def _compose(landscape: Image.Image, walkers: list[_Walker], k: int) -> Image.Image:
    """The landscape with the animals at their positions in frame `k`."""
    frame = landscape.copy()
    width = frame.width
    for walker in walkers:
        animal = draw_animal(
            walker.species,
            body_length=walker.body * width,
            stride=walker.stride + 0.3 * k,
            faces_left=walker.step < 0,
        )
        x = round((walker.x + k * walker.step) * width - animal.width / 2)
        y = round(walker.feet * width)
        _shade(frame, (x, y), animal.width, round(0.05 * walker.body * width))
        frame.paste(animal, (x, y - animal.height), animal)
    return frame


def _shade(frame: Image.Image, corner: tuple[int, int], width: int, depth: int) -> None:
    shadow = Image.new("L", (width, 2 * depth + 1))
    ImageDraw.Draw(shadow).ellipse((0.1 * width, 0, 0.85 * width, 2 * depth), fill=110)
    frame.paste((12, 14, 10), (corner[0], corner[1] - depth), shadow)


def _expose(
    scene: Image.Image, rng: np.random.Generator, *, night: bool, light: float
) -> npt.NDArray[np.uint8]:
    """The pixels of the sensor: gray with infrared flash at night, in colour by day, and noisy."""
    width, height = scene.size
    left, top = (int(k) for k in rng.integers(0, 64, 2))
    noise_HW = _noise(width + 64, height + 64)[top : top + height, left : left + width]
    if night:
        flash_HW = np.asarray(scene.convert("L"), np.float32) * (_vignette(width, height) * light)
        return np.repeat(_clipped(flash_HW + 1.6 * noise_HW)[..., None], 3, axis=2)
    return _clipped(np.asarray(scene, np.float32) * np.float32(light) + noise_HW[..., None])


def _clipped(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    return values.clip(0, 255).astype(np.uint8)


@lru_cache(maxsize=4)
def _noise(width: int, height: int) -> npt.NDArray[np.float32]:
    rng = np.random.default_rng(3)
    return rng.normal(0, 4, (height, width)).astype(np.float32)


@lru_cache(maxsize=4)
def _vignette(width: int, height: int) -> npt.NDArray[np.float32]:
    """Brightness of the infrared flash: weaker towards the corners and in the distance."""
    x = np.linspace(-1, 1, width, dtype=np.float32)[None, :]
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    reach = np.clip(y + 1.1, 0.3, 1)
    return np.asarray(1.05 * reach * np.exp(-0.9 * (x * x + y * y)), np.float32)


def _to_jpeg(frame_HWC: npt.NDArray[np.uint8], at: datetime, note: str) -> bytes:
    """The frame as a JPEG with the banner and the EXIF data of a camera.

    Args:
        note: text in the banner, after the time.
    """
    frame = Image.fromarray(frame_HWC)
    width, height = frame.size
    pen = ImageDraw.Draw(frame)
    bar = max(8, height // 20)
    pen.rectangle((0, height - bar, width, height), fill=(0, 0, 0))
    text = f"{at:%Y-%m-%d %H:%M:%S}   {note}"
    font = ImageFont.load_default(0.7 * bar)
    pen.text((bar / 2, height - 0.95 * bar), text, fill=(255, 255, 255), font=font)
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "CTC"
    exif[ExifTags.Base.Model] = "Drawn scene"
    taken = f"{at:%Y:%m:%d %H:%M:%S}"
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = taken
    buffer = io.BytesIO()
    frame.save(buffer, "JPEG", quality=_JPEG_QUALITY, exif=exif)
    return buffer.getvalue()
