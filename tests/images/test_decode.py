"""Files decode to upright pixels, or to the failure that explains why not."""

import base64
import csv
import io
import subprocess
import sys
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageFile

from ctc_ray.images.decode import Decoded, Pixels, decode, decode_scaled
from ctc_ray.schemas import Failure

LIMIT = 100_000_000
# of the files that are no image: recognisably something else (the others are `unreadable`)
UNSUPPORTED = {
    *("derived/._RCNX0031.JPG", "derived/Thumbs.db", "derived/git_lfs_pointer.jpg"),
    *("derived/html_error_page.jpg", "derived/jpeg_gzipped.jpg", "derived/mp4_named_jpg.jpg"),
    *("derived/text.jpg", "other/zPDF.pdf", "pillow/decompression_bomb.ico"),
}
TOO_LARGE = {
    *("derived/jpeg_sof_65000x65000.jpg", "derived/png_30000sq_1bit_valid_bomb.png"),
    *("derived/png_huge_dims_tiny_data_40000x40000.png", "pillow/decompression_bomb.gif"),
    "derived/png_12000sq_1bit_warns.png",  # 144 million pixels
}


def read(raw: bytes, *, side: int | None = None, limit: int = LIMIT) -> Pixels:
    image_HWC = decode(raw, smallest_side=side, max_pixels=limit, truncated="fail")
    assert not isinstance(image_HWC, Failure), image_HWC
    return image_HWC


def failure(raw: bytes, limit: int = LIMIT) -> Failure:
    answer = decode(raw, smallest_side=400, max_pixels=limit, truncated="fail")
    assert isinstance(answer, Failure)
    return answer


def saved(image: Image.Image, format_: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format_, **options)
    return buffer.getvalue()


