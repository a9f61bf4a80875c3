"""Write a bundle as one file that other programs run.

The input `images` are uint8 RGB images (B, H, W, 3) of any number and size. There is one output
`probs_<head>` (B, K) per head. The file's metadata holds the classes: `labels` is head -> classes
as JSON.

B batch, H height, W width, C channels, K classes of a head.
"""

import contextlib
import io
import json
import logging
import re
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import onnx
import torch
from torch import nn

from ctc_ray import __version__
from ctc_ray.models.bundle import Bundle
from ctc_ray.models.classifier import AtOwnSize, Classifier
from ctc_ray.schemas import probs_column

_OPSET = 18
_DIMENSIONS = ("batch", "height", "width")
_EXAMPLE_SHAPE = (2, 75, 101, 3)  # any sizes but 1, which torch.export makes a constant


def export_onnx(bundle: Bundle) -> bytes:
    """The bundle as an ONNX file (opset 18); equal bundles give equal bytes."""
    return _onnx(bundle, Classifier(bundle), _EXAMPLE_SHAPE, _DIMENSIONS)


def export_onnx_at_own_size(bundle: Bundle) -> bytes:
    """Likewise, for any number of images that have the network's own size."""
    side = bundle.image_size
    return _onnx(bundle, AtOwnSize(bundle), (2, side, side, 3), _DIMENSIONS[:1])


def trace_onnx_at_own_size(bundle: Bundle) -> bytes:
    """As `export_onnx_at_own_size` in a fifth of the time: it writes down one run of the network.

    What a network does otherwise with another number of images is lost: compare its answers.
    """
    side = bundle.image_size
    images_BSSC = torch.zeros(
        (2, side, side, 3), dtype=torch.uint8, device=bundle.model.mean.device
    )
    outputs = [probs_column(head) for head in bundle.label_space.heads]
    with _quiet(), tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "network.onnx")
        torch.onnx.export(
            AtOwnSize(bundle),
            (images_BSSC,),
            file,
            dynamo=False,
            opset_version=_OPSET,
            input_names=["images"],
            output_names=outputs,
            dynamic_axes={name: {0: "batch"} for name in ("images", *outputs)},
        )
        return file.read_bytes()


def _onnx(bundle: Bundle, network: nn.Module, shape: tuple[int, ...], free: Sequence[str]) -> bytes:
    with _quiet():
        program = torch.onnx.export(
            _exported(bundle, network, shape, free),
            (),
            dynamo=True,
            opset_version=_OPSET,
            input_names=["images"],
            output_names=[probs_column(head) for head in bundle.label_space.heads],
            verbose=False,
        )
    if program is None:
        raise RuntimeError("torch.onnx.export gave no program")
    model: onnx.ModelProto = program.model_proto
    _forget_source_lines(model)
    _name_dimensions(model)
    for key, value in _export_metadata(bundle).items():
        model.metadata_props.add(key=key, value=value)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def _name_dimensions(model: onnx.ModelProto) -> None:
    """Call the free dimensions batch, height and width; torch numbers them: s77."""
    shape = model.graph.input[0].type.tensor_type.shape
    names = {dim.dim_param: name for dim, name in zip(shape.dim, _DIMENSIONS, strict=False)}
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_param = re.sub(r"\w+", lambda m: names.get(m[0], m[0]), dim.dim_param)


def export_torch(bundle: Bundle) -> bytes:
    """The bundle as a .pt2 file of torch.export; its extra files hold the metadata."""
    sink = io.BytesIO()
    with _quiet():
        program = _exported(bundle, Classifier(bundle), _EXAMPLE_SHAPE, _DIMENSIONS)
        torch.export.save(program, sink, extra_files=_export_metadata(bundle))
    return sink.getvalue()


def _exported(
    bundle: Bundle, network: nn.Module, shape: tuple[int, ...], free: Sequence[str]
) -> torch.export.ExportedProgram:
    """The network for images of this shape, of which the first axes, so named, are free."""
    axes = {axis: torch.export.Dim(name, min=1) for axis, name in enumerate(free)}
    example_BHWC = torch.zeros(shape, dtype=torch.uint8, device=bundle.model.mean.device)
    program = torch.export.export(network, (example_BHWC,), dynamic_shapes=(axes,))
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # holds paths of this machine and lines of code
    return program


def _export_metadata(bundle: Bundle) -> dict[str, str]:
    return {
        "labels": json.dumps(bundle.label_space.to_json(), ensure_ascii=False),
        "image_size": str(bundle.image_size),
        "keep_aspect": json.dumps(bundle.keep_aspect),
        "images": "RGB, uint8, (batch, height, width, 3); any size, scaled inside",
        "ctc_version": __version__,
    }


def _forget_source_lines(model: onnx.ModelProto) -> None:
    for node in model.graph.node:
        node.ClearField("metadata_props")
    for function in model.functions:
        for node in function.node:
            node.ClearField("metadata_props")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence prints, warnings and logs of the exporters about their own code."""
    exporters = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript")]
    levels = [log.level for log in exporters]
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for log in exporters:
            log.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for log, level in zip(exporters, levels, strict=True):
                log.setLevel(level)
