"""README.md and docs/: every code block runs or parses, every link leads somewhere, every column of
every table is described.

The blocks of a document are run in their order, in one folder with drawn photographs, a csv and a
model. Commands that train, reach a store or read a file that is not drawn here are only parsed.
"""

import csv
import importlib
import inspect
import re
import shlex
import shutil
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml
from builders import photograph, untrained_bundle, write_events

import ctc_ray
from ctc_ray import cli, schemas
from ctc_ray.config.base import Config, read_yaml
from ctc_ray.config.search import parse_space
from ctc_ray.config.tuning import TuneConfig
from ctc_ray.runs import records
from ctc_ray.runs.manifest import Manifest
from ctc_ray.schemas import Failure

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
IDS = [page.name for page in PAGES]

PARSED_ONLY = {"train", "tune", "demo"}
NOT_DRAWN = {"coco.json", "package.zip", "detections.json"}
OTHER_LANGUAGES = {"text", "csv"}


@dataclass(frozen=True)
class Block:
    """A block of code in a page."""

    language: str
    code: str


def blocks(page: Path) -> list[Block]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    return [Block(language, code) for language, code in found]


# -- code ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the reader of a page has: photographs, events.csv, class folders, models, settings."""
    folder = tmp_path_factory.mktemp("drawn")

    def write_csv(name: str, rows: Sequence[Sequence[str]]) -> None:
        with (folder / name).open("w", newline="") as file:
            csv.writer(file).writerows(rows)

    with write_events(folder / "photos", n_events=24, broken=[3]).open() as file:
        _, *rows = list(csv.reader(file))
    images, labels = ["image1", "image2", "image3"], ["species", "count"]
    write_csv(
        "events.csv", [["id", *images, *labels, "site", "season"], *[[*r, "S1"] for r in rows]]
    )
    unlabelled = [[f"S2_{r[0]}", *r[1:4], r[6], "S2"] for r in rows]
    write_csv("season2.csv", [["id", *images, "site", "season"], *unlabelled])
    write_csv("corrected.csv", [["capture_event_id", *labels], ["S2_event020", "red", "1"]])
    (folder / "a.jpg").write_bytes(photograph("red", seed=1))
    for species in ("red", "green"):
        for seed in range(10):
            path = folder / "class-folders" / species / f"{seed}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(photograph(species, seed=seed))
    for name in ("model", "model-2"):
        untrained_bundle(folder / name)
    (folder / "tuned").mkdir()
    (folder / "tuned" / "best.yaml").write_text(
        "{dataset_uri: dataset, output_uri: best, heads: [a]}"
    )
    return folder


