"""The walls of the house, from docs/architecture.md: who may import whom, and what lies at the top.

Rooms are the folders of the package. What is not allowed below is denied, so a new folder, or a new
library in a room, needs a line here.
"""

import ast
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "ctc_ray"
MAX_LINES = 400

WORDS = {"__init__", "errors", "schemas", "labels", "observations"}
FRONT = {"cli", "__main__", "api"}

TOOLS = {"words", "columns", "files", "runs", "config", "console"}
NOUNS = {
    "inventory",
    "selection",
    "splits",
    "images",
    "scenes",
    "models",
    "training",
    "predictions",
}
ARROW = {"numpy", "pyarrow"}

# room -> the rooms that it may import besides itself
ROOMS: dict[str, set[str]] = {
    "words": set(),
    "columns": {"words"},
    "files": {"words", "columns"},
    "runs": {"words", "columns", "files"},
    "config": {"words", "columns", "files"},
    "console": {"words", "columns", "files", "runs", "config"},
    **dict.fromkeys(NOUNS, TOOLS),
    "reports": TOOLS | NOUNS,
    "stages": TOOLS | NOUNS | {"reports"},
    "front": TOOLS | NOUNS | {"stages"},
}

# room -> the libraries that it may import besides Python's own
LIBRARIES: dict[str, set[str]] = {
    "words": {*ARROW, "pydantic"},
    "columns": ARROW,
    "files": {*ARROW, "obstore"},
    "runs": {*ARROW, "pydantic"},
    "config": {"pydantic", "pydantic_core", "yaml"},
    "console": {"cyclopts", "rich"},
    "inventory": ARROW,
    "selection": {*ARROW, "yaml"},
    "splits": ARROW,
    "predictions": ARROW,
    "images": {*ARROW, "PIL", "cv2", "simplejpeg"},
    "scenes": {*ARROW, "PIL", "simplejpeg"},
    "models": {"numpy", "onnx", "onnxruntime", "safetensors", "timm", "torch"},
    "training": {*ARROW, "torch"},
    "reports": {*ARROW, "PIL", "jinja2", "altair", "vl_convert"},
    "stages": ARROW,
    "front": {"cyclopts", "pydantic", "pydantic_core"},
}

# folder or module -> further libraries that its room may not import elsewhere
EXCEPTIONS: dict[str, set[str]] = {
    "images/augment.py": {"torch"},
    "images/device_copies.py": {"torch"},  # of the three modules that change images on a GPU
    "images/device_pixels.py": {"torch", "torchvision"},
    "images/device_sampling.py": {"torch"},
    "models/downloads.py": {"huggingface_hub"},
    "stages/cluster": {"ray"},
    "stages/train": {"PIL", "ray", "tensorboardX", "torch"},
    "stages/tune": {"optuna", "ray"},
    "stages/aggregate/ray_shuffle.py": {"ray"},
    "stages/predict": {"torch"},
    "stages/show": {"PIL"},
    "predictions/by_head.py": {"pandas"},  # for type checkers only
    "api.py": {*ARROW, "PIL"},
}

# stage -> modules of other stages that it may import; all others are closed, but for `cluster`
OTHER_STAGES: dict[str, set[str]] = {
    "tune": {  # a trial is a training, and is shown as one
        *("train.stage", "train.tensorboard", "train.telling", "train.tracking", "train.mlflow_run")
    },
    "predict": {"create_inventory.image_folder"},  # one folder, one rule
    "aggregate": {"predict.answer_files", "predict.counts"},  # where predictions lie, and metrics
    "show": {"train.pixels"},  # what training sees
    "demo": {
        "create_inventory.stage",
        "create_dataset.stage",
        "train.stage",
        "predict.stage",
        "export",
    },
}

TOP_LEVEL = {
    "ctc_ray", "jobs", "cluster", "tests", "docs", "Dockerfile.gpu", "pyproject.toml", "README.md",
    "LICENSE", "CHANGELOG.md", "CONTRIBUTING.md", "Makefile",
}  # fmt: skip


