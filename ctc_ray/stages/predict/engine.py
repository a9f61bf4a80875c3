"""What computes the network of `ctc predict`: PyTorch, or on CPUs ONNX Runtime.

The network is written for ONNX Runtime once, by the driver; workers read it, and import no torch.
"""

import logging
from typing import assert_never

import numpy as np

from ctc_ray.config.prediction import PredictConfig
from ctc_ray.errors import ConfigError
from ctc_ray.files import storage
from ctc_ray.models.bundle import Bundle
from ctc_ray.models.classifier import predict_probs
from ctc_ray.models.onnx_scorer import OnnxScorer
from ctc_ray.runs.layout import WORK_FOLDER
from ctc_ray.stages.predict.scoring import Network

logger = logging.getLogger(__name__)

MANY_IMAGES = 1000
"""Images for which ONNX Runtime is worth the seconds in which the network is written for it."""
_FILE = "network.onnx"
_MOST_APART = 1e-5  # scores of the two
_N_TRIED = 8


def network_of(config: PredictConfig, bundle: Bundle, *, n_images: int) -> Network:
    """What workers know of the model; see `_for_onnx`."""
    return Network(
        bundle.label_space,
        bundle.image_size,
        bundle.keep_aspect,
        bundle.is_stack,
        _for_onnx(config, bundle, n_images),
    )


def _for_onnx(config: PredictConfig, bundle: Bundle, n_images: int) -> str | None:
    """Write the network for ONNX Runtime into the work folder, if that is to compute it.

    Args:
        bundle: as its answers are wanted: calibrated or not.
        n_images: of the whole run, so that a resumed one does as the first did.

    Returns:
        Its URI; None: PyTorch computes it.

    Raises:
        ConfigError: ONNX Runtime is asked for, and cannot.
    """
    match config.engine:
        case "torch":
            return None
        case "auto":
            if _is_for_torch(config) or n_images < MANY_IMAGES:
                return None
        case "onnx":
            pass
        case _:
            assert_never(config.engine)
    try:
        content = _written(bundle)
    except Exception as error:  # networks that the exporter does not know
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        if config.engine == "onnx":
            raise ConfigError(f"--engine onnx: {reason}; use --engine torch") from error
        logger.warning("ONNX Runtime cannot compute this network, PyTorch does: %s", reason)
        return None
    uri = storage.join(config.output_uri, WORK_FOLDER, _FILE)
    storage.write_bytes(uri, content)
    return uri


def _is_for_torch(config: PredictConfig) -> bool:
    return config.gpu_per_worker > 0 or config.precision != "float32"


def _written(bundle: Bundle) -> bytes:
    """The network, after both engines have answered alike.

    Raises:
        ValueError: they do not.
    """
    from ctc_ray.models import exporters  # onnx takes a second to import

    try:
        return _alike(bundle, exporters.trace_onnx_at_own_size(bundle))
    except Exception as error:  # noqa: BLE001  # networks whose one run is not all that they do
        logger.debug("a run of the network cannot be written down: %s", error)
    return _alike(bundle, exporters.export_onnx_at_own_size(bundle))


def _alike(bundle: Bundle, content: bytes) -> bytes:
    side = bundle.image_size
    images_BSSC = np.random.default_rng(0).integers(0, 256, (_N_TRIED, side, side, 3), np.uint8)
    expected = predict_probs(bundle, images_BSSC)
    for head, probs in OnnxScorer(content, bundle.label_space).predict_probs(images_BSSC).items():
        apart = float(np.abs(probs - expected[head]).max())
        if not apart <= _MOST_APART:
            raise ValueError(f"scores of {head} are {apart:.2g} apart")
    return content
