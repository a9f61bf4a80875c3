"""A proxy before an S3 server that is slow, refuses requests, and cuts answers short."""

import http.client
import itertools
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit


@dataclass
class Faults:
    """What goes wrong, and how often it did."""

    latency_s: float = 0.0
    refuse_every: int = 0
    """Each so manyth request is refused; 0: none."""
    status: int = 503
    """How it is refused: 503 is what obstore itself tries again, 400 is not."""
    deny: str = "no name"
    """Objects with this in their name are answered 403."""
    cut_every: int = 0
    """The content of each so manyth GET is cut in half; 0: none."""
    refuse_at_most: int = 1 << 30
    lose_every: int = 0
    """Each so manyth PUT that takes effect is answered 500; 0: none."""
    refused: int = 0
    denied: int = 0
    cut: int = 0
    requests: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    gets: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    puts: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def is_next_refused(self) -> bool:
        """Count one request more."""
        return self.refuse_every > 0 and next(self.requests) % self.refuse_every == 0


@contextmanager
def flaky_s3(endpoint: str, faults: Faults) -> Iterator[str]:
    """The address of a proxy before the S3 server at `endpoint`, while the block runs."""
    server = _Server(endpoint, faults)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, endpoint: str, faults: Faults) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.host = urlsplit(endpoint).netloc
        self.faults = faults
        self.connections = threading.local()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _serve(self) -> None:
        faults, body = self.server.faults, self._body()
        time.sleep(faults.latency_s)
        if faults.refused < faults.refuse_at_most and faults.is_next_refused():
            faults.refused += 1
            self._answer(faults.status, {"Content-Length": "0"}, b"")
            return
        if faults.deny in self.path:
            faults.denied += 1
            self._answer(403, {"Content-Length": "0"}, b"")
            return
        status, headers, content = self._forward(body)
        if self.command == "PUT" and status == 200 and faults.lose_every:
            status = 500 if next(faults.puts) % faults.lose_every == 0 else status
        n_bytes = len(content)
        if self.command == "GET" and len(content) > 1 and faults.cut_every:
            is_cut = next(faults.gets) % faults.cut_every == 0
            faults.cut += is_cut
            n_bytes = len(content) // 2 if is_cut else n_bytes
        self._answer(status, headers, content[:n_bytes])
        self.close_connection |= n_bytes < len(content)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _serve  # noqa: N815  # names of http.server

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _forward(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        connections = self.server.connections
        if not hasattr(connections, "open"):
            connections.open = http.client.HTTPConnection(self.server.host)
        headers = {k: v for k, v in self.headers.items() if k.lower() not in _OF_THE_HOP}
        connections.open.request(self.command, self.path, body, headers)
        response = connections.open.getresponse()
        content = response.read()
        kept = {k: v for k, v in response.getheaders() if k.lower() not in _OF_THE_HOP}
        n_bytes = response.headers.get("Content-Length") if self.command == "HEAD" else len(content)
        return response.status, {**kept, "Content-Length": str(n_bytes or 0)}, content

    def _answer(self, status: int, headers: dict[str, str], content: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)


_OF_THE_HOP = frozenset({"content-length", "transfer-encoding", "connection", "host", "expect"})
