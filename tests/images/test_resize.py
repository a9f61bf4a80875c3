"""Images as shards store them, and as the network gets them."""

import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
import simplejpeg
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image

from ctc_ray.images.decode import Decoded, Pixels, decode, decode_scaled
from ctc_ray.images.resize import ShardImage, pillow_to_input, shrink, to_input, to_shard_jpeg
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


def shard(
    raw: bytes, *, side: int = 100, quality: int = 90, reencode_small: bool = False
) -> ShardImage:
    image = to_shard_jpeg(
        raw,
        smallest_side=side,
        quality=quality,
        max_pixels=LIMIT,
        truncated="fail",
        reencode_small=reencode_small,
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
    cut, squeezed = (
        pillow_to_input(bars(*size), image_size=64, keep_aspect=keep_aspect, max_pixels=LIMIT)
        for keep_aspect in (True, False)
    )
    assert not isinstance(cut, Failure)
    assert not isinstance(squeezed, Failure)
    assert cut[2:-2, 2:-2].min() == 255  # the filter reaches a little beyond the square
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
    image = gradient(64, 64)
    for keep_aspect in (True, False):
        same = pillow_to_input(image, image_size=64, keep_aspect=keep_aspect, max_pixels=LIMIT)
        assert np.array_equal(same, np.asarray(image))


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
        assert np.mean(error**2) <= 255**2 / 10 ** (32 / 10), photo.name  # 32 dB or more


def noise(height: int, width: int, n_channels: int) -> Pixels:
    rng = np.random.default_rng(height * width)
    return rng.integers(0, 256, (height, width, n_channels), np.uint8)


@pytest.mark.parametrize("factor", [1.0, 1.02, 1.25, 1.49, 1.53, 1.56, 1.75, 1.99, 2.0, 3.3, 7.5])
def test_no_pixel_of_the_image_is_skipped(factor: float) -> None:
    width = 120
    columns = 255 * np.eye(width, dtype=np.uint8)  # row by row, another one is white
    for row in columns[2:-2]:
        image_HWC = np.repeat(row[None, :, None], 90, axis=0)
        small_HWC = shrink(image_HWC, round(width / factor), round(90 / factor))
        assert 0.7 <= small_HWC[5].sum() / 255 * factor <= 1.6  # 1 is its fair share


@pytest.mark.parametrize("n_channels", [1, 3])
def test_the_processor_does_not_change_what_is_stored(n_channels: int) -> None:
    images = [noise(*size, n_channels) for size in [(300, 401), (7, 900), (533, 64), (612, 816)]]

    def shrunk() -> list[Pixels]:
        factors = (1.01, 1.3, 1.55, 1.9, 4.2)
        return [
            shrink(image_HWC, *(max(1, round(n / by)) for n in image_HWC.shape[1::-1]))
            for image_HWC in images
            for by in factors
        ]

    as_it_is = shrunk()
    was_optimized = cv2.useOptimized()
    try:
        cv2.setUseOptimized(not was_optimized)  # without AVX and the like
        other = shrunk()
    finally:
        cv2.setUseOptimized(was_optimized)
    assert was_optimized
    assert all(np.array_equal(one, two) for one, two in zip(as_it_is, other, strict=True))


def test_resizing_starts_no_threads_and_leaves_its_input_alone() -> None:
    image_HWC = noise(1200, 1600, 3)
    before_HWC = image_HWC.copy()
    cv2.setNumThreads(4)
    small_HWC = shrink(image_HWC, 800, 600)
    assert cv2.getNumThreads() == 1
    assert np.array_equal(image_HWC, before_HWC)
    assert not np.shares_memory(small_HWC, image_HWC)


def test_four_threads_store_what_one_stores() -> None:
    sizes = [(900 + 7 * i, 700 + 11 * i) for i in range(6)]
    images = [gradient(*size).convert("L" if size[0] % 2 else "RGB") for size in sizes]
    raws = [encoded(image, format_) for image in images for format_ in ("JPEG", "PNG")] * 4
    alone = [shard(raw, side=400) for raw in raws]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda raw: shard(raw, side=400), raws))
    assert together == alone
    assert len({image.jpeg for image in alone}) == len(raws) // 4


@pytest.mark.real_data
def test_four_threads_decode_photographs_as_one_does(shared_data: Path) -> None:
    raws = [path.read_bytes() for path in sorted((shared_data / "photos").rglob("*.JPG"))[::10]]

    def both(raw: bytes) -> tuple[ShardImage, Pixels]:
        scaled = decode_scaled(raw, smallest_side=400, max_pixels=LIMIT, truncated="fail")
        assert isinstance(scaled, Decoded)
        return shard(raw, side=400), scaled.pixels

    alone = [both(raw) for raw in raws]
    kept = [image_HWC.copy() for _, image_HWC in alone]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(both, raws))
    assert len(raws) >= 5
    assert [image for image, _ in together] == [image for image, _ in alone]
    for (_, first_HWC), (_, second_HWC), kept_HWC in zip(alone, together, kept, strict=True):
        assert np.array_equal(first_HWC, kept_HWC)  # later images are not written over it
        assert np.array_equal(second_HWC, kept_HWC)


def psnr(one_HWC: Pixels, other_HWC: Pixels) -> float:
    error = np.mean((one_HWC.astype(float) - other_HWC) ** 2)
    return float(10 * np.log10(255**2 / max(error, 1e-9)))


