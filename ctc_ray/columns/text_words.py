"""Text columns as 64-bit words, so that numpy hashes millions of strings at once.

Words are little-endian: the first byte of a text is the lowest byte of its first word.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

_WORD_BYTES = 8
# _MASKS[n] keeps the first n bytes of a word
_MASKS = np.array([(1 << 8 * n) - 1 for n in range(_WORD_BYTES + 1)], np.uint64)

Words = npt.NDArray[np.uint64]
Ints = npt.NDArray[np.int64]
Number = TypeVar("Number", np.uint32, np.uint64)


@dataclass(frozen=True)
class TextPart:
    """Neighbouring values of a column, as bytes."""

    starts: Ints
    """Byte offset at which each value begins."""
    lengths: Ints
    """Length of each value in bytes; 0 for null."""
    overlapping: Words
    """The unaligned word that begins at each byte of the text."""
    length: int | None = None
    """The length of all values if they are equally long, else None."""

    def by_length(self) -> tuple["TextPart", Ints | slice]:
        """The values, longest first, and the index of each in this part (a slice if unchanged)."""
        if self.length is not None:
            return self, slice(None)
        order = np.argsort(-self.lengths, kind="stable")
        return TextPart(self.starts[order], self.lengths[order], self.overlapping), order

    def last_words(self) -> Words:
        """The last, partial word of each value; 0 where its length is a multiple of 8 bytes."""
        if self.length is not None:
            return self.words(self.length // _WORD_BYTES)
        return self.words(self.lengths // _WORD_BYTES)

    def words(self, number: int | Ints, n_values: int | None = None) -> Words:
        """Word `number` of each of the first `n_values` values; 0 after the end of a text.

        Args:
            number: index of the word from 0: one for all values, or one per value.
            n_values: None: all values.
        """
        skipped = number * _WORD_BYTES
        lengths = self.lengths[:n_values]
        if self.length and isinstance(skipped, int):  # equal distances between values
            if skipped >= self.length:
                return np.zeros(len(lengths), np.uint64)
            words: Words = self.overlapping[skipped :: self.length][: len(lengths)].copy()
            words &= _MASKS[min(self.length - skipped, _WORD_BYTES)]
            return words
        offsets = self.starts[:n_values] + skipped
        words = self.overlapping[np.minimum(offsets, len(self.overlapping) - 1)]
        n_bytes = np.clip(lengths - skipped, 0, _WORD_BYTES)
        if n_bytes.min(initial=_WORD_BYTES) < _WORD_BYTES:
            words &= _MASKS[n_bytes]
        return words


def hash_parts(
    values: pa.Array,
    hash_part: Callable[[TextPart], npt.NDArray[Number]],
    kind: type[Number],
    *,
    values_per_part: int,
) -> npt.NDArray[Number]:
    """The result of `hash_part` for each value, computed part by part in Arrow's number of threads.

    Args:
        values: string, large_string, binary or large_binary; null counts as an empty text.
        hash_part: returns one number per value of its part, in the part's order.
        values_per_part: small enough that a part's columns of words fit into a core's cache, and
            larger for a hash of many steps, because threads wait for one another at every step.
    """
    result = np.empty(len(values), kind)

    def work(first: int) -> None:
        part = values.slice(first, values_per_part)
        result[first : first + len(part)] = hash_part(_text_part(part))

    with ThreadPoolExecutor(pa.cpu_count()) as pool:
        list(pool.map(work, range(0, len(values), values_per_part)))
    return result


def _text_part(values: pa.Array) -> TextPart:
    if values.null_count:
        values = values.fill_null("")
    is_large = pa.types.is_large_string(values.type) or pa.types.is_large_binary(values.type)
    _, offset_buffer, text = values.buffers()
    all_offsets = np.frombuffer(offset_buffer, np.int64 if is_large else np.int32)
    offsets: Ints = all_offsets[values.offset : values.offset + len(values) + 1].astype(np.int64)
    first, end = int(offsets[0]), int(offsets[-1])
    # one word longer than the text, so that reading the last word does not pass the end
    padded = np.zeros(end - first + _WORD_BYTES, np.uint8)
    if end > first:
        padded[: end - first] = np.frombuffer(text, np.uint8, end - first, first)
    overlapping = np.ndarray(end - first + 1, "<u8", buffer=padded, strides=(1,))
    lengths = np.diff(offsets)
    is_even = len(lengths) > 0 and bool((lengths == lengths[0]).all())
    length = int(lengths[0]) if is_even else None
    return TextPart(offsets[:-1] - first, lengths, overlapping, length)
