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

    `from_table` sorts classes as strings, as the original does ("10" before "2").

    Raises:
        LabelError: there is no head, a head has no class, or a head names a class twice.
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
        """The classes that occur in the table, sorted as strings.

        Args:
            columns: head -> column with its labels; null means not labelled.
        """
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
        """The heads, in the order of the model's outputs."""
        return tuple(self.classes)

    def n_classes(self, head: str) -> int:
        """Number of classes of a head.

        Raises:
            LabelError: there is no such head.
        """
        return len(self._of(head))

    def no_probs(self) -> dict[str, npt.NDArray[np.float32]]:
        """Head -> the probabilities (0, K) of no image."""
        return {head: np.zeros((0, len(names)), np.float32) for head, names in self.classes.items()}

    def select(self, heads: Sequence[str]) -> "LabelSpace":
        """The label space of the given heads only, in the given order.

        Raises:
            LabelError: there is no such head.
        """
        return LabelSpace({head: self._of(head) for head in heads})

    def encode(
        self, head: str, labels: pa.Array | pa.ChunkedArray, *, missing: int
    ) -> npt.NDArray[np.int64]:
        """Class indices (N,) of the labels.

        Args:
            labels: N labels; null means not labelled.
            missing: index that stands for a null.

        Raises:
            LabelError: a label is not a class of the head. A null is no error.
        """
        if isinstance(labels, pa.ChunkedArray):
            labels = labels.combine_chunks()
        index = pc.index_in(labels, value_set=pa.array(self._of(head), pa.string()))
        unknown = pc.and_(pc.is_valid(labels), pc.is_null(index))
        if pc.any(unknown).as_py():
            value, known = labels.filter(unknown)[0].as_py(), ", ".join(self._of(head))
            raise LabelError(f"{value!r} is not a class of head {head!r}; classes are {known}")
        codes: npt.NDArray[np.int64] = (
            pc.fill_null(index, missing).to_numpy(zero_copy_only=False).astype(np.int64)
        )
        return codes

    def decode(self, head: str, indices: npt.NDArray[np.integer]) -> pa.Array:
        """The class of each index, as strings."""
        return pa.array(self._of(head), pa.string()).take(pa.array(indices, pa.int64()))

    def to_json(self) -> dict[str, list[str]]:
        """Head -> classes in the order of their indices, as JSON values."""
        return {head: list(names) for head, names in self.classes.items()}

    @classmethod
    def from_json(cls, value: Mapping[str, Sequence[str]]) -> "LabelSpace":
        """The label space that `to_json` was called on."""
        return cls({head: tuple(names) for head, names in value.items()})

    def _of(self, head: str) -> tuple[str, ...]:
        if head not in self.classes:
            raise LabelError(f"head {head!r} not found; heads are {', '.join(self.classes)}")
        return self.classes[head]
