"""SHA-256 of every data file of a fixed set of jobs: shows that a change alters no result.

For changes that move or rewrite code and must not change what `ctc` writes. Run the script before
the change and after it, on the same machine:

    python tests/benchmarks/hash_outputs.py --out before.txt
    python tests/benchmarks/hash_outputs.py --compare before.txt --out after.txt

The jobs run one after the other through `python -m ctc_ray`, so the script knows no module of the
package; they run the code of the checkout that the script lies in. The output is one line
`<sha256>  <case>/<path>` per data file, sorted by path. With --compare, the script prints the lines
that differ (`-` before, `+` now) and ends with exit code 1 if there are any. --only runs some of
the cases, and --keep leaves the files there to be looked at.

Hashed are the Parquet files, weights, exported models, csv, JSON and images, and the inputs that
the script draws. Not hashed are manifests, YAML files and everything below `_work/`. The functions
`of_…` leave out what may change although the data are the same, each with its reason.

Two runs are comparable only with the same --work-dir, because the ids of some images and the
findings contain absolute paths, and only on the same machine: the weights depend on the CPU, on the
number of its cores and on the versions of torch and pyarrow.
"""

import argparse
import csv
import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path

import onnx
import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parents[2]
N_ROWS = 200_000
SPECIES = ("blank", "zebra", "wildebeest", "gazelle", "elephant", "buffalo", "impala", "warthog")
NOT_HASHED = {"manifest.json", "_manifest.json"}


