"""Removing the metadata of a JPEG keeps its pixels and removes everything else."""

import io
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image

from ctc_ray.images.bare_jpeg import strip_jpeg_metadata


def noise(size: tuple[int, int] = (50, 30), mode: str = "RGB") -> Image.Image:
    image_HWC = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), np.uint8)
    return Image.fromarray(image_HWC).convert(mode)


def saved(image: Image.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **options)
    return buffer.getvalue()


def loaded(raw: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(raw)) as image:
        return np.asarray(image.copy())


def segment(marker: int, payload: bytes) -> bytes:
    return bytes([0xFF, marker]) + (len(payload) + 2).to_bytes(2, "big") + payload


def secret_exif() -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "SECRET maker"
    exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] = "SECRET"
    return exif


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 1}])
def test_pixels_are_the_same_and_no_secret_is_left(mode: str, options: dict[str, object]) -> None:
    image = noise(mode=mode)
    raw = saved(image, exif=secret_exif(), comment=b"SECRET", icc_profile=b"SECRET", **options)
    raw += b"SECRET after the end"
    bare = strip_jpeg_metadata(raw)
    assert bare is not None
    assert b"SECRET" in raw
    assert b"SECRET" not in bare
    assert bare.endswith(b"\xff\xd9")
    assert np.array_equal(loaded(bare), loaded(raw))
    assert strip_jpeg_metadata(bare) == bare


@pytest.mark.parametrize("marker", range(0xE0, 0xF0))
def test_every_application_segment_goes(marker: int) -> None:
    raw = saved(noise())
    with_segment = raw[:2] + segment(marker, b"anything") + raw[2:]
    assert strip_jpeg_metadata(with_segment) == strip_jpeg_metadata(raw)


def test_colours_that_only_adobes_segment_tells_stay() -> None:
    raw = saved(noise(), keep_rgb=True)
    bare = strip_jpeg_metadata(raw)
    assert bare is not None
    assert simplejpeg.decode_jpeg_header(bare)[2] == "RGB"
    assert np.array_equal(loaded(bare), loaded(raw))


def test_a_thumbnail_in_jfif_goes() -> None:
    raw = saved(noise())
    assert raw[2:4] == b"\xff\xe0"
    jfif = segment(0xE0, raw[6:18] + b"\x01\x01" + b"SEC")
    assert strip_jpeg_metadata(raw[:2] + jfif + raw[20:]) == raw


def test_fill_bytes_between_segments_are_passed_over() -> None:
    raw = saved(noise())
    assert strip_jpeg_metadata(raw[:2] + b"\xff\xff" + raw[2:]) == raw


def test_the_thumbnail_in_exif_does_not_end_the_image() -> None:
    raw = saved(noise())
    with_exif = raw[:2] + segment(0xE1, b"Exif\0\0" + saved(noise((8, 8)))) + raw[2:]
    assert strip_jpeg_metadata(with_exif) == raw


@given(st.data())
def test_a_beginning_of_a_jpeg_has_no_bare_form(data: st.DataObject) -> None:
    raw = saved(noise())
    assert strip_jpeg_metadata(raw) == raw
    assert strip_jpeg_metadata(raw[: data.draw(st.integers(0, len(raw) - 1))]) is None


@given(st.binary(max_size=200))
def test_any_bytes_give_an_answer(tail: bytes) -> None:
    bare = strip_jpeg_metadata(b"\xff\xd8" + tail)
    assert bare is None or bare.endswith(b"\xff\xd9")


@pytest.mark.real_data
def test_real_photographs_keep_their_pixels_and_lose_their_exif(shared_data: Path) -> None:
    photos = sorted((shared_data / "photos").rglob("*.JPG"))[::16]
    assert len(photos) >= 5
    for photo in photos:
        raw = photo.read_bytes()
        bare = strip_jpeg_metadata(raw)
        assert bare is not None, photo.name
        assert b"Exif\0" not in bare
        assert np.array_equal(simplejpeg.decode_jpeg(bare), simplejpeg.decode_jpeg(raw))
