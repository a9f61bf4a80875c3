"""Every choice is declared once and taken apart completely: a new value must not type-check."""

import ast
import re
import subprocess
import sys
from pathlib import Path
from typing import Literal, get_args, get_origin

import pytest

from ctc_ray.config import choices

ROOT = Path(__file__).resolve().parents[2]
DECLARED = ROOT / "ctc_ray/config/choices.py"
NAMES = {name for name, value in vars(choices).items() if get_origin(value) is Literal}

# choice -> the functions that take it apart
TAKEN_APART = {
    "TruncatedPolicy": ["images/decode.py"],
    "ObservationRule": ["selection/labelling.py"],
    "UndatedRule": ["splits/by_time.py"],
    "MachineLabels": ["inventory/sources/camtrap_labels.py"],
    "RarestClass": ["selection/balance.py"],
    "UnmappedRule": ["stages/train/mapped_classes.py"],
    "Preset": [],  # a table: config/presets.py
    "OptimizerName": ["training/optimizer.py"],
    "ScheduleName": ["training/optimizer.py"],
    "ClassWeights": ["training/losses.py"],
    "Sampling": ["training/sampling.py"],
    "ImageChoice": ["training/plans.py", "training/batches.py"],
    "Decoding": ["stages/train/pixels.py"],
    "Colour": ["images/augment.py"],
    "Mixing": ["training/mixing.py"],
    "PixelNormalisation": ["stages/train/first_model.py"],
    "Precision": [],  # names of torch: training/loop.py
    "Aggregation": ["predictions/combine.py"],
    "ExportFormat": ["predictions/writers/exports.py"],
    "Engine": ["stages/predict/engine.py"],
    "ModelFormat": ["stages/export.py"],
    "DimensionKind": ["config/search.py", "stages/tune/searching.py"],
    "TimeSource": ["stages/create_inventory/files.py"],
    "Direction": ["stages/tune/objective.py"],
    "SearchPreset": ["config/search_presets.py"],
    "SearchMethod": ["stages/tune/searching.py"],
    "StoppingRule": ["stages/tune/searching.py"],
    "TrialState": ["stages/tune/records.py"],
    "Tracking": ["stages/train/tracking.py"],
}


def test_every_choice_has_a_place_where_it_is_taken_apart() -> None:
    assert set(TAKEN_APART) == NAMES
    for files in TAKEN_APART.values():  # none: the values are looked up
        for file in files:
            assert "assert_never(" in (ROOT / "ctc_ray" / file).read_text(), file


def test_values_of_a_choice_are_declared_nowhere_else() -> None:
    declared = {get_args(getattr(choices, name)) for name in NAMES}
    for path in (ROOT / "ctc_ray").rglob("*.py"):
        if path == DECLARED:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Subscript) and ast.unparse(node.value) == "Literal":
                assert ast.literal_eval(ast.unparse(node.slice)) not in declared, path


@pytest.mark.slow
def test_a_value_without_a_branch_does_not_type_check(tmp_path: Path) -> None:
    """One run of mypy in which every choice has a value that no code knows."""
    text = DECLARED.read_text()
    for name in NAMES:
        text, n_changed = re.subn(rf"^{name} = Literal\[", f'{name} = Literal["new {name}", ', text,
                                  flags=re.MULTILINE)  # fmt: skip
        assert n_changed == 1
    changed = tmp_path / "choices.py"
    changed.write_text(text)
    command = [sys.executable, "-m", "mypy", "--cache-dir", tmp_path / "cache"]
    found = subprocess.run(
        [*command, "--shadow-file", DECLARED, changed],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    for name, files in TAKEN_APART.items():
        for file in files:
            assert re.search(rf'ctc_ray/{file}:.*"assert_never".*new {name}', found), (name, found)