def ctc(folder: Path, command: str) -> None:
    """Run a command of this checkout in the folder; an error ends the script."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [sys.executable, "-m", "ctc_ray", *shlex.split(command)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "RAY_ADDRESS": "local"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        tail = "\n".join(done.stdout.splitlines()[-20:])
        raise SystemExit(
            f"hash: {folder.name}: `ctc {command}` ended with code {done.returncode}:\n{tail}"
        )


# --- the cases: each runs in a folder of its own, with the shared data at ../shared ---


def demo(folder: Path) -> None:
    """All stages on drawn scenes; the weights are also exported for torch."""
    ctc(folder, "demo --output-uri . --max-epochs 2")
    ctc(folder, "export --bundle-uri model --output-uri export_torch --format torch-export")


def cats_dogs(folder: Path) -> None:
    """The test photographs of camera-trap-classifier, from its csv to its formats."""
    files = "../shared/data/annotations/camera_trap_classifier_test_files"
    root = "--image-root-uri ../shared/data/labelled/cats_dogs"
    heads = "species standing count"
    ctc(
        folder,
        f"create-inventory csv --source-uri {files}/cats_vs_dogs_multi.csv --output-uri inventory"
        f" --event-column id --image-columns image --head-columns {heads}",
    )
    ctc(
        folder,
        f"create-dataset --inventory-uri inventory --output-uri dataset --heads {heads} {root}"
        " --images-per-unit 30 --split.fractions.train .7 --split.fractions.val .15"
        " --split.fractions.test .15",
    )
    ctc(
        folder,
        f"train --dataset-uri dataset --output-uri model --heads {heads} --loss-weights.species 1"
        " --loss-weights.standing .5 --loss-weights.count .2 --batch-size 16 --max-epochs 2",
    )
    ctc(
        folder,
        f"predict --bundle-uri model --csv-uri {files}/cats_vs_dogs_multi_image.csv"
        f" --output-uri predictions --event-column id --image-columns image1 image2 image3 {root}"
        " --export csv json",
    )


def malformed(folder: Path) -> None:
    """178 odd files: as a tree, as class folders, and as a csv, of which datasets are made."""
    root = "../shared/data/malformed"
    write_list(folder / "files.csv", folder / root)
    ctc(folder, f"create-inventory images --source-uri {root} --output-uri images")
    ctc(folder, f"create-inventory dir --source-uri {root} --output-uri class_folders")
    ctc(
        folder,
        "create-inventory csv --source-uri files.csv --output-uri inventory --event-column id"
        f" --image-columns id --head-columns class --image-root-uri {root} --check-files"
        " --same-content",
    )
    for policy in ("fail", "keep"):
        ctc(
            folder,
            f"create-dataset --inventory-uri inventory --output-uri dataset_{policy} --heads class"
            f" --image-root-uri {root} --truncated {policy} --max-failure-fraction 1"
            " --images-per-unit 60",
        )


def camtrap_dp(folder: Path) -> None:
    """A package whose images are mostly remote; https is not read, so these are failures.

    create-dataset stops where it can read none of a few images that it tries, so it gets a copy of
    the package in which every second remote image is a local one that is missing.
    """
    package = "../shared/data/photos/camtrapdp_example"
    write_package(folder / "package", folder / package)
    ctc(folder, f"create-inventory camtrap-dp --source-uri {package} --output-uri remote")
    ctc(folder, "create-inventory camtrap-dp --source-uri package --output-uri inventory")
    ctc(
        folder,
        "create-dataset --inventory-uri inventory --output-uri dataset --heads species count"
        " --observations most-frequent --split.by time --images-per-unit 100"
        " --max-failure-fraction 1",
    )


def coco(folder: Path) -> None:
    """COCO Camera Traps without its images: the shards show the plan, and every row fails."""
    source = "../shared/data/annotations/lindenthal_coco_cct/annotations_lindenthal.json"
    (folder / "no_images").mkdir()
    (folder / "mapping.csv").write_text("head,from,to\nspecies,goat,ungulate\n")
    ctc(folder, f"create-inventory coco --source-uri {source} --output-uri inventory")
    ctc(
        folder,
        "create-dataset --inventory-uri inventory --output-uri dataset --heads species"
        " --image-root-uri no_images --max-failure-fraction 1 --images-per-unit 200"
        " --mapping-uri mapping.csv --observations first --balance.head species"
        " --balance.max-events-per-class 15 --split.fractions.train .6 --split.fractions.val .4",
    )


def rows(folder: Path) -> None:
    """Many rows without images: the shards show the plan, and every row fails."""
    (folder / "no_images").mkdir()
    write_rows(folder / "rows.csv", N_ROWS)
    ctc(
        folder,
        "create-inventory csv --source-uri rows.csv --output-uri inventory --event-column event"
        " --image-columns image --head-columns species count --location-column location"
        " --captured-at-column time --meta-columns season",
    )
    ctc(
        folder,
        "create-dataset --inventory-uri inventory --output-uri dataset --heads species count"
        " --image-root-uri no_images --max-failure-fraction 1 --observations most-frequent"
        " --filter.min-events-per-class 5 --split.by location"
        " --split.fractions.train .8 --split.fractions.val .1 --split.fractions.test .1",
    )


def sources(folder: Path) -> None:
    """Inventories of the sources that no other case reads."""
    annotations, photos = "../shared/data/annotations", "../shared/data/photos"
    files = f"{annotations}/camera_trap_classifier_test_files"
    boxes = f"{annotations}/megadetector_results_ena24/ena.md.4.1.0.json"
    package = f"{annotations}/camtrapdp_0.1/camtrapdp_0.1/mica"
    bursts, pairs = f"{photos}/peru_bursts", f"{photos}/ena24_small/images"
    layout = "--layout '{deployment}'"
    ctc(folder, f"create-inventory json --source-uri {files}/json_data_file.json --output-uri json")
    ctc(folder, f"create-inventory camtrap-dp --source-uri {package} --output-uri camtrap_dp_0.1")
    ctc(folder, f"create-inventory images --source-uri {bursts} --output-uri bursts {layout}")
    ctc(folder, f"create-inventory dir --source-uri {pairs} --output-uri class_folders")
    ctc(
        folder,
        f"create-inventory megadetector --source-uri {boxes} --inventory-uri class_folders"
        " --output-uri megadetector",
    )


CASES: dict[str, Callable[[Path], None]] = {
    case.__name__: case for case in (demo, cats_dogs, malformed, camtrap_dp, coco, rows, sources)
}


def write_list(path: Path, root: Path) -> None:
    """A csv with every file below the folders of the root, and its folder as its class."""
    files = sorted(str(file.relative_to(root)) for file in root.glob("*/**/*") if file.is_file())
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "class"])
        writer.writerows([name, name.partition(os.sep)[0]] for name in files)


def write_package(folder: Path, original: Path) -> None:
    """A copy of a Camtrap DP package in which every second remote image is a local one."""
    folder.mkdir()
    (folder / "media").symlink_to(original / "media")
    for name in ("datapackage.json", "deployments.csv", "observations.csv"):
        (folder / name).write_bytes((original / name).read_bytes())
    lines = (original / "media.csv").read_text(encoding="utf-8").splitlines(keepends=True)
    lines[::2] = [re.sub(r"https://[^,]+/(?=[^,]+/file,)", "missing/", line) for line in lines[::2]]
    (folder / "media.csv").write_text("".join(lines), encoding="utf-8")


def write_rows(path: Path, n_rows: int) -> None:
    """A csv of one row per image, 3 images per event, with the mistakes that real ones have."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["event", "image", "species", "count", "location", "time", "season"])
        writer.writerows(drawn_row(*divmod(row, 3)) for row in range(n_rows))


