"""The node types of an autoscaling cluster: whether its nodes can ever give what work needs.

Ray keeps them where only its autoscaler reads them: in the file of `--autoscaling-config`, on the
head. A driver on the head (`ray job submit`) finds it by the autoscaler's own command line.
"""

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ctc_ray.config.base import read_yaml
from ctc_ray.errors import UsageError

logger = logging.getLogger(__name__)

_PROCESSES = Path("/proc")
_CONFIG, _ADDRESS = "--autoscaling-config=", "--gcs-address="


@dataclass(frozen=True)
class NodeType:
    """Nodes that a cluster may have."""

    name: str
    resources: Mapping[str, float]
    most: int
    """How many there may be at the same time."""

    def fits(self, bundle: Mapping[str, float]) -> int:
        """How many times a node has these resources."""
        needed = {name: need for name, need in bundle.items() if need > 0}
        return min(int(self.resources.get(n, 0) / need + 1e-9) for n, need in needed.items())


def node_types(gcs_address: str) -> list[NodeType] | None:
    """The worker types and the head of the cluster at this address; None if they are not known."""
    path = _config_file(gcs_address)
    if path is None:
        return None
    try:
        config = read_yaml(str(path))
        limit = int(config["max_workers"])
        return [
            NodeType(
                name,
                {key: float(value) for key, value in (kind.get("resources") or {}).items()},
                1 if name == config["head_node_type"] else min(limit, kind.get("max_workers", 0)),
            )
            for name, kind in config["available_node_types"].items()
        ]
    except (OSError, UsageError, KeyError, TypeError, ValueError, AttributeError) as error:
        logger.debug("%s: no node types: %s", path, error)
        return None


def _config_file(gcs_address: str) -> Path | None:
    for folder in _PROCESSES.glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:  # it has ended, or is another user's
            continue
        names = [word.removeprefix(_CONFIG) for word in words if word.startswith(_CONFIG)]
        if names and names[0] and f"{_ADDRESS}{gcs_address}" in words:
            return Path(os.path.expanduser(names[0]))
    return None


def why_impossible(types: Sequence[NodeType], bundle: Mapping[str, float], *, n: int) -> str | None:
    """Why no growth of the cluster gives so many times these resources; None if it can.

    Args:
        bundle: what one worker needs, all on one node.
        n: workers at the same time.
    """
    if not any(bundle.values()):
        return None
    most = sum(kind.most * kind.fits(bundle) for kind in types if kind.most)
    if most >= n:
        return None
    known = "; ".join(f"{t.name} {as_text(t.resources)}, at most {t.most}" for t in types if t.most)
    if most == 0:
        return f"no node type has {as_text(bundle)} on one node; there are {known}"
    return f"the nodes of all types have {as_text(bundle)} {most} times at most; there are {known}"


def as_text(resources: Mapping[str, float]) -> str:
    """CPUs and GPUs in words, e.g. `8 CPUs and 1 GPU`."""
    parts = [
        f"{resources[name]:g} {name}{'' if resources[name] == 1 else 's'}"
        for name in ("CPU", "GPU")
        if resources.get(name)
    ]
    return " and ".join(parts) or "no CPUs"
