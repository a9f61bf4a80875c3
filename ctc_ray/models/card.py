"""Write the model card of a bundle: use, classes, metrics and limits of the model."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

_LIMITS = """\
The numbers above hold for images like those of the validation split. At other places, with other
cameras or animals, expect worse; check some hundred of your own images before you rely on it. It
answers every image with one of its classes, also when none of them is right. Its scores are
probabilities for such images only, as far as the temperatures above could make them so. Rare
classes are known from few images: see the counts."""


def model_card(description: Mapping[str, Any]) -> str:
    """The card as Markdown.

    Args:
        description: content of bundle.json.
    """
    return "\n".join(_lines(description)) + "\n"


def _lines(description: Mapping[str, Any]) -> Iterator[str]:
    provenance = description["provenance"]
    heads = ", ".join(description["classes"])
    yield f"# Camera-trap classifier: {heads}"
    yield ""
    yield (
        f"A {description['backbone']} network with {len(description['classes'])} "
        f"output{'s' if len(description['classes']) > 1 else ''}, trained by ctc "
        f"{description['ctc_version']}. It takes {_what(is_stack=description['is_stack'])}, "
        f"{_how(description['image_size'], keep_aspect=description['keep_aspect'])}."
    )
    yield from ("", "## Use", "", "```sh")
    yield "ctc predict --bundle-uri THIS_FOLDER --images-uri IMAGES --output-uri PREDICTIONS"
    if not description["is_stack"]:
        yield "ctc export --bundle-uri THIS_FOLDER --output-uri MODEL_FILE --format onnx"
    yield "```"
    yield from _class_lines(description["classes"], provenance["n_training_images"])
    yield from _metric_lines(provenance["metrics"], "validation")
    if provenance.get("test_metrics"):
        yield from _metric_lines(provenance["test_metrics"], "test")
    yield from _temperature_lines(description)
    yield from ("", "## Limits", "", _LIMITS)
    yield from ("", "## Training", "")
    yield f"Fingerprint of the dataset: `{provenance['data_fingerprint'] or 'not known'}`"
    yield from ("", "```json")
    yield json.dumps(provenance["config"], indent=2, ensure_ascii=False)
    yield "```"


def _what(*, is_stack: bool) -> str:
    if is_stack:
        return "up to three gray images of a capture event as the channels of one image"
    return "RGB images"


def _how(image_size: int, *, keep_aspect: bool) -> str:
    cut = "cut to the square in their centre and scaled" if keep_aspect else "squeezed"
    return f"{cut} to {image_size} x {image_size} pixels"


def _class_lines(
    classes: Mapping[str, list[str]], n_images: Mapping[str, Mapping[str, int]]
) -> Iterator[str]:
    yield from ("", "## Heads and classes")
    for head, names in classes.items():
        yield from ("", f"### {head}", "", "| class | training images |", "|---|---:|")
        counts = n_images.get(head, {})
        for name in names:
            yield f"| {_cell(name)} | {counts.get(name, 0) if counts else 'not counted'} |"


def _metric_lines(metrics: Mapping[str, float], split: str) -> Iterator[str]:
    yield from ("", f"## Metrics on the {split} split", "")
    if not metrics:
        yield "Not measured."
        return
    yield from ("| metric | value |", "|---|---:|")
    for name, value in metrics.items():
        yield f"| {_cell(name)} | {value:.4f} |"


def _temperature_lines(description: Mapping[str, Any]) -> Iterator[str]:
    yield from ("", "## Calibration", "")
    yield "`ctc predict` divides the logits of a head by its temperature before the softmax."
    yield from (
        "",
        "| head | temperature | calibration error without | with |",
        "|---|---:|---:|---:|",
    )
    metrics = description["provenance"]["metrics"]
    for head in description["classes"]:
        temperature = description["temperatures"].get(head, 1.0)
        errors = (metrics.get(f"{name}_{head}") for name in ("ece_uncalibrated", "ece"))
        cells = ("not measured" if error is None else f"{error:.4f}" for error in errors)
        yield f"| {_cell(head)} | {temperature:g} | {' | '.join(cells)} |"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