def drawn_row(event: int, index: int) -> list[str]:
    """The row of one image of an event; its values depend on nothing but the two numbers."""
    share = event * 7919 % 1009 / 1009
    species = SPECIES[int(share**3 * len(SPECIES))]  # blank most often, then ever more rarely
    location = event // 50 % 400
    taken = datetime(2015, 1, 1) + timedelta(seconds=event * 60 + index)
    if event % 97 == 0:
        species = ""
    if event % 1001 == 5 and index == 1:
        species = "warthog"  # several observations of one event
    if event % 30011 == 7:
        species = "Zebra"  # differs in case, and is rare
    if event % 5003 == 11 and index == 2:
        location += 1  # an event at two locations
    if event % 2003 == 13:
        taken = datetime(2000, 1, 1)  # a clock that was never set
    count = "-1" if event % 50 == 0 else str(event * 31 % 5)
    time_text = "2015-02-30 25:00:00" if event % 4001 == 17 else taken.isoformat(sep=" ")
    image = f"B{location:03d}/IMG_{event:06d}_{index}.JPG"
    return [f"E{event:06d}", image, species, count, f"B{location:03d}", time_text, f"S{event % 4}"]


# --- the content of a file that is hashed ---


def of_parquet(path: Path) -> bytes:
    """All up to the footer, which may hold the version of ctc, and the schema without metadata."""
    content = path.read_bytes()
    footer_bytes = int.from_bytes(content[-8:-4], "little")
    schema = pq.read_schema(path)
    text = schema.to_string(
        truncate_metadata=False, show_field_metadata=False, show_schema_metadata=False
    )
    return content[: -8 - footer_bytes] + text.encode()


def of_onnx(path: Path) -> bytes:
    """The model without the version of ctc in its metadata."""
    model = onnx.load(path)
    kept = [entry for entry in model.metadata_props if entry.key != "ctc_version"]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def of_torch_export(path: Path) -> bytes:
    """The members of the zip file, and of our classes the names without their modules.

    Torch notes of every node of the graph by which module's class it was made, so moving the class
    changes the file. `serialization_id` is a hash of all members, and so of the modules' names and
    the version of ctc, which is a member of its own.
    """
    parts = []
    with zipfile.ZipFile(path) as file:
        for name in file.namelist():
            if not name.endswith(("/extra/ctc_version", "/.data/serialization_id")):
                content = re.sub(rb"\bctc_ray(?:\.\w+)*\.(\w+)", rb"\1", file.read(name))
                parts += [name.encode(), len(content).to_bytes(8, "little"), content]
    return b"".join(parts)


def of_bundle(path: Path) -> bytes:
    """bundle.json without the version of ctc, the URIs, and the fingerprint of a manifest."""
    return json.dumps(without_uris(json.loads(path.read_bytes())), ensure_ascii=False).encode()


def without_uris(value: object) -> object:
    if isinstance(value, list):
        return [without_uris(item) for item in value]
    if not isinstance(value, dict):
        return value
    kept = {key: item for key, item in value.items() if not key.endswith("_uri")}
    return {
        key: without_uris(item)
        for key, item in kept.items()
        if key not in ("ctc_version", "data_fingerprint")
    }


def of_card(path: Path) -> bytes:
    """The model card without the version of ctc, the URIs, and the fingerprint of a manifest."""
    text = re.sub(r"trained by ctc \S+", "trained by ctc", path.read_text(encoding="utf-8"))
    left_out = re.compile(r'\s*"\w+_uri": |Fingerprint of the dataset: ')
    return "\n".join(x for x in text.splitlines() if not left_out.match(x)).encode()


BY_NAME: dict[str, Callable[[Path], bytes]] = {"bundle.json": of_bundle, "README.md": of_card}
BY_SUFFIX: dict[str, Callable[[Path], bytes]] = {
    ".parquet": of_parquet,
    ".onnx": of_onnx,
    ".pt2": of_torch_export,
    **dict.fromkeys((".safetensors", ".csv", ".json", ".jpg", ".png"), Path.read_bytes),
}


