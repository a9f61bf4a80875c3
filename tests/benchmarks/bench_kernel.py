"""The resize kernel of create-dataset, beside other ways from a file's bytes to a small JPEG.

CPU time of one thread; "ours" is `to_shard_jpeg` itself. PSNR against full decoding + Lanczos, on
the upright image: of the resized pixels, and of the JPEG that is stored.

Optional: PyTurboJPEG 1.x with libturbojpeg (planes of brightness and colour, resized each by
itself); its lines are left out where it is absent.
"""

import io
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import simplejpeg
import torch
from measure import parse_arguments, photographs
from PIL import Image, ImageOps

from ctc_ray.images import resize
from ctc_ray.images.decode import Pixels, decode_scaled

SIDE, QUALITY, ROUNDS = 400, 75, 5
COMPARATOR = "simplejpeg + OpenCV INTER_AREA"
MAX_PIXELS = 10**8

Filter = Image.Resampling


@dataclass(frozen=True)
class Way:
    """`jpeg` is what is timed; `pixels` the same before it is encoded, None if there are none."""

    jpeg: Callable[[bytes], bytes]
    pixels: Callable[[bytes], Pixels] | None


def target(width: int, height: int) -> tuple[int, int]:
    scale = min(1, SIDE / min(width, height))
    return round(width * scale), round(height * scale)


def encode(image_HWC: Pixels) -> bytes:
    return simplejpeg.encode_jpeg(np.ascontiguousarray(image_HWC), QUALITY, "RGB", "420")


def encoding(pixels: Callable[[bytes], Pixels]) -> Way:
    return Way(lambda raw: encode(pixels(raw)), pixels)


def ours() -> Way:
    def jpeg(raw: bytes) -> bytes:
        return resize.to_shard_jpeg(
            raw, smallest_side=SIDE, quality=QUALITY, max_pixels=MAX_PIXELS, truncated="fail"
        ).jpeg

    def pixels(raw: bytes) -> Pixels:
        decoded = decode_scaled(raw, smallest_side=SIDE, max_pixels=MAX_PIXELS, truncated="fail")
        size = target(decoded.width, decoded.height)
        return resize.shrink(decoded.pixels, *size)

    return Way(jpeg, pixels)


def scaled(raw: bytes) -> tuple[Pixels, tuple[int, int]]:
    height, width, _, _ = simplejpeg.decode_jpeg_header(raw)
    image_HWC = simplejpeg.decode_jpeg(raw, "RGB", min_height=SIDE, min_width=SIDE)
    return image_HWC, target(width, height)


def with_opencv(interpolation: int) -> Way:
    cv2.setNumThreads(1)

    def pixels(raw: bytes) -> Pixels:
        image_HWC, size = scaled(raw)
        return cv2.resize(image_HWC, size, interpolation=interpolation)

    return encoding(pixels)


def with_simplejpeg_and_pillow(filter_: Filter) -> Way:
    def pixels(raw: bytes) -> Pixels:
        image_HWC, size = scaled(raw)
        return np.array(Image.fromarray(image_HWC).resize(size, filter_))

    return encoding(pixels)


def with_torch(mode: str) -> Way:
    torch.set_num_threads(1)

    def pixels(raw: bytes) -> Pixels:
        image_HWC, (width, height) = scaled(raw)
        images_BCHW = torch.from_numpy(image_HWC).permute(2, 0, 1)[None]
        small = torch.nn.functional.interpolate(
            images_BCHW, size=(height, width), mode=mode, antialias=True
        )
        return small[0].permute(1, 2, 0).numpy()

    return encoding(pixels)


