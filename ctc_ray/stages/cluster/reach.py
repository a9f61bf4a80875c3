"""Whether anything answers at the address of a cluster; Ray itself waits there for minutes."""

import socket

from ray._common.network_utils import parse_address

_TIMEOUT_S = 2.0


def answers(address: str) -> bool:
    """Whether a server takes connections at `host:port`, with or without `ray://` before it."""
    parsed = parse_address(address.rpartition("://")[2])
    if parsed is None:
        return False
    try:
        socket.create_connection((parsed[0], int(parsed[1])), timeout=_TIMEOUT_S).close()
    except OSError:
        return False
    return True
