"""Images per second that training's reader makes of shards in a store that is slow to answer.

An epoch of one worker on one core, nothing is learnt: row groups are read, images decoded and
changed, or not even decoded. The store is an S3 server (moto) of its own process on the other
cores, behind a proxy that holds back each request. Beside it the same shards on the disk, and one
thread that keeps no footer.

    python tests/benchmarks/bench_training_reader.py [--images 1000] [--latency-ms 30]
"""

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import numpy.typing as npt
from bench_input import SIZE, dataset_of
from measure import PHOTOS, machine, photographs, repeated

from ctc_ray.config.training import AugmentConfig
from ctc_ray.files import storage
from ctc_ray.files.row_groups import RowGroupReader
from ctc_ray.labels import LabelSpace
from ctc_ray.runs.manifest import Manifest
from ctc_ray.stages.train.pixels import decode
from ctc_ray.training import batches
from ctc_ray.training.batches import Decode, LoaderSettings, read_batches
from ctc_ray.training.plans import list_row_groups, plan_epoch

sys.path.append(str(Path(__file__).resolve().parents[1]))
from flaky_s3 import Faults, flaky_s3

BATCH = 64
BUCKET_URI = "s3://shards"


def serve(latency_s: float, cores: set[int], address: Connection) -> None:
    import logging

    from moto.server import ThreadedMotoServer

    os.sched_setaffinity(0, cores)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    with flaky_s3(f"http://{host}:{port}", Faults(latency_s=latency_s)) as slow:
        address.send(slow)
        address.recv()


def nothing(raw: bytes, seed: int) -> npt.NDArray[np.uint8]:
    """A black image."""
    return np.zeros((8, 8, 3), np.uint8)


class Epochs:
    """Epochs of one worker, one after the other, with one reader of row groups."""

    def __init__(self, uri: str, manifest: Manifest, decoder: Decode) -> None:
        self._groups = list_row_groups(uri, manifest.shards, "train")
        self._settings = LoaderSettings(
            LabelSpace.from_json(manifest.classes),
            decoder,
            BATCH,
        )
        self._epoch = 0

    def rate(self) -> float:
        """Images per second of the next epoch."""
        plan = plan_epoch(self._groups, image_choice="all", seed=0, epoch=self._epoch)
        self._epoch += 1
        began = time.perf_counter()
        n_images = sum(len(batch.image_ids) for batch in read_batches(plan, self._settings))
        return n_images / (time.perf_counter() - began)

    def rate_of_one_thread(self) -> float:
        """Batches read one row group at a time, with each footer read again."""
        kept, threads = self._settings, batches._READ_THREADS
        self._settings = replace(kept, row_groups=RowGroupReader(footer_bytes=0))
        batches._READ_THREADS = 1
        try:
            return self.rate()
        finally:
            self._settings, batches._READ_THREADS = kept, threads


def measured(ways: dict[str, Callable[[], float]], n_rounds: int) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {what: [] for what in ways}
    for _ in range(n_rounds):
        for what, rate in ways.items():
            found[what].append(rate())
    return found


def print_table(found: dict[str, list[float]]) -> None:
    print("\n| what | images/s of each round | ratio of the best |\n|---|---|---|")
    base = max(next(iter(found.values())))
    for what, rates in found.items():
        print(f"| {what} | {', '.join(f'{r:.0f}' for r in rates)} | {max(rates) / base:.2f} |")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--times", type=int, default=8, help="copies of each shard")
    parser.add_argument("--photos", type=Path, default=PHOTOS)
    parser.add_argument("--latency-ms", type=float, default=30)
    parser.add_argument("--rounds", type=int, default=4)
    asked = parser.parse_args()
    mine, *others = sorted(os.sched_getaffinity(0))
    os.environ |= {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
    os.environ |= {"AWS_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true"}
    ours, theirs = multiprocessing.Pipe()
    store = multiprocessing.get_context("spawn").Process(
        target=serve, args=(asked.latency_ms / 1000, set(others) or {mine}, theirs), daemon=True
    )
    store.start()
    os.environ["AWS_ENDPOINT_URL"] = ours.recv()
    with tempfile.TemporaryDirectory() as name:
        dataset = dataset_of(Path(name), photographs(asked.photos, asked.images))
        manifest = repeated(dataset, asked.times)
        import boto3

        boto3.client("s3").create_bucket(Bucket=BUCKET_URI.removeprefix("s3://"))
        for shard in manifest.shards:
            content = (dataset / shard.path).read_bytes()
            storage.write_bytes(f"{BUCKET_URI}/{shard.path}", content)
        n_bytes = sum((dataset / shard.path).stat().st_size for shard in manifest.shards)
        n_images = sum(shard.n_images for shard in manifest.shards)
        os.sched_setaffinity(0, {mine})
        print(f"### training's reader: {asked.latency_ms:g} ms per request, one core\n")
        print(f"{n_images:,} images of {n_bytes / n_images / 1000:.0f} kB, ", end="")
        print(f"{asked.rounds} epochs in turns; {machine()}")
        changed = partial(
            decode, image_size=SIZE, keep_aspect=False, settings=AugmentConfig(), linear=True
        )
        for title, decoder in (("nothing decoded", nothing), ("default changes", changed)):
            disk, slow = (Epochs(u, manifest, decoder) for u in (str(dataset), BUCKET_URI))
            ways = {
                f"disk, {title}": disk.rate,
                f"store, {title}": slow.rate,
                f"store, {title}, one thread and no footers": slow.rate_of_one_thread,
            }
            print_table(measured(ways, asked.rounds))
    store.terminate()


if __name__ == "__main__":
    main()