@cache
def modules() -> dict[str, Path]:
    """Dotted name below ctc_ray -> file."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts)] = path
    return found


def room(name: str) -> str:
    first, _, rest = name.partition(".")
    if rest:
        return first
    return "words" if first in WORDS else "front" if first in FRONT else first


def is_for_type_checkers(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def imported(path: Path) -> Iterator[str]:
    """Every module that is imported anywhere in a file, and every name of a module.

    What the package's own `__init__` imports for type checkers alone is left out: it names the
    public types of all rooms, and imports none when it runs (test_api.py).
    """
    tree = ast.parse(path.read_text())
    if path == PACKAGE / "__init__.py":
        tree.body = [node for node in tree.body if not is_for_type_checkers(node)]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@cache
def own_imports(name: str) -> frozenset[str]:
    """The modules of this package that a module imports."""
    found = set()
    for target in imported(modules()[name]):
        if target == "ctc_ray" or target.startswith("ctc_ray."):
            inside = target.removeprefix("ctc_ray").removeprefix(".")
            for candidate in (inside, f"{inside}.__init__" if inside else "__init__"):
                if candidate in modules() and candidate != name:
                    found.add(candidate)
    return frozenset(found)


def libraries(name: str) -> set[str]:
    first = {target.partition(".")[0] for target in imported(modules()[name])}
    return first - {"ctc_ray"} - set(sys.stdlib_module_names)


def allowed_libraries(name: str) -> set[str]:
    path = modules()[name].relative_to(PACKAGE).as_posix()
    more = (some for place, some in EXCEPTIONS.items() if f"{path}/".startswith(f"{place}/"))
    return LIBRARIES[room(name)].union(*more)


@pytest.mark.parametrize("name", modules())
def test_a_module_imports_only_rooms_below_its_own(name: str) -> None:
    here = room(name)
    assert here in ROOMS, f"ctc_ray/{here} is a room without a rule: add it to ROOMS"
    assert {room(target) for target in own_imports(name)} - {here} <= ROOMS[here]


@pytest.mark.parametrize("name", modules())
def test_a_module_imports_only_libraries_that_its_room_may(name: str) -> None:
    assert libraries(name) <= allowed_libraries(name)


@pytest.mark.parametrize("name", [name for name in modules() if name.startswith("stages.")])
def test_a_stage_imports_no_helper_of_another_stage(name: str) -> None:
    here = name.split(".")[1]
    others = {
        target.removeprefix("stages.")
        for target in own_imports(name)
        if target.startswith("stages.")
        and target.split(".")[1] not in (here, "cluster")
        and not target.endswith(".__init__")
    }
    assert others - {"__init__"} <= OTHER_STAGES.get(here, set())


def test_no_modules_import_one_another_in_a_circle() -> None:
    try:
        TopologicalSorter({name: own_imports(name) for name in modules()}).prepare()
    except CycleError as error:
        pytest.fail(f"a circle of imports: {' -> '.join(error.args[1])}")


def test_no_rule_is_left_behind() -> None:
    rooms = {room(name) for name in modules()}
    assert set(ROOMS) == set(LIBRARIES)
    assert set(ROOMS) <= rooms
    assert all((PACKAGE / place).exists() for place in EXCEPTIONS)
    for place, some in EXCEPTIONS.items():
        files = [
            n
            for n, p in modules().items()
            if f"{p.relative_to(PACKAGE).as_posix()}/".startswith(f"{place}/")
        ]
        assert some <= set().union(*(libraries(name) for name in files)), place


def test_only_files_touches_a_store_or_a_disk() -> None:
    """Whatever bypasses `files/storage.operation` is missed by the test of failing operations."""
    users = {
        name for name, path in modules().items() if {"obstore", "pyarrow.fs"} & set(imported(path))
    }
    assert users <= {name for name in modules() if name.startswith("files.")}


def test_no_module_is_longer_than_400_lines() -> None:
    long = {
        name: n
        for name, path in modules().items()
        if (n := len(path.read_text().splitlines())) > MAX_LINES
    }
    assert not long


def test_top_level_holds_only_what_was_agreed() -> None:
    here = {path.name for path in ROOT.iterdir() if not path.name.startswith(".")}
    assert here - {"ctc_ray.egg-info", "ctc-demo", "build"} <= TOP_LEVEL