def corners(width: int = 96, height: int = 64, mode: str = "RGB") -> Image.Image:
    """Four quarters: red, green / blue, white."""
    image = Image.new("RGB", (width, height), (255, 255, 255))
    image.paste((255, 0, 0), (0, 0, width // 2, height // 2))
    image.paste((0, 255, 0), (width // 2, 0, width, height // 2))
    image.paste((0, 0, 255), (0, height // 2, width // 2, height))
    return image.convert(mode)


def quarters(image_HWC: Pixels) -> list[str]:
    """The colours of the four quarters, row by row."""
    height, width = image_HWC.shape[:2]
    names = {(1, 0, 0): "red", (0, 1, 0): "green", (0, 0, 1): "blue", (1, 1, 1): "white"}
    middles = [(height // 4, width // 4), (height // 4, 3 * width // 4)]
    middles += [(3 * height // 4, width // 4), (3 * height // 4, 3 * width // 4)]
    return [names[tuple((image_HWC[y, x] > 127).astype(int).tolist())] for y, x in middles]


def turned(value: int) -> Image.Image:
    """`corners`, stored so that orientation `value` makes it upright."""
    inverse = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    return corners().transpose(inverse[value]) if value in inverse else corners()


# `corners()` by `cjpeg -arithmetic -quality 75`; neither Pillow nor simplejpeg writes such JPEGs
ARITHMETIC = base64.b85decode(
    "|JeWF01!$>Nk#wx0RR9200961|JwjV00;&K2L=TQ2L}fU2?z=d6b%du3k(?&6Au&}8Xq1V8XO!TBrYc)A}k{u94I#_EHE)N"
    "G&CP4IXyTsJT5adGXL8ELjeg12@DGi7!3^=G9erxGBPqUGBPqUGBPqUGBPqUGBPqUGBPqUGBPqUGBPqUGBPqUGBPqUGBPqU"
    "GBPqUGBW?k01*fPKmcF^0U`hb5di}c0sqVZ3IGrg1pyEd1^?Or3<CiG0ucid06zf#0H7Uuz%6V#CrG}Oyxa(n%@Ib8fEbQ`"
    "M#u4MRuq{5Z8B_C%}mbX5YL9L9$^33"
)


def exif_of(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = value
    return exif


@pytest.mark.parametrize("value", range(1, 9))
@pytest.mark.parametrize(
    ("format_", "mode"),
    [("JPEG", "RGB"), ("JPEG", "CMYK"), ("PNG", "RGB"), ("WEBP", "RGB"), ("TIFF", "RGB")],
)
def test_every_orientation_gives_the_same_upright_picture(
    format_: str, mode: str, value: int
) -> None:
    raw = saved(turned(value).convert(mode), format_, exif=exif_of(value))
    decoded = decode_scaled(raw, smallest_side=None, max_pixels=LIMIT, truncated="fail")
    assert isinstance(decoded, Decoded)
    assert (decoded.width, decoded.height) == (96, 64)
    assert decoded.pixels.shape == (64, 96, 3)
    assert quarters(decoded.pixels) == ["red", "green", "blue", "white"]


def test_an_arithmetic_coded_jpeg_is_a_jpeg_like_any_other() -> None:
    assert b"\xff\xc9" in ARITHMETIC
    assert np.array_equal(read(ARITHMETIC), read(saved(corners(), "JPEG", quality=75)))
    assert read(ARITHMETIC, side=8).shape == (8, 12, 3)
    scan = ARITHMETIC.index(b"\xff\xda") + 14
    lost = {failure(ARITHMETIC[:end]) for end in range(scan, len(ARITHMETIC) - 2)}
    assert lost == {Failure.TRUNCATED}


@pytest.mark.parametrize("value", [0, 9, 99])
@pytest.mark.parametrize("format_", ["JPEG", "PNG"])
def test_invalid_orientation_is_ignored(format_: str, value: int) -> None:
    raw = saved(corners(), format_, exif=exif_of(value))
    assert quarters(read(raw)) == ["red", "green", "blue", "white"]


@pytest.mark.parametrize(
    ("format_", "mode", "options"),
    [
        ("JPEG", "RGB", {"progressive": True}),
        ("JPEG", "CMYK", {}),
        ("PNG", "P", {}),
        ("PNG", "RGBA", {}),
        ("GIF", "P", {}),
        ("BMP", "RGB", {}),
        ("TIFF", "RGB", {"compression": "tiff_lzw"}),
        ("TIFF", "CMYK", {}),
        ("WEBP", "RGB", {}),
        ("AVIF", "RGB", {}),
        ("PPM", "RGB", {}),
    ],
)
@pytest.mark.parametrize("side", [None, 16])
def test_colours_survive_every_format(
    format_: str, mode: str, options: dict[str, object], side: int | None
) -> None:
    image_HWC = read(saved(corners(mode=mode), format_, **options), side=side)
    assert quarters(image_HWC) == ["red", "green", "blue", "white"]
    assert image_HWC.dtype == np.uint8
    assert image_HWC.flags["C_CONTIGUOUS"]


def test_plain_jpeg_is_what_pillow_makes_of_it() -> None:
    raw = saved(corners(), "JPEG", quality=90)
    with Image.open(io.BytesIO(raw)) as image:
        expected = np.asarray(image).astype(int)
    assert np.abs(read(raw) - expected).max() <= 3


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("side", [1, 50, 90, 100, 199, 200, 1000])
def test_hint_never_makes_the_smaller_side_too_small(format_: str, side: int) -> None:
    raw = saved(corners(300, 200), format_)
    decoded = decode_scaled(raw, smallest_side=side, max_pixels=LIMIT, truncated="fail")
    assert isinstance(decoded, Decoded)
    assert (decoded.width, decoded.height) == (300, 200)
    assert min(side, 200) <= decoded.pixels.shape[0] <= 200
    assert decoded.pixels.shape[0] < 200 or side > 75


def test_gray_stays_one_channel_until_rgb_is_asked_for() -> None:
    raw = saved(Image.new("L", (64, 48), 77), "JPEG")
    decoded = decode_scaled(raw, smallest_side=None, max_pixels=LIMIT, truncated="fail")
    assert isinstance(decoded, Decoded)
    assert decoded.pixels.shape == (48, 64, 1)
    assert np.array_equal(read(raw), np.full((48, 64, 3), 77))


@pytest.mark.parametrize("format_", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_not_clipped(format_: str) -> None:
    values = np.array([[0, 257, 32896, 65535]], np.uint16)
    assert read(saved(Image.fromarray(values), format_))[0, :, 0].tolist() == [0, 1, 128, 255]


def test_floats_are_stretched_from_their_least_to_their_greatest() -> None:
    values = np.array([[-1.0, 0.0, 1.0]], np.float32)
    assert read(saved(Image.fromarray(values), "TIFF"))[0, :, 0].tolist() == [0, 128, 255]


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0])
def test_floats_that_are_no_image_do_not_raise(value: float) -> None:
    values = np.array([[value, 1.0], [value, value]], np.float32)
    assert read(saved(Image.fromarray(values), "TIFF")).shape == (2, 2, 3)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_pixels_are_black(mode: str) -> None:
    image = Image.new("RGBA", (4, 2), (255, 255, 255, 255))
    image.paste((255, 255, 255, 0), (0, 0, 2, 2))
    if mode == "P":
        palette = Image.new("P", (4, 2), 1)
        palette.putpalette([250, 250, 250, 255, 255, 255])
        palette.paste(0, (0, 0, 2, 2))
        raw = saved(palette, "PNG", transparency=0)
    else:
        raw = saved(image.convert(mode), "PNG")
    assert read(raw)[0, :, 1].tolist() == [0, 0, 255, 255]


def test_half_transparent_is_half_as_bright() -> None:
    raw = saved(Image.new("RGBA", (2, 2), (200, 100, 50, 128)), "PNG")
    assert np.abs(read(raw)[0, 0].astype(int) - [100, 50, 25]).max() <= 1


def test_first_frame_is_taken() -> None:
    red, blue = Image.new("RGB", (8, 8), (255, 0, 0)), Image.new("RGB", (8, 8), (0, 0, 255))
    for format_ in ("GIF", "WEBP", "TIFF", "MPO"):
        raw = saved(red, format_, save_all=True, append_images=[blue])
        assert read(raw)[4, 4, 0] > 200, format_
        assert read(raw)[4, 4, 2] < 50, format_


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"", Failure.UNREADABLE),
        (bytes(1000), Failure.UNREADABLE),
        (b"\xff\xd8", Failure.UNREADABLE),
        (b"\xff\xd8\xff\xe0" + bytes(100), Failure.UNREADABLE),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), Failure.UNREADABLE),
        (bytes(range(256)) * 4, Failure.UNREADABLE),
        (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n" + bytes(100), Failure.UNSUPPORTED),
        (b"\0\0\0\x18ftypmp42" + bytes(100), Failure.UNSUPPORTED),
        (b"\0\0\0\x18ftypheic" + bytes(100), Failure.UNSUPPORTED),
        (b"RIFF\x10\0\0\0AVI LIST" + bytes(100), Failure.UNSUPPORTED),
        (b"PK\x03\x04" + bytes(100), Failure.UNSUPPORTED),
        (b"<!DOCTYPE html>\n<html>404", Failure.UNSUPPORTED),
        ("date,espèce\n2024,cerf élaphe\n".encode(), Failure.UNSUPPORTED),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", Failure.UNSUPPORTED),
    ],
)
def test_bytes_that_are_no_image_are_told_apart(raw: bytes, expected: Failure) -> None:
    assert failure(raw) is expected


def noisy(width: int = 320, height: int = 240) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("format_", ["JPEG", "PNG"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.99])
def test_a_cut_file_is_truncated_or_kept(format_: str, share: float) -> None:
    raw = saved(noisy(), format_)
    cut = raw[: int(len(raw) * share)]
    assert failure(cut) is Failure.TRUNCATED
    kept = decode(cut, smallest_side=None, max_pixels=LIMIT, truncated="keep")
    assert not isinstance(kept, Failure)
    assert kept.shape == (240, 320, 3)
    whole = read(raw)
    assert np.abs(kept[:32].astype(int) - whole[:32]).max() <= 3


def test_a_lost_header_is_unreadable_even_if_parts_are_kept() -> None:
    raw = b"\0" * 2000 + saved(noisy(), "JPEG")[2000:]
    assert decode(raw, smallest_side=9, max_pixels=LIMIT, truncated="keep") is Failure.UNREADABLE


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "GIF"])
def test_too_many_pixels_are_a_failure_and_just_enough_are_not(format_: str) -> None:
    raw = saved(noisy(), format_)
    assert failure(raw, limit=320 * 240 - 1) is Failure.TOO_LARGE
    assert read(raw, limit=320 * 240).shape == (240, 320, 3)


def test_a_bomb_is_judged_by_its_header() -> None:
    def chunk(name: bytes, content: bytes) -> bytes:
        crc = zlib.crc32(name + content).to_bytes(4, "big")
        return len(content).to_bytes(4, "big") + name + content + crc

    for side in (11_000, 40_000):
        head = side.to_bytes(4, "big") * 2 + b"\x08\0\0\0\0"
        raw = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", b"not even zlib")
        assert failure(raw) is Failure.TOO_LARGE


def test_pillow_is_left_as_it_was() -> None:
    filters = list(warnings.filters)
    palette = Image.new("P", (9, 9))
    raw = saved(palette, "PNG", transparency=bytes(256))  # makes Pillow warn
    read(raw)
    failure(saved(noisy(), "PNG")[:999])
    assert list(warnings.filters) == filters
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


def answers(raw: bytes) -> tuple[object, object]:
    """What both policies make of the bytes, as something that compares."""
    both = [
        decode(raw, smallest_side=40, max_pixels=LIMIT, truncated=policy)
        for policy in ("fail", "keep")
    ]
    first, second = (a if isinstance(a, Failure) else sha256(a).hexdigest() for a in both)
    return first, second


def test_leniency_of_one_thread_is_not_seen_by_another() -> None:
    png, jpeg = saved(noisy(), "PNG"), saved(noisy(), "JPEG")
    raws = [png, png[:50_000], jpeg, jpeg[:30_000], png[:90_000], b"", jpeg[1:]] * 12
    filters = list(warnings.filters)
    alone = [answers(raw) for raw in raws]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(answers, raws))
    assert together == alone
    assert alone[0][0] == alone[0][1]
    assert alone[1][0] is Failure.TRUNCATED
    assert list(warnings.filters) == filters


@pytest.mark.parametrize(
    "format_", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "JPEG2000", "PPM", "MPO"]
)
def test_damaged_bytes_never_raise(format_: str) -> None:
    raw = saved(corners(32, 24), format_)
    rng = np.random.default_rng(len(raw))
    for _ in range(60):
        changed = bytearray(raw)
        for at in rng.integers(0, min(len(raw), 200), 3):
            changed[at] = rng.integers(256)
        answers(bytes(changed[: rng.integers(1, len(raw) + 1)]))


def malformed(shared_data: Path) -> list[tuple[dict[str, str], bytes]]:
    folder = shared_data / "malformed"
    contents = [path.read_bytes() for path in folder.rglob("*") if path.is_file()]
    by_digest = {sha256(raw).hexdigest(): raw for raw in contents}
    with (folder / "MANIFEST.csv").open(newline="") as file:
        return [(row, by_digest[row["sha256"]]) for row in csv.DictReader(file)]


def expected_answer(row: dict[str, str]) -> Failure | None:
    name = row["file"]
    if name in TOO_LARGE:
        return Failure.TOO_LARGE
    if row["expected"] == "must be rejected":
        return Failure.UNSUPPORTED if name in UNSUPPORTED else Failure.UNREADABLE
    return Failure.TRUNCATED if row["expected"].startswith("partial") else None


@pytest.mark.real_data
def test_malformed_set_gives_exactly_the_failures_of_its_manifest(shared_data: Path) -> None:
    files = malformed(shared_data)
    assert len(files) == 178
    for row, raw in files:
        found = decode_scaled(raw, smallest_side=400, max_pixels=LIMIT, truncated="fail")
        kept = decode_scaled(raw, smallest_side=400, max_pixels=LIMIT, truncated="keep")
        expected = expected_answer(row)
        assert (found if isinstance(found, Failure) else None) == expected, row["file"]
        assert isinstance(kept, Failure) == (expected not in (None, Failure.TRUNCATED)), row["file"]
        if isinstance(found, Decoded):
            assert f"{found.width}x{found.height}" == row["rgb_size"], row["file"]


@pytest.mark.real_data
def test_malformed_set_gives_the_same_answers_in_eight_threads(shared_data: Path) -> None:
    raws = [raw for row, raw in malformed(shared_data) if "9000sq" not in row["file"]]
    alone = [answers(raw) for raw in raws]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(answers, raws)) == alone


EXTRA_MEMORY = """
import resource, sys
from PIL import Image
from ctc_ray.images.resize import to_shard_jpeg
Image.init()
raw = open(sys.argv[1], "rb").read()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
image = to_shard_jpeg(raw, smallest_side=400, quality=75, max_pixels=200_000_000, truncated="fail")
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(image.width, image.height, (after - before) // 1024)
"""


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["png_9000sq_gray_legal.png", "png_12000sq_1bit_warns.png"])
def test_the_largest_files_cost_little_memory(shared_data: Path, name: str) -> None:
    path = shared_data / "malformed" / "derived" / name
    command = [sys.executable, "-c", EXTRA_MEMORY, str(path)]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    width, height, extra_mb = (int(word) for word in output.split())
    assert (width, height) == (400, 400)
    assert extra_mb < 250