def data_files(folder: Path) -> Iterator[Path]:
    """The files of a case that are hashed."""
    for path in folder.rglob("*"):
        parts = path.relative_to(folder).parts
        hidden = "_work" in parts or "_versions" in parts  # times of files
        if path.is_file() and not hidden and path.name not in NOT_HASHED and path.suffix != ".yaml":
            yield path


def sha256(path: Path) -> str:
    """The hash of what the file says, whatever version of ctc has written it, and where."""
    content = BY_NAME.get(path.name) or BY_SUFFIX.get(path.suffix.lower())
    if content is None:  # a new kind of file must not be left out in silence
        raise SystemExit(f"hash: {path}: no rule for a file of this kind; add one to BY_SUFFIX")
    return hashlib.sha256(content(path)).hexdigest()


# --- the script ---


def hash_case(name: str, work_dir: Path) -> list[str]:
    """Run a case; one line per data file."""
    folder = work_dir / name
    folder.mkdir()
    began = time.perf_counter()
    CASES[name](folder)
    lines = [f"{sha256(path)}  {path.relative_to(work_dir)}" for path in data_files(folder)]
    seconds = time.perf_counter() - began
    print(f"hash: {name}: {len(lines)} files, {seconds:.0f} s", file=sys.stderr, flush=True)
    return lines


def path_of(line: str) -> str:
    return line.partition("  ")[2]


def differences(before: Sequence[str], now: Sequence[str]) -> list[str]:
    """The lines that only one of the two has, by path: `-` only before, `+` only now."""
    gone = [(path_of(line), f"- {line}") for line in set(before) - set(now)]
    new = [(path_of(line), f"+ {line}") for line in set(now) - set(before)]
    return [line for _, line in sorted(gone + new, key=lambda pair: (pair[0], pair[1][0] == "+"))]


def hash_all(names: Sequence[str], work_dir: Path, shared: Path, *, keep: bool) -> list[str]:
    """The lines of all cases; the folder is made, and deleted at the end."""
    try:
        work_dir.mkdir(parents=True)
    except FileExistsError:
        raise SystemExit(
            f"hash: {work_dir} is there: another run is using it, or one was killed or run with "
            "--keep; delete it, or choose another --work-dir (which changes some hashes)"
        ) from None
    try:
        (work_dir / "shared").symlink_to(shared)
        lines = [line for name in names for line in hash_case(name, work_dir)]
        return sorted(lines, key=path_of)
    finally:
        if not keep:
            shutil.rmtree(work_dir)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=CASES, metavar="CASE", help=", ".join(CASES))
    parser.add_argument(
        "--shared",
        type=Path,
        default=ROOT.parent / "shared",
        metavar="FOLDER",
        help="folder that holds data/; default: shared beside the checkout",
    )
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="write the lines here; default: print them"
    )
    parser.add_argument("--compare", type=Path, metavar="FILE", help="lines of an earlier run")
    parser.add_argument(
        "--work-dir",
        type=Path,
        default=Path(tempfile.gettempdir()) / "ctc_hash_outputs",
        metavar="FOLDER",
        help="where the jobs run; must not be there; default: %(default)s",
    )
    parser.add_argument("--keep", action="store_true", help="do not delete the work folder")
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    names = list(dict.fromkeys(arguments.only or CASES))
    if not (arguments.shared / "data").is_dir():
        raise SystemExit(f"hash: {arguments.shared}/data: no such folder (set --shared)")
    if arguments.compare and not arguments.compare.is_file():
        raise SystemExit(f"hash: {arguments.compare}: no such file (--compare)")
    before = arguments.compare.read_text().splitlines() if arguments.compare else []
    work_dir, shared = arguments.work_dir.absolute(), arguments.shared.resolve()
    lines = hash_all(names, work_dir, shared, keep=arguments.keep)
    if arguments.out:
        arguments.out.write_text("".join(f"{line}\n" for line in lines))
    else:
        print("\n".join(lines), flush=True)
    if arguments.compare:
        changed = differences([x for x in before if path_of(x).split("/")[0] in names], lines)
        print("\n".join([*changed, f"{len(changed)} lines differ"]), flush=True)
        raise SystemExit(1 if changed else 0)


if __name__ == "__main__":
    main()
