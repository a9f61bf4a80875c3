"""What is stored in shards, and what the network sees."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ctc_ray.images.decode import Pixels, decode
from ctc_ray.images.resize import ShardImage, square, to_input, to_shard_jpeg
from ctc_ray.schemas import Failure

LIMIT = 100_000_000


def encoded(image: Image.Image, format_: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format_)
    return buffer.getvalue()


def gradient(width: int, height: int) -> Image.Image:
    """Red grows to the right, green downwards."""
    image_HWC = np.zeros((height, width, 3), np.uint8)
    image_HWC[..., 0] = np.linspace(0, 255, width)[None, :]
    image_HWC[..., 1] = np.linspace(0, 255, height)[:, None]
    return Image.fromarray(image_HWC)


def shard(raw: bytes, *, side: int = 100, quality: int = 90) -> ShardImage:
    image = to_shard_jpeg(
        raw, smallest_side=side, quality=quality, max_pixels=LIMIT, truncated="fail"
    )
    assert isinstance(image, ShardImage)
    return image


def pixels(jpeg: bytes) -> Pixels:
    image_HWC = decode(jpeg, smallest_side=None, max_pixels=LIMIT, truncated="fail")
    assert not isinstance(image_HWC, Failure)
    return image_HWC


@pytest.mark.parametrize("format_", ["JPEG", "PNG"])
@pytest.mark.parametrize("size", [(640, 480), (480, 640), (1000, 101), (333, 777), (101, 100)])
def test_smaller_side_is_as_asked_and_the_aspect_is_kept(
    size: tuple[int, int], format_: str
) -> None:
    image = shard(encoded(gradient(*size), format_))
    assert min(image.width, image.height) == 100
    assert abs(max(image.width, image.height) - 100 * max(size) / min(size)) <= 0.5
    assert (image.width > image.height) == (size[0] > size[1])
    assert pixels(image.jpeg).shape == (image.height, image.width, 3)


@pytest.mark.parametrize("size", [(100, 100), (99, 200), (1, 1), (10_000, 1), (1, 10_000), (64, 8)])
def test_a_smaller_image_is_never_enlarged(size: tuple[int, int]) -> None:
    image = shard(encoded(gradient(*size), "PNG"))
    assert (image.width, image.height) == size


def test_an_image_too_long_for_a_jpeg_is_made_to_fit() -> None:
    image = shard(encoded(Image.new("L", (90_000, 1), 99), "PNG"))
    assert (image.width, image.height) == (65_500, 1)


def test_content_stays_in_place() -> None:
    small_HWC = pixels(shard(encoded(gradient(640, 480))).jpeg).astype(int)
    expected = np.asarray(gradient(133, 100), int)
    assert np.abs(small_HWC - expected).mean() < 2


def test_a_gray_image_becomes_a_gray_jpeg() -> None:
    gray = gradient(640, 480).convert("L")
    image = shard(encoded(gray))
    with Image.open(io.BytesIO(image.jpeg)) as stored:
        assert stored.mode == "L"
    assert len(image.jpeg) < len(shard(encoded(gray.convert("RGB"))).jpeg)
    assert pixels(image.jpeg).shape == (100, 133, 3)


def test_colours_are_stored_at_half_the_resolution_and_metadata_is_not() -> None:
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    buffer = io.BytesIO()
    gradient(320, 240).save(buffer, "JPEG", exif=exif)
    with Image.open(io.BytesIO(shard(buffer.getvalue()).jpeg)) as stored:
        assert stored.layer[0][1:3] == (2, 2)  # type: ignore[attr-defined]  # of JpegImageFile
        assert not stored.getexif()


def test_same_bytes_give_the_same_jpeg_and_lower_quality_a_smaller_one() -> None:
    raw = encoded(gradient(640, 480))
    assert shard(raw) == shard(raw)
    assert len(shard(raw, quality=30).jpeg) < len(shard(raw, quality=90).jpeg)


def test_failures_are_passed_on() -> None:
    raw = encoded(Image.effect_noise((300, 200), 90).convert("RGB"))
    for content, limit, expected in [
        (b"", LIMIT, Failure.UNREADABLE),
        (raw[:9000], LIMIT, Failure.TRUNCATED),
        (raw, 100, Failure.TOO_LARGE),
        (b"%PDF-1.4", LIMIT, Failure.UNSUPPORTED),
    ]:
        stored = to_shard_jpeg(
            content, smallest_side=9, quality=75, max_pixels=limit, truncated="fail"
        )
        seen = to_input(
            content, image_size=9, keep_aspect=False, max_pixels=limit, truncated="fail"
        )
        assert (stored, seen) == (expected, expected)


def test_a_truncated_image_can_be_kept() -> None:
    raw = encoded(Image.effect_noise((300, 200), 90).convert("RGB"))[:9000]
    seen = to_input(raw, image_size=32, keep_aspect=True, max_pixels=LIMIT, truncated="keep")
    assert not isinstance(seen, Failure)
    assert seen.shape == (32, 32, 3)


def bars(width: int, height: int) -> Image.Image:
    """White in the centred square, black beside it."""
    side = min(width, height)
    image = Image.new("RGB", (width, height))
    white = Image.new("RGB", (side, side), (255, 255, 255))
    image.paste(white, ((width - side) // 2, (height - side) // 2))
    return image


@pytest.mark.parametrize("size", [(400, 200), (200, 400), (640, 480)])
def test_keeping_the_aspect_cuts_the_centre_and_squeezing_shows_all(size: tuple[int, int]) -> None:
    image_HWC = np.asarray(bars(*size))
    cut = square(image_HWC, image_size=64, keep_aspect=True)
    squeezed = square(image_HWC, image_size=64, keep_aspect=False)
    assert cut.min() == 255
    share = min(size) / max(size)
    assert abs(squeezed.mean() / 255 - share) < 0.01


@pytest.mark.parametrize("keep_aspect", [True, False])
@pytest.mark.parametrize("size", [(1, 1), (3, 500), (10_000, 1), (50, 40), (64, 64)])
def test_every_size_becomes_the_square_even_if_enlarged(
    size: tuple[int, int], keep_aspect: bool
) -> None:
    raw = encoded(Image.new("RGB", size, (10, 200, 90)), "PNG")
    seen = to_input(raw, image_size=64, keep_aspect=keep_aspect, max_pixels=LIMIT, truncated="fail")
    assert not isinstance(seen, Failure)
    assert seen.shape == (64, 64, 3)
    assert (seen == [10, 200, 90]).all()


def test_a_square_of_the_right_size_is_left_alone() -> None:
    image_HWC = np.asarray(gradient(64, 64))
    for keep_aspect in (True, False):
        assert np.array_equal(square(image_HWC, image_size=64, keep_aspect=keep_aspect), image_HWC)


@pytest.mark.real_data
def test_scaled_decoding_is_as_good_as_full_decoding(shared_data: Path) -> None:
    photos = sorted((shared_data / "photos").rglob("*.JPG"))[::16]
    assert len(photos) >= 5
    for photo in photos:
        whole_HWC = pixels(photo.read_bytes())
        image = shard(photo.read_bytes(), side=400, quality=100)
        reference = Image.fromarray(whole_HWC).resize(
            (image.width, image.height), Image.Resampling.HAMMING
        )
        error = pixels(image.jpeg) - np.asarray(reference, np.float64)
        assert 10 * np.log10(255**2 / np.mean(error**2)) >= 33, photo.name
