"""What `ctc create-inventory` reads of the files themselves, by threads: from a disk or a store.

A helper of that stage. Answers are columns in the order of the files; the bytes are not kept.
"""

import itertools
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from hashlib import blake2b
from typing import TypeVar, assert_never

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ctc_ray.config.choices import TimeSource
from ctc_ray.errors import ConfigError
from ctc_ray.files import storage
from ctc_ray.files.image_uris import image_uri
from ctc_ray.images import exif, signatures
from ctc_ray.images.reconyx import Trigger
from ctc_ray.images.tiff import ReadAt
from ctc_ray.inventory.findings import Findings
from ctc_ray.inventory.sources.files import FoundFile, unique_text
from ctc_ray.inventory.sources.times import time_in_name
from ctc_ray.schemas import Failure

logger = logging.getLogger(__name__)

_FILES_PER_REPORT = 20_000
_FILES_AT_ONCE = 16
_DIGEST_BYTES = 16

In = TypeVar("In")
Out = TypeVar("Out")


@dataclass(frozen=True)
class FoundImages:
    """The files of a tree that are images, or were meant to be."""

    files: list[FoundFile]
    captured_at: pa.Array
    """Capture time of each file, timestamp[us]; null if unknown."""
    triggers: dict[str, pa.Array]
    """`event` and `frame` that the camera wrote, int64; null where it wrote none."""
    findings: Findings


@dataclass(frozen=True)
class _Header:
    not_an_image: str | None = None
    unreadable: str | None = None
    time: datetime | None = None
    time_from: TimeSource | None = None
    broken_time: str | None = None
    trigger: Trigger | None = None
    has_modify_date: bool = False


def find_images(
    files: Sequence[FoundFile], *, time_from: Sequence[TimeSource], n_threads: int
) -> FoundImages:
    """Look at the first bytes of each file: is it an image, and when was it taken?

    A file that cannot be read stays: it will be a failure.

    Args:
        time_from: where to read the time, best first; for it more bytes are needed. Empty: the time
            is not wanted.
        n_threads: files that are read at once.
    """

    def look(file: FoundFile) -> _Header:
        return _read_header(file, time_from=time_from)

    headers = list(_by_threads(look, files, n_threads, doing="looked at"))
    pairs = list(zip(files, headers, strict=True))
    none = [(unique_text(f.path), h.not_an_image) for f, h in pairs if h.not_an_image]
    images = [(file, header) for file, header in pairs if header.not_an_image is None]
    unreadable = [(f.uri, h.unreadable) for f, h in images if h.unreadable]
    broken = [(f.uri, h.broken_time) for f, h in images if h.broken_time is not None]
    times = [header.time for _, header in images]
    triggers = [header.trigger for _, header in images]
    findings = Findings()
    for kind, cases in (
        ("not_an_image", none),
        ("unreadable_files", unreadable),
        ("broken_times", broken),
    ):
        findings = findings.listed(kind, [row for row, _ in cases], [what for _, what in cases])
    if time_from:
        n_without = times.count(None) - len(broken) - len(unreadable)
        findings = findings.counted(images_without_time=n_without)
        findings = findings.plus(_sources_of_times([header for _, header in images]))
    return FoundImages(
        [file for file, _ in images],
        pa.array(times, pa.timestamp("us")),
        {
            "event": pa.array([t and t.event_number for t in triggers], pa.int64()),
            "frame": pa.array([t and t.frame for t in triggers], pa.int64()),
        },
        findings,
    )


def _sources_of_times(headers: Sequence[_Header]) -> Findings:
    """How many times came from where, unless all are DateTimeOriginal; and which were not used."""
    counts = Counter(header.time_from for header in headers if header.time is not None)
    unused = sum(header.time is None and header.has_modify_date for header in headers)
    findings = Findings().counted(images_with_only_a_modify_date=unused)
    if set(counts) <= {"original"}:
        return findings
    found = {f"times_from_{name}".replace("-", "_"): n for name, n in sorted(counts.items())}
    return findings.counted(**found)


def missing_files(image_uris: pa.Array, *, root_uri: str | None, n_threads: int) -> Findings:
    """The images that are not where the inventory says."""
    uris = pc.unique(image_uris).to_pylist()

    def look(uri: str) -> str | None:
        try:
            where = image_uri(root_uri, uri)
            if isinstance(where, Failure):
                return f"{uri}: {where}"
            return None if storage.is_file(where) else where
        except ConnectionError:  # says nothing about the file
            raise
        except (OSError, ConfigError) as error:
            return " ".join(str(error).split())

    answers = list(_by_threads(look, uris, n_threads, doing="looked for"))
    missing = [(uri, f"no file {a}") for uri, a in zip(uris, answers, strict=True) if a is not None]
    return Findings().listed("missing_files", [u for u, _ in missing], [a for _, a in missing])


