"""Seeds that are a function of a name: the same on every machine, in any order."""

import hashlib


def stable_hash(name: str, seed: int, epoch: int) -> int:
    """A number from 0 to 2**63 - 1, the same on every machine."""
    key = f"{seed}/{epoch}/{name}".encode()
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big") >> 1
