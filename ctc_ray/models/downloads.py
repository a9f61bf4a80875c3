"""Where the weights that timm offers come from: the cache on this disk, or the network.

huggingface_hub tries again for a minute or more where there is no network. Here one short request
asks first, and weights that are in the cache need no network.
"""

import os
import urllib.request
from urllib.error import HTTPError
from urllib.parse import urlsplit

import huggingface_hub
import timm
import torch
from timm.models import PretrainedCfg

from ctc_ray.errors import ConfigError

_HUB = "https://huggingface.co"
_FILES = ("model.safetensors", "pytorch_model.bin")  # in the order in which timm looks for them
_TIMEOUT_S = 5


def cached_weights(name: str) -> str | None:
    """The file with the weights of a model of timm; None: timm has to download it.

    Raises:
        ConfigError: there are none to download, or their server does not answer.
    """
    cfg = timm.get_pretrained_cfg(name)
    if cfg is None or not (cfg.hf_hub_id or cfg.url):
        raise ConfigError(
            f"model.pretrained: timm has no weights of {name} to download; give a file of weights, "
            "or --model.pretrained false"
        )
    found = _in_cache(cfg)
    if found is None:
        _require_answer(name, _server(cfg))
    return found


def _in_cache(cfg: PretrainedCfg) -> str | None:
    kind: bool | str = cfg.custom_load
    if kind == "hf" or (kind and not cfg.hf_hub_id):
        return None  # not a file of named tensors
    if not cfg.hf_hub_id:
        name = urlsplit(str(cfg.url)).path.rpartition("/")[2]
        path = os.path.join(torch.hub.get_dir(), "checkpoints", name)
        return path if os.path.isfile(path) else None
    repository, _, revision = cfg.hf_hub_id.partition("@")
    for name in (cfg.hf_hub_filename,) if cfg.hf_hub_filename else _FILES:
        found = huggingface_hub.try_to_load_from_cache(repository, name, revision=revision or None)
        if isinstance(found, str):
            return found
    return None


def _server(cfg: PretrainedCfg) -> str:
    if cfg.hf_hub_id:
        return os.environ.get("HF_ENDPOINT", _HUB)
    parts = urlsplit(str(cfg.url))
    return f"{parts.scheme}://{parts.netloc}"


def _require_answer(name: str, server: str) -> None:
    """Ask the server for anything, once; proxies of the environment are used."""
    request = urllib.request.Request(server, method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S):
            pass
    except HTTPError:
        pass  # an answer, if not a kind one
    except OSError as error:
        raise ConfigError(
            f"model.pretrained: the weights of {name} cannot be downloaded: {server} does not "
            f"answer ({getattr(error, 'reason', error)}); give a file of weights with "
            "--model.pretrained FILE.safetensors"
        ) from error
