import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from ctc_ray import cli
from ctc_ray.config.base import StageConfig
from ctc_ray.runs.manifest import Manifest


def run(argv: list[str]) -> int:
    with pytest.raises(SystemExit) as stop:
        cli.main(argv)
    return int(stop.value.code or 0)


def test_help_lists_commands_in_the_order_of_the_data(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    out = capsys.readouterr().out
    names = [
        "create-inventory",
        "create-dataset",
        "train",
        "tune",
        "predict",
        "export",
        "demo",
        "show",
    ]
    places = [out.index(f" {name} ") for name in names]
    assert places == sorted(places)


def test_help_imports_neither_ray_nor_torch_nor_arrow() -> None:
    code = (
        "import sys\nfrom ctc_ray import cli\n"
        "try: cli.main(['--help'])\nexcept SystemExit: pass\n"
        "print(sorted({'ray', 'torch', 'pyarrow', 'numpy', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_help_waits_for_no_large_library() -> None:
    """It takes a third of a second; Ray, torch or pandas alone would take longer."""
    code = """
import sys
from ctc_ray import cli
try:
    cli.main(["--help"])
except SystemExit:
    print(*sorted({name.partition(".")[0] for name in sys.modules}), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stderr.split())
    assert {"ctc_ray", "pydantic", "cyclopts"} <= loaded
    large = {"ray", "torch", "torchvision", "timm", "pandas", "pyarrow", "numpy", "PIL", "onnx"}
    assert loaded & large == set()


def test_show_takes_its_folder_without_an_option_name(seen: list[tuple[str, StageConfig]]) -> None:
    assert run(["show", "s3://bucket/out", "--contact-sheet", "a.png", "--images", "12"]) == 0
    ((stage, config),) = seen
    values = config.model_dump()
    assert (stage, values["uri"]) == ("show", "s3://bucket/out")
    assert (values["contact_sheet"], values["images"], values["tile"]) == ("a.png", 12, 160)


def test_show_needs_no_ray(tmp_path: Path) -> None:
    manifest = Manifest(kind="inventory", config={"source_uri": "rows.csv"}, rows_in=7, rows_out=7)
    manifest.write(str(tmp_path))
    code = (
        "import sys\nfrom ctc_ray import cli\n"
        f"try: cli.main(['show', {str(tmp_path)!r}, '--json'])\nexcept SystemExit as stop:\n"
        "  print(stop.code, sorted({'ray', 'torch'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    values = json.loads(done.stdout)
    assert (values["kind"], values["rows_out"], values["complete"]) == ("inventory", 7, True)
    assert done.stderr.splitlines()[-1] == "0 []"


def test_a_command_keeps_arrow_within_the_quota_of_its_container(tmp_path: Path) -> None:
    """Arrow knows what a process is bound to, but not a quota of CPU time."""
    Manifest(kind="inventory", config={"source_uri": "a.csv"}).write(str(tmp_path / "inventory"))
    code = (
        "import sys\nfrom ctc_ray import cli\nfrom ctc_ray.runs import machine\n"
        "machine._quotas = lambda root: iter([1.5])\n"
        f"try: cli.main(['show', {str(tmp_path / 'inventory')!r}, '--json'])\n"
        "except SystemExit as stop:\n"
        "  import pyarrow; print(stop.code, pyarrow.cpu_count(), file=sys.stderr)"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "6"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert done.stderr.splitlines()[-1] == "0 1"


def test_show_says_in_one_line_what_is_no_folder_of_ours(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for uri in (tmp_path, tmp_path / "nowhere"):
        command = [sys.executable, "-m", "ctc_ray", "show", str(uri)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith(f"ctc: {uri}: no ")
        assert len(done.stderr.splitlines()) == 1


def test_unknown_option_is_a_usage_error_with_the_nearest_name(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["create-dataset", "--hedas", "species"]) == 2
    err = capsys.readouterr().err
    assert "--heads" in err
    assert len(err.splitlines()) == 1


def test_all_missing_options_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["create-dataset", "--heads", "species"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "ctc: create-dataset: 2 mistakes (see `ctc create-dataset --help`)",
        "  --output-uri is required",
        "  --inventory-uri is required",
    ]


def test_wrong_value_names_the_option_and_what_is_allowed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    argv = ["create-dataset", "--inventory-uri", "i", "--output-uri", "o", "--heads", "species"]
    assert run([*argv, "--resize.quality", "300"]) == 2
    err = capsys.readouterr().err
    assert "--resize.quality is 300; expected 100 or less" in err
    assert len(err.splitlines()) == 1


def test_all_mistakes_of_a_yaml_file_are_told_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "train.yaml"
    file.write_text("learning_rate: 1\noptimizer: {nam: sgd}\ncolur: none\nbatch_size: 0\n")
    assert run(["train", "--config", str(file), "--max-epochs", "0"]) == 2
    first, *others = capsys.readouterr().err.splitlines()
    assert first == f"ctc: {file}: 8 mistakes (see `ctc train --help`)"
    assert sorted(others) == [
        "  --max-epochs is 0; expected more than 0",
        "  batch_size is 0; expected more than 0",
        "  colur is not a setting; did you mean augment.colour?",
        "  dataset_uri is required (option --dataset-uri)",
        "  heads is required (option --heads)",
        "  learning_rate is not a setting; did you mean optimizer.learning_rate?",
        "  optimizer.nam is not a setting; did you mean optimizer.name?",
        "  output_uri is required (option --output-uri)",
    ]


def test_the_name_of_a_file_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["train", "--config", "no\x1b[2J\nwhere.yaml"]) == 2
    assert capsys.readouterr().err.startswith(r"ctc: no\x1b[2J\nwhere.yaml: no such")


def test_missing_yaml_file_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["train", "--config", "nowhere.yaml"]) == 2
    assert "nowhere.yaml: no such configuration file" in capsys.readouterr().err


PREDICT = "predict --bundle-uri b --output-uri o"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("nonsense", 'Unknown command "nonsense". Available commands: create-inventory, create-d'),
        ("create-inventory cvs", 'Unknown command "cvs". Did you mean "csv"?'),
        ("show", "URI needs a value"),
        ("export --bundle-uri", "--bundle-uri needs a value"),
        ("show d --imagse 3", "Unknown option: --imagse. Did you mean --images?"),
        (f"{PREDICT} --images-uri i --csv-uri c", "give exactly one of --images-uri, --csv-uri"),
        (
            f"{PREDICT} --csv-uri c",
            "--csv-uri needs --event-column and either --image-columns or --path-columns",
        ),
        (
            f"{PREDICT} --images-uri i --export xml",
            "--export is 'xml'; expected 'table', 'csv' or 'json'",
        ),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(
    line: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(line.split()) == 2
    err = capsys.readouterr().err
    assert message in err
    assert "--help`)" in err
    assert len(err.splitlines()) == 1


def test_wrong_data_is_exit_code_1(tmp_path: Path) -> None:
    argv = ["create-dataset", "--inventory-uri", str(tmp_path), "--output-uri", "o", "--heads", "a"]
    command = [sys.executable, "-m", "ctc_ray", *argv]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "no _manifest.json" in done.stderr


PAGES = [
    [],
    ["create-inventory"],
    *(["create-inventory", source] for source, _ in cli._SOURCES),
    *([name] for name, _, _ in cli._STAGES),
    ["show"],
]


@pytest.mark.parametrize("width", [80, 200])
@pytest.mark.parametrize("words", PAGES, ids=" ".join)
def test_no_line_of_help_is_wider_than_the_terminal(
    words: list[str], width: int, capsys: pytest.CaptureFixture[str], monkeypatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    assert run([*words, "--help"]) == 0
    out = capsys.readouterr().out
    assert all(len(line) <= width for line in out.splitlines())
    assert "…" not in out.replace("s3://…", "").replace("gs://…", "").replace("[…]", "")
    assert "\nExample:\n  ctc " in out


@pytest.mark.parametrize("words", PAGES[2:], ids=" ".join)
def test_the_example_of_each_command_parses(
    words: list[str], capsys: pytest.CaptureFixture[str], seen: list[tuple[str, StageConfig]]
) -> None:
    run([*words, "--help"])
    example = capsys.readouterr().out.rpartition("Example:\n")[2].replace("\\\n", " ")
    if "--config" in example:
        pytest.skip("the file is not there")
    ctc, *argv = shlex.split(example)
    assert (ctc, argv[: len(words)]) == ("ctc", words)
    assert run(argv) == 0
    assert len(seen) == 1


def test_completion_is_installed_for_the_shell(tmp_path: Path) -> None:
    environment = {**os.environ, "HOME": str(tmp_path), "SHELL": "/bin/bash", "BASH_VERSION": "5"}
    command = [sys.executable, "-m", "ctc_ray", "--install-completion"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    (script,) = (path for path in tmp_path.rglob("ctc*") if path.is_file())
    assert str(script) in done.stdout
    assert "--inventory-uri" in script.read_text()
    assert str(script) in (tmp_path / ".bashrc").read_text()


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, StageConfig]]:
    """The stage and configuration that the command line would run."""
    calls: list[tuple[str, StageConfig]] = []
    monkeypatch.setattr(cli, "_run", lambda stage, config, as_json: calls.append((stage, config)))
    return calls


def test_options_win_over_the_file(tmp_path: Path, seen: list[tuple[str, StageConfig]]) -> None:
    file = tmp_path / "train.yaml"
    file.write_text(
        "dataset_uri: d\noutput_uri: m\nheads: [a, b]\nloss_weights: {a: 1, b: 0.5}\n"
        "model: {backbone: resnet18, pretrained: true}\nbatch_size: 8\n"
    )
    options = ["--batch-size", "16", "--model.image-size", "96", "--loss-weights.b", ".2"]
    assert run(["train", "--config", str(file), *options]) == 0
    ((stage, config),) = seen
    values = config.model_dump()
    assert stage == "train"
    assert values["batch_size"] == 16
    assert values["loss_weights"] == {"a": 1, "b": 0.2}
    assert values["model"]["backbone"] == "resnet18"
    assert values["model"]["pretrained"] is True
    assert values["model"]["image_size"] == 96


def test_every_command_parses(seen: list[tuple[str, StageConfig]]) -> None:
    lines = [
        "create-inventory csv --source-uri F --output-uri I --event-column id"
        " --image-columns image1 image2 --head-columns species count --meta-columns site",
        "create-inventory dir --source-uri ROOT --output-uri I",
        "create-inventory json --source-uri F --output-uri I",
        "create-inventory coco --source-uri F --output-uri I --event-gap-s 30",
        "create-inventory camtrap-dp --source-uri F --output-uri I",
        "create-inventory megadetector --source-uri F --output-uri I --inventory-uri J",
        "create-dataset --inventory-uri I --output-uri D --heads species count"
        " --image-root-uri R --resize.smallest-side 400 --resize.quality 75 --split.by meta:site"
        " --split.fractions.train .9 --split.fractions.val .05 --split.fractions.test .05"
        " --images-per-unit 1000 --truncated keep --max-pixels 1000",
        "train --dataset-uri D --output-uri M --heads species count --loss-weights.species 1"
        " --loss-weights.count .5 --model.backbone resnet18 --model.pretrained false"
        " --model.freeze-backbone --batch-size 128 --max-epochs 70 --workers 1"
        " --gpu-per-worker 0",
        "predict --bundle-uri M --output-uri P --csv-uri F --event-column id"
        " --image-columns image1 image2 --aggregation mean-logit --export csv json",
        "predict --bundle-uri M --output-uri P --dataset-uri D --split test",
        "export --bundle-uri M --output-uri E --format torch-export",
        "demo --images DIR",
        "show D --failures --contact-sheet sheet.png",
    ]
    for line in lines:
        assert run(line.split()) == 0
    assert len(seen) == len(lines)
    assert seen[7][1].model_dump()["model"]["freeze_backbone"] is True


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (
            ["--optimizer.name", "foo"],
            "--optimizer.name is 'foo'; expected 'sgd', 'rmsprop' or 'adamw'",
        ),
        (["--batch-size", "many"], "--batch-size is 'many'; expected a whole number"),
        (["--loss-weights.a", "x"], "--loss-weights.a is 'x'; expected a number"),
        (["--loss-weights", "a=1"], "its values are given one by one, as --loss-weights.NAME"),
        (["--optimizer", "sgd"], "Unknown option: --optimizer. Did you mean --optimizer.name?"),
    ],
)
def test_a_value_of_the_wrong_kind_is_told_in_the_words_of_the_user(
    option: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["train", "--dataset-uri", "d", "--output-uri", "o", "--heads", "a"]
    assert run([*argv, *option]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert "pydantic" not in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("heads", "code", "message"),
    [
        (["a.b", "c"], 1, "no _manifest.json"),  # so the configuration is right
        (["a", "c"], 2, "loss_weights names a.b; heads are a, c"),
    ],
)
def test_a_head_may_have_a_dot_in_its_name(
    tmp_path: Path, heads: list[str], code: int, message: str
) -> None:
    argv = ["train", "--dataset-uri", str(tmp_path / "no"), "--output-uri", "o", "--heads", *heads]
    weights = ["--loss-weights.a.b", "0.5", "--loss-weights.c", "2"]
    command = [sys.executable, "-m", "ctc_ray", *argv, *weights]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (code, "")
    assert message in done.stderr


@pytest.mark.parametrize(
    "argv",
    [
        "show s3://AKIAKEY:S3CR3T@bucket/out",
        "predict --bundle-uri s3://AKIAKEY:S3CR3T@b/m --images-uri i --output-uri o",
        "create-dataset --inventory-uri i --output-uri s3://AKIAKEY:S3CR3T@b/o --heads h",
    ],
)
def test_credentials_in_a_uri_are_refused_and_never_shown(argv: str, capsys) -> None:
    assert run(argv.split()) == 2
    told = "".join(capsys.readouterr())
    assert "S3CR3T" not in told
    assert "AKIAKEY" not in told
    assert "AWS_ACCESS_KEY_ID" in told
