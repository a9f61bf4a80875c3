"""The roles of the columns of a csv, and columns that are made of several."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import pyarrow as pa
import pyarrow.compute as pc

from ctc_ray.columns.arrays import TEXT
from ctc_ray.errors import ConfigError

_PATH = "\0path"  # made of several columns; no column of a file has this name
_EMPTY = pa.scalar("", TEXT)


@dataclass(frozen=True)
class CsvColumns:
    """The roles of the columns of a csv.

    Raises:
        ConfigError: there is no image column, a role has a column twice, or there is neither an
            event column nor the columns that events can be made of.
    """

    event_column: str | None
    """None: events are made by gaps in time between the images of a deployment, or of a location
    if there is no deployment column."""
    image_columns: tuple[str, ...] = ()
    """In the order in which the images of a row were taken."""
    head_columns: tuple[str, ...] = ()
    """`column`, or `head=column+column`: the text of these columns, with a blank between."""
    meta_columns: tuple[str, ...] = ()
    location_column: str | None = None
    deployment_column: str | None = None
    captured_at_column: str | None = None
    path_columns: tuple[str, ...] = ()
    """Instead of image columns: folders and file name of the one image of a row."""
    strip_prefix: str | None = None
    """Folder that is taken away where a path begins with it."""
    time_format: str | None = None
    """Form of the times, with the codes of strptime; None: see `parse_times`."""

    def __post_init__(self) -> None:
        if not (self.image_columns or self.path_columns):
            raise ConfigError("image_columns names no column; name the column of the image files")
        for role in ("image_columns", "path_columns", "head_columns", "meta_columns"):
            names = self._head_names if role == "head_columns" else getattr(self, role)
            twice = [name for name, n in Counter(names).items() if n > 1]
            if twice:
                raise ConfigError(f"{role} names {twice[0]!r} twice")
        camera = self.deployment_column or self.location_column
        if self.event_column is None and (self.captured_at_column is None or camera is None):
            raise ConfigError(
                "without event_column, events are made by gaps in time: name captured_at_column,"
                " and deployment_column or location_column"
            )

    @property
    def _head_names(self) -> list[str]:
        return [spec.partition("=")[0] for spec in self.head_columns]

    @cached_property
    def heads(self) -> Mapping[str, tuple[str, ...]]:
        """Head -> the columns that its label is made of."""
        specs = [spec.partition("=") for spec in self.head_columns]
        return {head: tuple((columns or head).split("+")) if columns else (head,)
                for head, _, columns in specs}  # fmt: skip

    def names(self, *, without_event: bool = False) -> list[str]:
        """The columns that have a role, each once.

        Args:
            without_event: leave out the event column, unless it has another role too.
        """
        of_heads = [name for columns in self.heads.values() for name in columns]
        several = (*self.image_columns, *self.path_columns, *of_heads, *self.meta_columns)
        used = (
            *(None if without_event else self.event_column, *several, self.location_column),
            *(self.deployment_column, self.captured_at_column),
        )
        return list(dict.fromkeys(name for name in used if name is not None))

    def joined(self, table: pa.Table) -> tuple[pa.Table, "CsvColumns", dict[str, str]]:
        """The table with the columns that are made of several, and the roles in that table.

        Returns:
            Also head -> the column with its label.
        """
        label_columns = {head: columns[0] for head, columns in self.heads.items()}
        for head, columns in self.heads.items():
            if len(columns) > 1:
                label_columns[head] = f"\0{head}"
                table = table.append_column(f"\0{head}", _join(table, columns, " "))
        own = replace(self, head_columns=tuple(label_columns.values()))
        if self.path_columns:
            path = _join(table, self.path_columns, "/")
            has_file = pc.not_equal(_text(table, self.path_columns[-1]), _EMPTY)
            table = table.append_column(_PATH, pc.if_else(has_file, path, _EMPTY))
            own = replace(own, image_columns=(_PATH,), path_columns=())
        return table, own, label_columns


def _join(table: pa.Table, names: Sequence[str], separator: str) -> pa.Array:
    """The cells of several columns as one text, empty cells left out."""
    parts = []
    for name in names:
        text = pc.utf8_trim(_text(table, name), " ")
        text = pc.utf8_rtrim(text, "/\\") if separator == "/" else text
        behind = pc.binary_join_element_wise(pa.scalar(separator, TEXT), text, _EMPTY)
        parts.append(pc.if_else(pc.equal(text, _EMPTY), _EMPTY, behind))
    joined = pc.binary_join_element_wise(*parts, _EMPTY)  # "skip" of Arrow 26 drops empty rows
    return pc.utf8_slice_codeunits(joined, len(separator))


def _text(table: pa.Table, name: str) -> pa.Array:
    return table[name].combine_chunks().cast(TEXT)
