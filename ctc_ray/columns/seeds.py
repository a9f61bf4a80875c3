"""Pseudo-random numbers that depend only on a name: equal on every machine, in any row order."""

import hashlib


def stable_hash(name: str, seed: int, epoch: int) -> int:
    """A number from 0 to 2**63 - 1 that depends only on the arguments; a seed for one item."""
    key = f"{seed}/{epoch}/{name}".encode()
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big") >> 1


def hash_to_unit(name: str, salt: str) -> float:
    """A number in [0, 1) that depends only on the arguments; uniform over names (53 bits)."""
    digest = hashlib.blake2b(f"{salt}\0{name}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / 2**53