@pytest.fixture(scope="module")
def read(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with what the pipeline of the README makes of it."""
    folder = tmp_path_factory.mktemp("read") / "here"
    shutil.copytree(drawn, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for block in blocks(ROOT / "README.md"):
            if "ctc create-inventory" in block.code:
                run_shell(block.code, patch)
    return folder


@pytest.fixture
def here(
    request: pytest.FixtureRequest, page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A folder for the blocks of a page: all is there already where the page only reads."""
    makes = any("ctc create-dataset" in block.code for block in blocks(page))
    folder = tmp_path / "here"
    shutil.copytree(request.getfixturevalue("drawn" if makes else "read"), folder)
    monkeypatch.chdir(folder)
    return folder


def parsed(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> tuple[str, Config]:
    """The stage and the configuration that the command line makes of these arguments."""
    calls: list[tuple[str, Config]] = []
    with monkeypatch.context() as patch:
        patch.setattr(cli, "_run", lambda stage, config, as_json: calls.append((stage, config)))
        with pytest.raises(SystemExit) as stop:
            cli.main(arguments)
    assert stop.value.code == 0, shlex.join(arguments)
    ((stage, config),) = calls
    return stage, config


def run_ctc(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    stage, config = parsed(arguments, monkeypatch)
    if isinstance(config, TuneConfig):
        assert parse_space(config)
    words = [word for item in arguments for word in item.split("=")]
    is_elsewhere = any("://" in word or word in NOT_DRAWN for word in words)
    if stage not in PARSED_ONLY and not is_elsewhere:
        getattr(ctc_ray, stage)(config)


def check_make(arguments: list[str]) -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    assert set(arguments) <= set(targets)


def check_ray(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    match arguments:
        case ["up" | "down", cluster]:
            assert (ROOT / cluster).is_file()
        case ["job", "submit", "--working-dir", ".", "--", "python", script, *options]:
            assert (ROOT / script).is_file()
            command = Path(script).stem.replace("_", "-")
            kind = ["csv"] if command == "create-inventory" else []
            with monkeypatch.context() as patch:
                patch.chdir(ROOT)
                parsed([command, *kind, *options], patch)
        case _:
            pytest.fail(f"ray {shlex.join(arguments)}: how is this to be checked?")


def run_shell(code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for line in code.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        match words:
            case []:
                pass
            case ["ctc", *arguments]:
                run_ctc(arguments, monkeypatch)
            case ["make", *arguments]:
                check_make(arguments)
            case ["ray", *arguments]:
                check_ray(arguments, monkeypatch)
            case ["export", setting]:
                assert re.fullmatch(r"AWS_[A-Z_]+=.+", setting)
            case [".venv/bin/pytest", *arguments]:
                assert all((ROOT / word).exists() for word in arguments if "/" in word)
            case _:
                pytest.fail(f"{line}: how is this to be checked?")


def write_yaml(code: str) -> None:
    """A settings file, whose first line is its name, for the commands below it."""
    name = re.match(r"# (\S+\.yaml)\n", code)
    assert name, "a block of YAML begins with the name of its file"
    Path(name[1]).write_text(code)
    assert read_yaml(name[1])


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_every_code_block_runs(
    page: Path, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for block in blocks(page):
        match block.language:
            case "sh":
                run_shell(block.code, monkeypatch)
            case "yaml":
                write_yaml(block.code)
            case "python" if "from datasets import" in block.code:
                pass  # tests/stages/test_readers.py runs it where it may not ask the network
            case "python":
                exec(compile(block.code, page.name, "exec"), {"__name__": "__main__"})
            case language:
                assert language in OTHER_LANGUAGES, language
    if page.name == "README.md":
        assert "[None, 'missing']" in capsys.readouterr().out


def test_every_example_of_the_help_pages_parses(monkeypatch: pytest.MonkeyPatch) -> None:
    models = [model for *_, model in (*cli._STAGES, *cli._SOURCES)]
    for example in (model.example for model in models):
        if "--config" not in example:
            parsed(shlex.split(example.replace("\\\n", " "))[1:], monkeypatch)


# -- links -----------------------------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub makes of the headings."""
    outside_code = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    titles = re.findall(r"^#+ (.+)$", outside_code, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", [*PAGES, ROOT / "cluster" / "README.md"], ids=[*IDS, "cluster"])
def test_every_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if not target.startswith("https://"):
            name, _, anchor = target.partition("#")
            file = (page.parent / name).resolve() if name else page
            assert file.exists(), target
            assert file.is_relative_to(ROOT), target
            assert not anchor or anchor in anchors(file), target


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120


# -- formats ---------------------------------------------------------------------------------------

FORMATS = (ROOT / "docs" / "formats.md").read_text()
HEADS, META = ["<head>"], ["<field>"]

# section of formats.md -> the schema that it describes
TABLES: dict[str, pa.Schema] = {
    "Inventory": schemas.inventory_schema(HEADS, META),
    "Boxes": pa.schema(list(schemas.BOX)),
    "Findings": schemas.finding_schema(),
    "Dataset": schemas.shard_schema(HEADS, META),
    "Failures": schemas.failure_schema(),
    "Images": schemas.prediction_schema(HEADS, META, HEADS),
    "Events": schemas.event_prediction_schema(HEADS, META, HEADS),
    "Best classes": pa.schema(list(schemas.TOP_CLASS)),
}


def section(title: str) -> str:
    parts = re.split(r"^#+ (.+)$", FORMATS, flags=re.MULTILINE)
    ((text,),) = [[parts[i + 1]] for i in range(1, len(parts), 2) if parts[i] == title]
    return text


def table_rows(text: str, first_column: str) -> list[list[str]]:
    """The cells of the table whose head begins so."""
    lines = text.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(f"| {first_column} |"))
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


def in_words(type_: pa.DataType) -> str:
    if pa.types.is_list(type_):
        return f"list of {in_words(type_.value_type)}"
    return (
        "struct" if pa.types.is_struct(type_) else {"float": "float32"}.get(str(type_), str(type_))
    )


@pytest.mark.parametrize("title", TABLES)
def test_formats_describes_every_column_with_its_type(title: str) -> None:
    described = [
        (name.strip("`"), type_, null)
        for name, type_, null, _ in table_rows(section(title), "column")
    ]
    assert described == [
        (field.name, in_words(field.type), "" if field.nullable else "no")
        for field in TABLES[title]
    ]


def test_formats_describes_every_schema_there_is() -> None:
    made = {
        name
        for name, function in inspect.getmembers(schemas, inspect.isfunction)
        if name.endswith("_schema") and function.__module__ == schemas.__name__
    }
    within_others = {"planned_schema", "scored_schema"}
    assert len(made - within_others) == len(TABLES) - 2  # boxes and best classes are part of others


def test_formats_names_every_failure_and_every_field_of_the_manifest() -> None:
    assert [row[0].strip("`") for row in table_rows(section("Failures"), "failure")] == list(
        Failure
    )
    named = " ".join(row[0] for row in table_rows(section("Manifest"), "field"))
    assert re.findall(r"`(\w+)`", named) == list(Manifest.model_fields)
    manifest = section("Manifest")
    for record in (records.SplitRecord, records.ShardRecord, records.BundleRecord):
        assert all(f"`{name}`" in manifest for name in record.model_fields), record


def test_formats_names_every_field_of_a_bundle() -> None:
    bundle = importlib.import_module("ctc_ray.models.bundle")
    assert all(f"`{name}`" in section("Model") for name in bundle._BundleFile.model_fields)


# -- continuous integration ------------------------------------------------------------------------


def test_ci_runs_make_test_on_every_python_that_is_supported() -> None:
    workflow: Any = yaml.safe_load((ROOT / ".github" / "workflows" / "test.yml").read_text())
    (job,) = workflow["jobs"].values()
    assert job["steps"][-1]["run"].endswith(" test")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    low, high = re.findall(r"3\.(\d+)", project["requires-python"])
    supported = [f"3.{minor}" for minor in range(int(low), int(high))]
    assert job["strategy"]["matrix"]["python"] == supported
