"""MD5 (RFC 1321) of whole columns of text, many values at once.

The original's split is a function of MD5 sums. hashlib takes one call per value, 1.1 s per million
values; here the 64 steps run on whole columns. A block is 64 bytes: 16 words of 32 bits.
"""

import math

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ctc_ray.columns.text_words import TextPart, hash_parts

_BLOCK_BYTES = 64
_LENGTH_BYTES = 8  # the text's length stands at the end of the last block
_VALUES_PER_PART = 1 << 16
_WORDS = 8  # 64-bit words per block

Columns = npt.NDArray[np.uint32]

_START = (0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476)
_SHIFTS = ((7, 12, 17, 22), (5, 9, 14, 20), (4, 11, 16, 23), (6, 10, 15, 21))
_SINES = [int(2**32 * abs(math.sin(number + 1))) for number in range(64)]
_WORD_OF_STEP = [  # index of the 32-bit word that each of the 64 steps adds
    *range(16),
    *((5 * number + 1) % 16 for number in range(16)),
    *((3 * number + 5) % 16 for number in range(16)),
    *(7 * number % 16 for number in range(16)),
]


def md5_first_word(values: pa.Array) -> npt.NDArray[np.uint32]:
    """The first four bytes of the MD5 sum of each value's UTF-8 text, as a big-endian number."""
    words = hash_parts(values, _first_word, np.uint32, values_per_part=_VALUES_PER_PART)
    return words.byteswap().astype(np.uint32)


def _first_word(part: TextPart) -> Columns:
    """The first word of each value's MD5 sum, little-endian."""
    part, order = part.by_length()
    n_blocks = (part.lengths + _LENGTH_BYTES) // _BLOCK_BYTES + 1
    state = [np.full(len(part.starts), start, np.uint32) for start in _START]
    for number in range(int(n_blocks.max(initial=0))):
        n_values = int(np.count_nonzero(n_blocks > number))  # the longest values come first
        unfinished = [words[:n_values] for words in state]
        is_last = n_blocks[:n_values] == number + 1
        mixed = _mixed(unfinished, _block(part, number, n_values, is_last))
        for words, more in zip(unfinished, mixed, strict=True):
            words += more
    result = np.empty(len(part.starts), np.uint32)
    result[order] = state[0]
    return result


def _block(
    part: TextPart, number: int, n_values: int, is_last: npt.NDArray[np.bool_]
) -> list[Columns | None]:
    """The 16 words of block `number` of each value; None where all values have the word 0.

    A bit 1 and zeros follow the text; the last 8 bytes of the last block are the text's length.
    """
    columns: list[Columns | None] = []
    lengths = part.lengths[:n_values]
    for index in range(_WORDS):
        left = lengths - (number * _WORDS + index) * 8
        ends_here = (left >= 0) & (left < 8)
        is_length = index == _WORDS - 1
        if left.max(initial=-1) < 0 and not is_length:
            columns += [None, None]
            continue
        words = part.words(number * _WORDS + index, n_values)
        bits = np.left_shift(np.uint64(0x80), (np.clip(left, 0, 7) * 8).astype(np.uint64))
        words |= np.where(ends_here, bits, np.uint64(0))
        if is_length:
            words |= np.where(is_last, lengths * 8, 0).astype(np.uint64)
        columns.append(words.astype(np.uint32))
        columns.append((words >> np.uint64(32)).astype(np.uint32))
    return columns


def _mixed(state: list[Columns], block: list[Columns | None]) -> list[Columns]:
    """The state of each value after the four rounds of one block, 16 steps each."""
    a, b, c, d = (words.copy() for words in state)
    mix, spare = np.empty_like(a), np.empty_like(a)
    for step in range(64):
        _combine(step // 16, (b, c, d), mix, spare)
        a += mix
        words = block[_WORD_OF_STEP[step]]
        if words is not None:
            a += words
        a += np.uint32(_SINES[step])
        shift = _SHIFTS[step // 16][step % 4]
        np.left_shift(a, np.uint32(shift), out=mix)
        a >>= np.uint32(32 - shift)
        a |= mix
        a += b
        a, b, c, d = d, a, b, c
    return [a, b, c, d]


def _combine(
    round_: int, words: tuple[Columns, Columns, Columns], out: Columns, spare: Columns
) -> None:
    """Write the RFC's function F, G, H or I of this round to `out`; `spare` is overwritten."""
    b, c, d = words
    if round_ == 0:  # b & c | ~b & d
        np.bitwise_xor(c, d, out=out)
        out &= b
        out ^= d
    elif round_ == 1:  # b & d | c & ~d
        np.bitwise_xor(b, c, out=out)
        out &= d
        out ^= c
    elif round_ == 2:
        np.bitwise_xor(b, c, out=out)
        out ^= d
    else:
        np.invert(d, out=spare)
        np.bitwise_or(b, spare, out=out)
        out ^= c
