"""The classes that a training learns: those of the dataset, renamed, merged, or left out.

A helper of `ctc train --mapping-uri`.
"""

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from typing import assert_never

from ctc_ray.config.choices import UnmappedRule
from ctc_ray.config.training import TrainConfig
from ctc_ray.errors import ConfigError
from ctc_ray.runs.manifest import Manifest
from ctc_ray.selection.class_mapping import ClassMapping, read_mapping

logger = logging.getLogger(__name__)

Renaming = Callable[[str, str], str | None]
"""Head and class of the dataset -> the class that is learnt; None: it is left unlabelled."""


def renaming(config: TrainConfig) -> Renaming | None:
    """What becomes of each class; None: all stay as they are.

    Raises:
        ConfigError: the mapping cannot be read, or is ambiguous; see `read_mapping`.
    """
    if config.mapping_uri is None:
        return None
    return partial(_rename, read_mapping(config.mapping_uri), config.unmapped)


def _rename(mapping: ClassMapping, unmapped: UnmappedRule, head: str, name: str) -> str | None:
    if head not in mapping:
        return name
    if name in mapping[head]:
        return mapping[head][name]
    match unmapped:
        case "keep":
            return name
        case "drop":
            return None
        case _:
            assert_never(unmapped)


def with_classes(dataset: Manifest, config: TrainConfig) -> Manifest:
    """The dataset's manifest with the classes that are learnt, and their counts.

    Raises:
        ConfigError: the mapping names another head or class.
    """
    if config.mapping_uri is None:
        return dataset
    mapping = read_mapping(config.mapping_uri)
    rename = partial(_rename, mapping, config.unmapped)
    for head, names in mapping.items():
        if head not in config.heads:
            raise ConfigError(
                f"{config.mapping_uri}: head {head!r} is not trained; heads are "
                f"{', '.join(config.heads)}"
            )
        unknown = [name for name in names if name not in dataset.classes.get(head, ())]
        if unknown:
            raise ConfigError(
                f"{config.mapping_uri}: head {head} has no class {unknown[0]!r}; its classes are "
                f"{', '.join(dataset.classes.get(head, ()))}"
            )
    classes = {
        head: sorted({new for name in names if (new := rename(head, name)) is not None})
        for head, names in dataset.classes.items()
    }
    labels = {
        split: {head: _renamed(counts, head, rename) for head, counts in heads.items()}
        for split, heads in dataset.labels.items()
    }
    for head in mapping:
        n_before, n_after = len(dataset.classes[head]), len(classes[head])
        logger.info("head %s: %d classes of the dataset become %d", head, n_before, n_after)
    return dataset.model_copy(update={"classes": classes, "labels": labels})


def _renamed(counts: Mapping[str, int], head: str, rename: Renaming) -> dict[str, int]:
    found: Counter[str] = Counter()
    for name, n in counts.items():
        if (new := rename(head, name)) is not None:
            found[new] += n
    return dict(found)