def content_hashes(
    image_uris: pa.Array | pa.ChunkedArray, *, root_uri: str | None, n_threads: int
) -> pa.Array:
    """A hash of each image's whole file, 32 hex digits; null where it cannot be read."""
    encoded = pc.dictionary_encode(image_uris)
    encoded = encoded.combine_chunks() if isinstance(encoded, pa.ChunkedArray) else encoded
    uris = encoded.dictionary.to_pylist()

    def digest(uri: str) -> str | None:
        try:
            where = image_uri(root_uri, uri)
            if isinstance(where, Failure):
                return None
            content = storage.read_bytes(where)
        except ConnectionError:
            raise
        except (OSError, ConfigError):
            return None
        return blake2b(content, digest_size=_DIGEST_BYTES).hexdigest()

    digests = pa.array(_by_threads(digest, uris, n_threads, doing="compared"), pa.string())
    return digests.take(encoded.indices)


def same_content(image_uris: pa.Array | pa.ChunkedArray, hashes: pa.Array) -> Findings:
    """The images whose files are equal byte by byte to that of an earlier row, and of which one.

    The first of equal ones is not listed. Files that cannot be read are equal to none.
    """
    codes = hashes.dictionary_encode().indices
    indices = np.flatnonzero(codes.is_valid().to_numpy(zero_copy_only=False))
    numbers = codes.take(pa.array(indices)).to_numpy()
    _, first, inverse = np.unique(numbers, return_index=True, return_inverse=True)
    later = first[inverse] != np.arange(len(numbers))
    equal, firsts = indices[later], indices[first[inverse][later]]
    return Findings().listed(
        "same_content", image_uris.take(pa.array(equal)), image_uris.take(pa.array(firsts))
    )


def _read_header(file: FoundFile, *, time_from: Sequence[TimeSource]) -> _Header:
    n_bytes = exif.HEADER_BYTES if time_from else signatures.SIGNATURE_BYTES
    try:
        head = storage.read_bytes(file.uri, n_bytes)
        what = signatures.not_an_image(file.path, head)
        if what is not None or not time_from:
            return _Header(not_an_image=what)
        found = exif.read_times(head, _read_on(file.uri) if len(head) == n_bytes else None)
    except ConnectionError:
        raise
    except OSError as error:
        if isinstance(error, FileNotFoundError) and not signatures.has_image_extension(file.path):
            return _Header(not_an_image="a link that leads nowhere")
        return _Header(unreadable=" ".join(str(error).split()))
    broken = None
    for source in time_from:
        taken = _time(found, file, source)
        if taken.time is not None:
            return _Header(time=taken.time, time_from=source, trigger=found.trigger)
        broken = broken or taken.text
    has_modify_date = "modify-date" in found.times
    return _Header(broken_time=broken, trigger=found.trigger, has_modify_date=has_modify_date)


def _time(found: exif.CameraTimes, file: FoundFile, source: TimeSource) -> exif.ExifTime:
    match source:
        case "original" | "digitized" | "maker-note" | "modify-date":
            return found.times.get(source, exif.ExifTime(None, None))
        case "file-name":
            return exif.ExifTime(time_in_name(file.path), None)
        case _:
            assert_never(source)


def _read_on(uri: str) -> ReadAt:
    """Reads bytes behind the head of a file, for the few files that have their EXIF data there."""

    def read(start: int, n: int) -> bytes:
        with storage.open_file(uri) as file:
            if start >= file.size():
                return b""
            file.seek(start)
            return bytes(file.read(n))

    return read


def _by_threads(
    look: Callable[[In], Out], items: Sequence[In], n_threads: int, *, doing: str
) -> Iterator[Out]:
    """The answer for each item, in order; logs progress.

    A thread takes several items at a time, if there are many: handing over each takes longer than
    to look at a file of this machine.
    """
    n_at_once = max(1, min(_FILES_AT_ONCE, len(items) // (4 * n_threads)))

    def look_at(some: Sequence[In]) -> list[Out]:
        return [look(item) for item in some]

    with ThreadPoolExecutor(n_threads) as pool:
        for start in range(0, len(items), _FILES_PER_REPORT):
            done = min(start + _FILES_PER_REPORT, len(items))
            parts = [items[k : min(k + n_at_once, done)] for k in range(start, done, n_at_once)]
            yield from itertools.chain.from_iterable(pool.map(look_at, parts))
            logger.info("%s %d of %d files", doing, done, len(items))
