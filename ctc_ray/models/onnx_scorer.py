"""Score images on CPUs with ONNX Runtime; a process that imports this module needs no torch.

B batch, S side of the network's input, C channels, K classes of a head.
"""

import os

import numpy as np
import numpy.typing as npt

from ctc_ray.labels import LabelSpace


class OnnxScorer:
    """A network of `export_onnx_at_own_size`; threads may call it at the same time."""

    def __init__(self, content: bytes, labels: LabelSpace) -> None:
        """Build the network; its outputs are in the order of the heads."""
        # Without it, importing the library begins to report to its maker (seen with 1.32).
        os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
        import onnxruntime

        options = onnxruntime.SessionOptions()
        # Threads score whole batches: the bits are the same on any number of CPUs.
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.enable_cpu_mem_arena = False  # it would keep what the largest batch has taken
        self._labels = labels
        self._session = onnxruntime.InferenceSession(
            content, options, providers=["CPUExecutionProvider"]
        )
        (self._input,) = (value.name for value in self._session.get_inputs())

    def predict_probs(
        self, images_BSSC: npt.NDArray[np.uint8]
    ) -> dict[str, npt.NDArray[np.float32]]:
        """Head -> probabilities (B, K) of RGB images; B may be 0."""
        if len(images_BSSC) == 0:
            return self._labels.no_probs()
        probs = self._session.run(None, {self._input: images_BSSC})
        return dict(zip(self._labels.heads, probs, strict=True))
