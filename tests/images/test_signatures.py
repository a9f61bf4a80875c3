"""The bytes decide what an image is; a file named like an image is never left out."""

import io
import os

import pytest
from PIL import Image

from ctc_ray.images.signatures import SIGNATURE_BYTES, is_something_else, not_an_image

FORMATS = ["JPEG", "PNG", "TIFF", "BMP", "GIF", "WEBP", "AVIF", "JPEG2000", "PPM", "ICO"]


def encoded(kind: str) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (40, 30), (10, 200, 30)).save(out, kind)
    return out.getvalue()


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("name", ["a", "a.txt", "Thumbs.db", "a.jpg", ".DS_Store", "a.csv"])
def test_image_is_one_whatever_its_name(kind, name):
    assert not_an_image(name, encoded(kind)) is None


@pytest.mark.parametrize("content", [b"", b"<html>404</html>", b"\0" * 600, b"\x01\x02\x03"])
@pytest.mark.parametrize("name", ["a.jpg", "b/c.JPEG", "x.TIF", "y.heic"])
def test_file_that_was_meant_to_be_an_image_stays_one(content, name):
    assert not_an_image(name, content) is None
    assert not_an_image("x.dat", content) is not None
    assert not_an_image("noext", content) is not None


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"\0\0\0\x18ftypisom", "a video"),
        (b"RIFF\0\0\0\0AVI LIST", "a video"),
        (b"\x1a\x45\xdf\xa3", "a video"),
        (b"%PDF-1.7", "a PDF"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1", "an OLE file, as Thumbs.db is"),
        (b"\0\x05\x16\x07\0\x02", "a resource fork of macOS"),
        (b"PK\x03\x04", "an archive"),
    ],
)
def test_bytes_decide_but_where_the_name_says_that_it_was_meant_to_be_an_image(content, what):
    for name in ("._a.jpg", "a.db", "a"):
        assert not_an_image(name, content) == what
    assert not_an_image("a.jpg", content) is None


@pytest.mark.parametrize("text", [b"[.ShellClassInfo]\r\n", b"id,file\n", b"BMW,1\n", b"P6 x\n"])
def test_text_is_text_even_where_it_begins_like_an_image(text):
    assert not_an_image("desktop.ini", text) == "text"


@pytest.mark.parametrize("brand", [b"heic", b"mif1", b"crx "])
def test_heic_and_raw_photographs_are_images_that_are_not_decoded(brand):
    head = b"\0\0\0\x18ftyp" + brand
    assert not_an_image("a", head) is None
    assert is_something_else(head)


@pytest.mark.real_data
def test_only_what_no_decoder_takes_is_set_aside(shared_data):
    root = shared_data / "malformed"
    found = {}
    for folder, _, names in os.walk(root):
        for name in names:
            with open(os.path.join(folder, name), "rb") as file:
                found[name] = not_an_image(name, file.read(SIGNATURE_BYTES))

    assert {name: what for name, what in found.items() if what} == {
        "._RCNX0031.JPG": "a resource fork of macOS",
        "MANIFEST.csv": "text",
        "SOURCE.md": "text",
        "Thumbs.db": "an OLE file, as Thumbs.db is",
        "zPDF.pdf": "a PDF",
    }
