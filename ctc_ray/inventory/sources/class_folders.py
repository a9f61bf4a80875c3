"""Class folders ROOT/<class>/…/<image> as an inventory with the head `class`.

Every file of a class folder is an event of one image; nothing is left out by its name. The event's
id is the first of these that no other file has:

1. the original's: `<class>#<name before the dot>`; below a further folder the path there, without
   its extension: `<class>#<folder>/<name>`. The original skipped names with several dots; they
   begin at 2, so that `cat.1.jpg` keeps its id when `cat.2.jpg` comes.
2. `<class>#<path with extension>`, e.g. of `a.jpg` beside `a.png`
3. the path from ROOT
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
    one_event_per_file,
    unique_text,
)

HEAD = "class"


def read_dir(uri: str, files: Sequence[FoundFile] | None = None) -> Inventory:
    """The inventory of a root folder; its direct sub-folders are the classes, names verbatim.

    Args:
        files: those below the folder that are images; None: all are.

    Raises:
        ConfigError: there is no such folder, no class folder in it, or no file in any of them.
    """
    files = find_files(uri) if files is None else files
    inside = [file for file in files if "/" in file.path]
    folders = storage.folders_in(uri)
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
    """The id of each file's event; see the module's docstring."""
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
