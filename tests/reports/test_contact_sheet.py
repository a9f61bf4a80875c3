from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from builders import photograph
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ctc_ray.reports.contact_sheet import Tile, contact_sheet, thumbnail
from ctc_ray.schemas import Failure

RED, BLUE = Image.new("RGB", (40, 30), (255, 0, 0)), Image.new("RGB", (20, 40), (0, 0, 255))


def pixels(png: bytes) -> np.ndarray:
    image = Image.open(BytesIO(png))
    assert image.format == "PNG"
    return np.asarray(image.convert("RGB")).astype(int)


def n_of_colour(sheet_HWC: np.ndarray, colour: tuple[int, int, int]) -> int:
    return int((sheet_HWC == colour).all(axis=2).sum())


def test_every_image_is_on_the_sheet_whole() -> None:
    tiles = [Tile(RED, ["a"]), Tile(BLUE, ["b"]), Tile(RED, ["c"])]
    sheet_HWC = pixels(contact_sheet(tiles, columns=2, side=40))
    assert n_of_colour(sheet_HWC, (255, 0, 0)) == 2 * 40 * 30
    assert n_of_colour(sheet_HWC, (0, 0, 255)) == 20 * 40
    left, right = np.array_split(sheet_HWC, 2, axis=1)
    assert n_of_colour(right, (0, 0, 255)) == 20 * 40
    assert n_of_colour(left, (255, 0, 0)) == 2 * 40 * 30


def test_failure_is_a_gray_square_with_its_code() -> None:
    one, other = (
        pixels(contact_sheet([Tile(failure, [])], columns=1, side=100))
        for failure in (Failure.MISSING, Failure.TRUNCATED)
    )
    for sheet_HWC in (one, other):
        assert 0.8 * 100 * 100 < n_of_colour(sheet_HWC, (192, 192, 192)) < 100 * 100
    assert (one != other).any()


def test_captions_differ_and_same_tiles_give_the_same_bytes() -> None:
    def draw(text: str) -> bytes:
        return contact_sheet([Tile(RED, [text, "second"])], columns=4, side=64)

    assert draw("zebra 0.98") == draw("zebra 0.98")
    assert draw("zebra 0.98") != draw("boar 0.98")


def test_accents_are_left_out() -> None:
    accents, plain = (
        contact_sheet([Tile(RED, [text])], columns=1, side=160) for text in ("très", "tres")
    )
    assert accents == plain


@settings(max_examples=50)
@given(st.lists(st.text(max_size=60), max_size=4), st.integers(1, 5), st.integers(32, 90))
def test_any_text_is_drawn_inside_the_sheet(texts: list[str], columns: int, side: int) -> None:
    tiles = [Tile(Failure.MISSING, [text]) for text in texts]
    short = [Tile(Failure.MISSING, ["a"]) for _ in texts]
    sheet_HWC = pixels(contact_sheet(tiles, columns=columns, side=side))
    assert sheet_HWC.shape == pixels(contact_sheet(short, columns=columns, side=side)).shape
    assert (sheet_HWC[:, -1] == 255).all()


def test_thumbnail_fits_into_the_square_and_keeps_its_shape() -> None:
    image = thumbnail(photograph("red", seed=1, size=300), 100)
    assert isinstance(image, Image.Image)
    assert image.size == (100, 75)


@pytest.mark.parametrize(
    ("raw", "expected"), [(b"", Failure.UNREADABLE), (b"%PDF-1.4", Failure.UNSUPPORTED)]
)
def test_what_is_no_image_is_a_failure(raw: bytes, expected: Failure) -> None:
    assert thumbnail(raw, 100) is expected


def test_of_a_truncated_image_the_rest_is_shown() -> None:
    assert isinstance(thumbnail(photograph("red", seed=1, size=300)[:8000], 100), Image.Image)


@pytest.mark.real_data
def test_odd_files_are_on_a_sheet_too(shared_data: Path) -> None:
    files = sorted(path for path in (shared_data / "malformed").rglob("*") if path.is_file())
    images = [thumbnail(path.read_bytes(), 48) for path in files]
    kinds = {type(image) is Failure for image in images}
    assert kinds == {True, False}
    assert all(max(i.size) <= 48 for i in images if not isinstance(i, Failure))
    tiles = [Tile(image, [path.name]) for image, path in zip(images, files, strict=True)]
    assert pixels(contact_sheet(tiles, columns=20, side=48)).shape[1] == 20 * (48 + 6) + 6
