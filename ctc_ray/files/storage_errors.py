"""Errors of the system in words, and text of strangers as a terminal may show it."""

import errno
import re

from ctc_ray.errors import masked

_CONTINUES = "what is done is kept; the same command continues"
_WAYS_OUT = {
    errno.ENOSPC: f"no space left on this disk; free some space ({_CONTINUES}), or write elsewhere",
    errno.EDQUOT: f"your quota here is used up; free some space ({_CONTINUES}), or write elsewhere",
    errno.EACCES: "permission denied; change its mode or owner, or choose another path",
    errno.EPERM: "this is not allowed; change its mode or owner, or choose another path",
    errno.EROFS: "this file system is read-only; choose another path",
    errno.ENOENT: "no such file or folder; check the spelling",
    errno.EEXIST: "exists already; choose another path",
    errno.EISDIR: "is a folder, not a file; name a file in it",
    errno.ENOTDIR: "a part of this path is a file, not a folder; check the spelling",
    errno.ENAMETOOLONG: "this name is too long for the file system; choose a shorter one",
    errno.ELOOP: "its links lead in a circle; check them",
    errno.EMFILE: "too many open files; raise the limit by `ulimit -n 65536`",
    errno.EIO: "the disk cannot read or write this; check the disk",
    errno.ESTALE: "the network file system has lost this file; mount it again",
    errno.ENOTCONN: "the network file system is not connected; mount it again",
}
# Control characters, separators of lines, and what turns the direction of writing.
_UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def error_text(error: Exception) -> str:
    """An error in one line; one of the system with its path, what is wrong, and the way out."""
    if not isinstance(error, OSError) or error.errno not in _WAYS_OUT or error.filename is None:
        return " ".join(str(error).split())  # an object store's error says all that itself
    path = error.filename2 or error.filename
    text = path.decode(errors="surrogateescape") if isinstance(path, bytes) else str(path)
    return f"{text}: {_WAYS_OUT[error.errno]}"


def printable(text: str, *, keep: str = "") -> str:
    r"""The text without a character that steers a terminal: `\x1b` instead of an escape.

    Credentials in URIs are masked.

    Args:
        keep: characters that stay, e.g. the newline of a text of several lines.
    """
    return _UNPRINTABLE.sub(
        lambda found: found[0] if found[0] in keep else _escaped(found[0]), masked(text)
    )


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode()
