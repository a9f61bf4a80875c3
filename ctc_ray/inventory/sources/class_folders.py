"""Class folders ROOT/<class>/…/<image> as an inventory with the head `class`.

Every file of a class folder is an event of one image, whatever its name. The event's id is the
first of these names that no other file has:

1. the original's name, `<class>#<name before the dot>`; for a file in a further folder
   `<class>#<folder>/<name without extension>`. Files whose names have several dots, which the
   original skipped, start at 2: `cat.1.jpg` keeps its id when `cat.2.jpg` is added.
2. `<class>#<path with extension>`, e.g. for `a.jpg` where there is an `a.png`
3. the path relative to ROOT
"""

import posixpath
from collections import Counter
from collections.abc import Sequence

from ctc_ray.errors import ConfigError
from ctc_ray.files import storage
from ctc_ray.inventory.events.assemble import Inventory, assemble
from ctc_ray.inventory.findings import Findings
from ctc_ray.inventory.sources.files import (
    FoundFile,
    as_valid_text,
    find_files,
    is_set_aside,
    one_event_per_file,
    unique_text,
)

HEAD = "class"


def read_dir(uri: str, files: Sequence[FoundFile] | None = None) -> Inventory:
    """The inventory of a root folder; the names of its direct sub-folders are the classes.

    Args:
        files: the images below the folder; None: every file is an image.

    Raises:
        ConfigError: the folder does not exist, has no class folder, or no class folder has a file.
    """
    files = find_files(uri) if files is None else files
    inside = [file for file in files if "/" in file.path]
    folders = {name for name in storage.folders_in(uri) if not is_set_aside(name)}
    if not folders:
        raise ConfigError(f"{uri}: no class folder in it; expected {uri}/<class>/<image>")
    if not inside:
        raise ConfigError(f"{uri}: no file in its {len(folders)} class folders")
    classes = [file.path.partition("/")[0] for file in inside]
    outside = [unique_text(file.path) for file in files if "/" not in file.path]
    findings = Findings().listed("files_outside_class_folders", outside)
    empty = sorted(map(as_valid_text, folders - set(classes)))
    findings = findings.listed("empty_class_folders", empty)
    labels = [as_valid_text(name) for name in classes]
    rows = one_event_per_file(event_ids(inside), inside, {HEAD: labels})
    return assemble(rows, where=uri, findings=findings)


def event_ids(files: Sequence[FoundFile]) -> list[str]:
    """The event id of each file, by the rule in the module's docstring."""
    candidates = [_candidates(file.path) for file in files]
    ranks = [0] * len(files)
    while True:
        ids = [names[rank] for names, rank in zip(candidates, ranks, strict=True)]
        counts = Counter(ids)
        if len(counts) == len(ids):
            return ids
        ranks = [
            min(rank + (counts[name] > 1), len(names) - 1)
            for name, rank, names in zip(ids, ranks, candidates, strict=True)
        ]


def _candidates(path: str) -> tuple[str, ...]:
    name, _, below = path.partition("/")
    label, whole = as_valid_text(name), as_valid_text(below)
    exact = (f"{label}#{whole}", unique_text(path))
    if "/" in below:
        return (f"{label}#{posixpath.splitext(whole)[0]}", *exact)
    if below.count(".") > 1:
        return exact
    return (f"{label}#{whole.partition('.')[0]}", *exact)