@pytest.mark.parametrize("subsampling", ["444", "422", "440", "420", "411", "Gray", "progressive"])
@given(size=st.tuples(st.integers(1, 300), st.integers(1, 300)), side=st.integers(1, 200))
def test_every_kind_of_jpeg_gets_its_exact_size_and_keeps_its_content(
    subsampling: str, size: tuple[int, int], side: int
) -> None:
    image = gradient(*size)
    if subsampling == "progressive":
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=95, progressive=True)
        raw = buffer.getvalue()
    else:
        is_gray = subsampling == "Gray"
        image_HWC = np.array(image.convert("L"))[:, :, None] if is_gray else np.array(image)
        space = "GRAY" if is_gray else "RGB"
        raw = simplejpeg.encode_jpeg(image_HWC, 95, space, subsampling)
    stored = shard(raw, side=side, quality=95)
    scale = min(1, side / min(size))
    assert (stored.width, stored.height) == tuple(max(1, round(x * scale)) for x in size)
    small_HWC = pixels(stored.jpeg)
    assert small_HWC.shape[:2] == (stored.height, stored.width)
    if min(small_HWC.shape[:2]) >= 16:  # where half the colours are still something
        whole = Image.fromarray(pixels(raw))
        reference = whole.resize((stored.width, stored.height), Image.Resampling.LANCZOS)
        assert psnr(small_HWC, np.asarray(reference)) > 28


def with_exif(image: Image.Image, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] = "SECRET"
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", exif=exif, quality=95)
    return buffer.getvalue()


TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@pytest.mark.parametrize("size", [(80, 60), (640, 480)])
@pytest.mark.parametrize("reencode_small", [False, True])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_what_is_stored_is_upright_and_names_no_place(
    orientation: int, reencode_small: bool, size: tuple[int, int]
) -> None:
    upright = gradient(*size)
    turn = TURNS.get(orientation)
    raw = with_exif(upright if turn is None else upright.transpose(turn), orientation)
    stored = shard(raw, quality=95, reencode_small=reencode_small)
    assert b"Exif" in raw
    assert b"Exif" not in stored.jpeg
    expected = np.asarray(upright.resize((stored.width, stored.height), Image.Resampling.LANCZOS))
    assert psnr(pixels(stored.jpeg), expected) > 35


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_small_jpeg_keeps_its_pixels_unless_it_is_to_be_encoded_anew(
    mode: str, progressive: bool
) -> None:
    buffer = io.BytesIO()
    noise = Image.effect_noise((150, 100), 90).convert(mode)
    noise.save(buffer, "JPEG", quality=90, progressive=progressive)
    raw = buffer.getvalue()
    assert shard(raw, quality=30).jpeg == raw
    anew = shard(raw, quality=30, reencode_small=True)
    assert (anew.width, anew.height) == (150, 100)
    assert len(anew.jpeg) < 0.7 * len(raw)
    assert shard(raw, side=99).jpeg != raw


@pytest.mark.parametrize(("format_", "mode"), [("JPEG", "CMYK"), ("PNG", "RGB"), ("WEBP", "RGB")])
def test_a_small_image_that_is_no_plain_jpeg_becomes_one(format_: str, mode: str) -> None:
    stored = shard(encoded(gradient(80, 60).convert(mode), format_))
    assert simplejpeg.decode_jpeg_header(stored.jpeg) == (60, 80, "YCbCr", "420")


@given(st.data())
def test_a_small_jpeg_that_ends_early_is_never_kept(data: st.DataObject) -> None:
    raw = encoded(gradient(80, 60))
    part = raw[: data.draw(st.integers(2, len(raw) - 3))]
    for reencode_small in (False, True):
        stored = to_shard_jpeg(
            part,
            smallest_side=100,
            quality=75,
            max_pixels=LIMIT,
            truncated="fail",
            reencode_small=reencode_small,
        )
        assert isinstance(stored, Failure)


def test_a_small_jpeg_above_the_limit_of_pixels_is_too_large() -> None:
    raw = encoded(gradient(80, 60))
    stored = to_shard_jpeg(
        raw, smallest_side=100, quality=75, max_pixels=80 * 60 - 1, truncated="fail"
    )
    assert stored is Failure.TOO_LARGE


@pytest.mark.real_data
def test_real_photographs_are_near_lanczos_from_every_pixel(shared_data: Path) -> None:
    photos = sorted((shared_data / "photos").rglob("*.[jJ][pP]*[gG]"))[::3]
    found = []
    for photo in photos:
        whole_HWC = pixels(photo.read_bytes())
        if whole_HWC.shape[0] * whole_HWC.shape[1] < 2e6:
            continue
        scaled = decode_scaled(
            photo.read_bytes(), smallest_side=400, max_pixels=LIMIT, truncated="fail"
        )
        assert isinstance(scaled, Decoded)
        width = round(400 * scaled.width / min(scaled.width, scaled.height))
        height = round(400 * scaled.height / min(scaled.width, scaled.height))
        reference = Image.fromarray(whole_HWC).resize((width, height), Image.Resampling.LANCZOS)
        small_HWC = shrink(scaled.pixels, width, height)  # what is encoded
        found.append(psnr(small_HWC, np.asarray(reference)))
    assert len(found) >= 20
    assert np.mean(found) >= 35
