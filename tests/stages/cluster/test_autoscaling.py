"""Commands on a cluster that starts its nodes when they are needed; its nodes are processes here.

Ray's own autoscaler, with the provider that Ray tests it with.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import slow_units
from builders import photograph, untrained_bundle
from own_ray import CHECKOUT, Cluster, own_ray

pytestmark = [pytest.mark.ray, pytest.mark.timeout(500)]

NO_COMMANDS = (
    *("initialization_commands", "setup_commands", "head_setup_commands", "cluster_synced_files"),
    *("worker_setup_commands", "head_start_ray_commands", "worker_start_ray_commands"),
    *("rsync_exclude", "rsync_filter"),
)
PATHS = os.pathsep.join([str(CHECKOUT), str(Path(slow_units.__file__).parent)])


def node_types(gcs_address: str) -> dict[str, object]:
    return {
        "cluster_name": "fake",
        "max_workers": 2,
        "upscaling_speed": 1.0,
        "idle_timeout_minutes": 5,
        "provider": {
            "type": "fake_multinode",
            "gcs_address": gcs_address,
            "use_node_id_as_ip": True,
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
        },
        "available_node_types": {
            "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
            "cpu": {
                "resources": {"CPU": 1, "object_store_memory": 100_000_000},
                "node_config": {},
                "min_workers": 0,
                "max_workers": 2,
            },
        },
        "head_node_type": "ray.head.default",
        "auth": {},
        "docker": {},
        "file_mounts": {},
        "file_mounts_sync_continuously": False,
        **{name: [] for name in NO_COMMANDS},
    }


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A head without CPUs, and up to two nodes of one CPU."""
    environment = {
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "RAY_FAKE_CLUSTER": "1",
        "PYTHONPATH": PATHS,
    }
    with own_ray("--num-cpus=0", autoscaling=node_types, environment=environment) as started:
        yield started


def run(cluster: Cluster, *argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *argv],
        env=cluster.environment | {"RAY_ADDRESS": cluster.address, "PYTHONPATH": PATHS},
        capture_output=True,
        text=True,
        check=False,
        timeout=400,
    )


def test_predict_ends_with_as_many_workers_as_nodes_came(cluster: Cluster, tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for number in range(60):
        (images / f"{number:02d}.jpg").write_bytes(photograph("red", seed=number))
    bundle = untrained_bundle(tmp_path / "model")
    marks = tmp_path / "marks"
    marks.mkdir()
    places = (str(place) for place in (bundle, images, tmp_path / "out", marks))
    done = run(cluster, slow_units.__file__, *places)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {"workers": 2, "nodes": 2, "rows": 60}


def test_what_no_node_type_can_give_is_an_error_at_once(
    cluster: Cluster, dataset: Path, tmp_path: Path
) -> None:
    argv = (
        *("-m", "ctc_ray", "train", "--dataset-uri", str(dataset), "--heads", "species"),
        *("--output-uri", str(tmp_path / "out"), "--workers", "1", "--gpu-per-worker", "1"),
    )
    done = run(cluster, *argv)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert re.search("can never give that: no node type has 1 CPU and 1 GPU on one node", line)
