"""The label space of a model: its heads, their classes, and class <-> index."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ctc_ray.errors import LabelError


@dataclass(frozen=True)
class LabelSpace:
    """Heads in their order, each with its classes in the order of their indices.

    Classes are sorted as strings, as the original does ("10" before "2"); an index is a place in
    that order, so a class has one index and an index one class.

    Raises:
        LabelError: no head, a head without a class, or a class that is named twice.
    """

    classes: Mapping[str, tuple[str, ...]]

    def __post_init__(self) -> None:
        if not self.classes:
            raise LabelError("a label space needs at least one head")
        for head, names in self.classes.items():
            if not names:
                raise LabelError(
                    f"head {head!r} has no class: no row is labelled (choose other heads)"
                )
            if len(set(names)) != len(names):
                raise LabelError(f"head {head!r} names a class twice: {', '.join(names)}")

    @classmethod
    def from_table(cls, table: pa.Table, columns: Mapping[str, str]) -> "LabelSpace":
        """The classes that occur in the table; `columns` is head -> column, nulls are no class."""
        return cls(
            {
                head: tuple(
                    sorted(v for v in pc.unique(table[column]).to_pylist() if v is not None)
                )
                for head, column in columns.items()
            }
        )

    @property
    def heads(self) -> tuple[str, ...]:
        """The heads in their order."""
        return tuple(self.classes)

    def n_classes(self, head: str) -> int:
        """Number of classes of a head.

        Raises:
            LabelError: there is no such head.
        """
        return len(self._of(head))

    def select(self, heads: Sequence[str]) -> "LabelSpace":
        """The label space of these heads only, in this order.

        Raises:
            LabelError: there is no such head.
        """
        return LabelSpace({head: self._of(head) for head in heads})

    def encode(
        self, head: str, labels: pa.Array | pa.ChunkedArray, *, missing: int
    ) -> npt.NDArray[np.int64]:
        """Class indices of the labels; `missing` where the label is null.

        Raises:
            LabelError: a label is no class of the head (that is not the same as a missing label).
        """
        if isinstance(labels, pa.ChunkedArray):
            labels = labels.combine_chunks()
        index = pc.index_in(labels, value_set=pa.array(self._of(head), pa.string()))
        unknown = pc.and_(pc.is_valid(labels), pc.is_null(index))
        if pc.any(unknown).as_py():
            value = labels.filter(unknown)[0].as_py()
            raise LabelError(
                f"{value!r} is no class of head {head!r}; classes are {', '.join(self._of(head))}"
            )
        codes: npt.NDArray[np.int64] = (
            pc.fill_null(index, missing).to_numpy(zero_copy_only=False).astype(np.int64)
        )
        return codes

    def decode(self, head: str, indices: npt.NDArray[np.integer]) -> pa.Array:
        """The classes at these indices."""
        return pa.array(self._of(head), pa.string()).take(pa.array(indices, pa.int64()))

    def to_json(self) -> dict[str, list[str]]:
        """Head -> classes, for a manifest or a bundle."""
        return {head: list(names) for head, names in self.classes.items()}

    @classmethod
    def from_json(cls, value: Mapping[str, Sequence[str]]) -> "LabelSpace":
        """What `to_json` wrote."""
        return cls({head: tuple(names) for head, names in value.items()})

    def _of(self, head: str) -> tuple[str, ...]:
        if head not in self.classes:
            raise LabelError(f"head {head!r} not found; heads are {', '.join(self.classes)}")
        return self.classes[head]
