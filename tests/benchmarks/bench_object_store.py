"""What one core loses when the photographs lie in an object store that is slow to answer.

Photographs are read ahead and made small on one core. The store is a process of its own on the
other cores: it speaks as much S3 as reading needs, and answers each request late. An image is one
request.
"""

import argparse
import asyncio
import hashlib
import multiprocessing
import os
import re
import statistics
import time
from multiprocessing.connection import Connection
from pathlib import Path

from measure import PHOTOS, photographs

from ctc_ray.files.prefetch import prefetch_contents
from ctc_ray.images.resize import to_shard_jpeg

_RANGE = re.compile(rb"range: *bytes=(\d+)-(\d+)", re.IGNORECASE)


class Store:
    """Files as the objects of a bucket, by number."""

    def __init__(self, paths: list[str], latency_s: float) -> None:
        self._objects = {f"/photos/{i}": Path(path).read_bytes() for i, path in enumerate(paths)}
        self._latency_s = latency_s

    async def serve(self, port: Connection) -> None:
        server = await asyncio.start_server(self._answer_all, "127.0.0.1", 0)
        port.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    async def _answer_all(
        self, requests: asyncio.StreamReader, answers: asyncio.StreamWriter
    ) -> None:
        while True:
            try:
                request = await requests.readuntil(b"\r\n\r\n")
            except (asyncio.IncompleteReadError, ConnectionResetError):
                answers.close()
                return
            await asyncio.sleep(self._latency_s)
            answers.writelines(self._answer(request))

    def _answer(self, request: bytes) -> list[bytes | memoryview]:
        command, name, _ = request.split(b"\r\n", 1)[0].split(b" ")
        content = self._objects.get(name.decode())
        if content is None:
            return [b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"]
        status, first, last = "200 OK", 0, len(content) - 1
        extent = ""
        if found := _RANGE.search(request):
            status, first, last = "206 Partial Content", int(found[1]), int(found[2])
            extent = f"Content-Range: bytes {first}-{last}/{len(content)}\r\n"
        head = (
            f"HTTP/1.1 {status}\r\nContent-Length: {last - first + 1}\r\n{extent}"
            f'ETag: "{hashlib.md5(name).hexdigest()}"\r\n'
            "Last-Modified: Mon, 02 Jan 2023 03:04:05 GMT\r\n\r\n"
        )
        body = [] if command == b"HEAD" else [memoryview(content)[first : last + 1]]
        return [head.encode(), *body]


def serve(paths: list[str], latency_s: float, cores: set[int], port: Connection) -> None:
    os.sched_setaffinity(0, cores)
    asyncio.run(Store(paths, latency_s).serve(port))


def seconds(uris: list[str], n_threads: int | None) -> tuple[float, float]:
    """Of the clock, and of the CPU."""
    began, began_cpu = time.perf_counter(), time.process_time()
    for raw in prefetch_contents(uris, n_threads):
        if not isinstance(raw, bytes):
            raise SystemExit(f"a photograph is {raw}")
        to_shard_jpeg(raw, smallest_side=400, quality=75, max_pixels=10**8, truncated="fail")
    return time.perf_counter() - began, time.process_time() - began_cpu


def print_line(what: str, times: list[tuple[float, float]], base_s: float, n_images: int) -> None:
    best, median = min(t for t, _ in times), statistics.median(t for t, _ in times)
    cpu_ms = min(cpu for _, cpu in times) / n_images * 1000
    rates = f"{n_images / best:.1f} | {n_images / median:.1f}"
    print(f"| {what} | {rates} | {base_s / best:.2f} | {cpu_ms:.1f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=82)
    parser.add_argument("--photos", type=Path, default=PHOTOS)
    parser.add_argument("--latency-ms", type=float, default=30)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    mine, *others = sorted(os.sched_getaffinity(0))
    paths = photographs(arguments.photos, 10**4)
    paths = sorted(set(paths))[:: max(1, len(set(paths)) // arguments.images)][: arguments.images]
    ours, theirs = multiprocessing.Pipe()
    store = multiprocessing.get_context("spawn").Process(
        target=serve,
        args=(paths, arguments.latency_ms / 1000, set(others) or {mine}, theirs),
        daemon=True,
    )
    store.start()
    os.environ["AWS_ENDPOINT_URL"] = f"http://127.0.0.1:{ours.recv()}"
    os.environ |= {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
    os.environ |= {"AWS_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true"}
    os.sched_setaffinity(0, {mine})
    objects = [f"s3://photos/{i}" for i in range(len(paths))]
    ways: dict[str, tuple[list[str], int | None]] = {
        "local disk": (paths, None),
        **{f"store, {n} thread{'s'[: n - 1]}": (objects, n) for n in (1, 4, 8)},
        "store, the default (16)": (objects, None),
    }
    times: dict[str, list[tuple[float, float]]] = {what: [] for what in ways}
    seconds(paths, None)  # imports are done, files are in the page cache
    for _ in range(arguments.rounds):
        for what, (uris, n_threads) in ways.items():
            times[what].append(seconds(uris, n_threads))
    n_bytes = sum(os.path.getsize(path) for path in paths)
    print(f"\n### one core, {arguments.latency_ms:g} ms per request\n")
    print(f"{len(paths)} photographs of {n_bytes / len(paths) / 1e6:.1f} MB, ", end="")
    print(f"{arguments.rounds} rounds in turns; {time.strftime('%Y-%m-%d')}\n")
    print("| what | images/s, best | median | ratio of the best | CPU ms per image |")
    print("|---|---|---|---|---|")
    base_s = min(t for t, _ in times["local disk"])
    for what, found in times.items():
        print_line(what, found, base_s, len(paths))
    store.terminate()


if __name__ == "__main__":
    main()