def with_planes(filter_: Filter) -> Way:
    from turbojpeg import TurboJPEG

    library = TurboJPEG()
    factors = {1: (1, 8), 2: (1, 4), 3: (3, 8), 4: (1, 2), 5: (5, 8), 6: (3, 4), 7: (7, 8)}

    def jpeg(raw: bytes) -> bytes:
        height, width, _, _ = simplejpeg.decode_jpeg_header(raw)
        eighths = next(n for n in range(1, 9) if -(-min(width, height) * n // 8) >= SIDE)
        planes = library.decode_to_yuv_planes(raw, scaling_factor=factors.get(eighths, (1, 1)))
        size = target(width, height)
        half = ((size[0] + 1) // 2, (size[1] + 1) // 2)
        small = [
            np.asarray(Image.fromarray(np.ascontiguousarray(plane)).resize(plane_size, filter_))
            for plane, plane_size in zip(planes, (size, half, half), strict=True)
        ]
        return simplejpeg.encode_jpeg_yuv_planes(*small, QUALITY)

    return Way(jpeg, None)


def with_pillow(*, draft: bool, filter_: Filter) -> Way:
    def small(raw: bytes) -> Image.Image:
        image = Image.open(io.BytesIO(raw))
        size = target(*image.size)
        if draft:
            image.draft("RGB", (SIDE, SIDE))
        return image.convert("RGB").resize(size, filter_)

    def jpeg(raw: bytes) -> bytes:
        buffer = io.BytesIO()
        small(raw).save(buffer, "JPEG", quality=QUALITY)
        return buffer.getvalue()

    return Way(jpeg, lambda raw: np.asarray(small(raw)))


def lanczos(raw: bytes) -> Pixels:
    with Image.open(io.BytesIO(raw)) as image:
        upright = ImageOps.exif_transpose(image).convert("RGB")
    return np.asarray(upright.resize(target(*upright.size), Filter.LANCZOS))


def ways() -> dict[str, Way]:
    wanted: dict[str, Callable[[], Way]] = {
        COMPARATOR: lambda: with_opencv(cv2.INTER_AREA),
        "ours": ours,
        "simplejpeg + OpenCV INTER_LINEAR_EXACT": lambda: with_opencv(cv2.INTER_LINEAR_EXACT),
        "simplejpeg + Pillow HAMMING": lambda: with_simplejpeg_and_pillow(Filter.HAMMING),
        "planes, Pillow HAMMING": lambda: with_planes(Filter.HAMMING),
        "planes, Pillow BOX": lambda: with_planes(Filter.BOX),
        "simplejpeg + torch bilinear": lambda: with_torch("bilinear"),
        "simplejpeg + torch bicubic": lambda: with_torch("bicubic"),
        "Pillow draft + HAMMING": lambda: with_pillow(draft=True, filter_=Filter.HAMMING),
        "Pillow full + BILINEAR": lambda: with_pillow(draft=False, filter_=Filter.BILINEAR),
        "Lanczos (the reference)": lambda: encoding(lanczos),
    }
    found = {}
    for name, make in wanted.items():
        try:
            found[name] = make()
        except (ImportError, RuntimeError, OSError) as error:
            print(f"left out: {name} ({error})")
    return found


def milliseconds(found: dict[str, Way], images: list[bytes]) -> dict[str, float]:
    """Per image, the best of the rounds; the ways take turns."""
    best = dict.fromkeys(found, float("inf"))
    for _ in range(ROUNDS):
        for name, way in found.items():
            began = time.process_time()
            for raw in images:
                way.jpeg(raw)
            best[name] = min(best[name], (time.process_time() - began) / len(images) * 1000)
    return best


def psnr(one_HWC: Pixels, other_HWC: Pixels) -> float:
    """In dB; equal images count as 99."""
    error = np.mean((one_HWC.astype(np.float64) - other_HWC) ** 2)
    return min(99.0, float(10 * np.log10(255**2 / error))) if error else 99.0


def quality(way: Way, images: list[bytes], references: list[Pixels]) -> list[str]:
    """Mean and least PSNR, of the pixels and of the JPEG."""
    pairs = list(zip(images, references, strict=True))
    stored = [psnr(simplejpeg.decode_jpeg(way.jpeg(raw)), reference) for raw, reference in pairs]
    cells = [f"{np.mean(stored):.1f} / {min(stored):.1f}"]
    if way.pixels is None:
        return ["", *cells]
    before = [psnr(way.pixels(raw), reference) for raw, reference in pairs]
    return [f"{np.mean(before):.1f} / {min(before):.1f}", *cells]


def main() -> None:
    arguments = parse_arguments(27)
    paths = sorted(set(photographs(arguments.photos, 10_000)))
    paths = paths[:: max(1, len(paths) // arguments.images)]  # of every camera
    images = [Path(path).read_bytes() for path in paths]
    found = ways()
    cpu_ms = milliseconds(found, images)
    references = [lanczos(raw) for raw in images]
    base = cpu_ms[COMPARATOR]
    print(f"\n### kernel: {SIDE} px, quality {QUALITY}\n")
    print(f"{len(images)} photographs, one thread, best of {ROUNDS}; {time.strftime('%Y-%m-%d')}\n")
    print("| what | ms CPU | ratio | PSNR dB, mean / least | the same of the JPEG |")
    print("|---|---|---|---|---|")
    for name, way in found.items():
        cells = " | ".join(quality(way, images, references))
        print(f"| {name} | {cpu_ms[name]:.1f} | {cpu_ms[name] / base:.2f} | {cells} |")


if __name__ == "__main__":
    main()
