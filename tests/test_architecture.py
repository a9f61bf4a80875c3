"""The house rules that a machine can check: who imports whom, and every module has its test."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "ctc_ray"
NOUNS = {
    "inventory", "selection", "splits", "images", "scenes", "models", "training", "predictions",
}  # fmt: skip
GROUND = {
    "schemas", "labels", "config", "manifest", "units", "storage", "errors", "logs", "summaries",
    "tables",
    "work",
    "retries",
    "columns",
    "files",
    "runs",
    "console",
    "observations",
}  # fmt: skip
FORBIDDEN = {
    "ground": {"torch", "torchvision", "PIL", "ray", "timm"},
    "inventory": {"torch", "torchvision", "ray", "timm", "PIL"},
    "predictions": {"torch", "torchvision", "ray", "timm", "PIL"},
    "images": {"ray", "timm"},
    "models": {"ray", "PIL"},
    "training": {"ray", "PIL"},
    "cli": {"ray", "torch", "pyarrow", "numpy", "pandas"},
}
STAGE_MAY_USE_STAGE = {
    "tune": {"runtime", "train"},
    "demo": {"runtime", "create_inventory", "create_dataset", "train", "predict", "export"},
}
HELPERS_OF_STAGES = {
    "runtime",
    "prediction_source",
    "training_job",
    "gallery",
    "inventory_files",
    "dataset_plan",
    "image_root",
    "inventory_rows",
    "dataset_check",
    "dataset_append",
    "dataset_report",
}
TOP_LEVEL = {
    "ctc_ray", "jobs", "cluster", "tests", "Dockerfile.gpu", "pyproject.toml", "README.md",
    "LICENSE", "Makefile",
}  # fmt: skip


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def room(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    return "ground" if first in GROUND else first


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def our_imports(path: Path) -> set[tuple[str, ...]]:
    return {tuple(name.split(".")[1:]) for name in imports(path) if name.startswith("ctc_ray.")}


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_room_imports_only_what_the_house_allows(path: Path) -> None:
    here = room(path)
    foreign = {name.split(".")[0] for name in imports(path)}
    assert not foreign & FORBIDDEN.get(here, set())
    rooms = {target[0] for target in our_imports(path) if target}
    if here == "ground":
        assert not rooms & (NOUNS | {"stages", "cli"})
    if here in NOUNS:
        assert not rooms & ((NOUNS - {here}) | {"stages", "cli"})


@pytest.mark.parametrize("path", sorted((PACKAGE / "stages").glob("*.py")), ids=lambda p: p.stem)
def test_stage_imports_no_other_stage(path: Path) -> None:
    others = {target[1] for target in our_imports(path) if target[0] == "stages" and target[1:]}
    allowed = HELPERS_OF_STAGES | STAGE_MAY_USE_STAGE.get(path.stem, set())
    assert others <= allowed


def test_ray_is_imported_in_stages_only() -> None:
    users = {room(path) for path in modules() if {n.split(".")[0] for n in imports(path)} & {"ray"}}
    assert users == {"stages"}


def test_no_module_is_longer_than_400_lines() -> None:
    long = {
        str(path.relative_to(PACKAGE)): n
        for path in modules()
        if (n := len(path.read_text().splitlines())) > 400
    }
    assert not long


def test_top_level_holds_only_what_was_agreed() -> None:
    here = {path.name for path in ROOT.iterdir() if not path.name.startswith(".")}
    assert here - {"ctc_ray.egg-info", "ctc-demo", "build"} <= TOP_LEVEL
