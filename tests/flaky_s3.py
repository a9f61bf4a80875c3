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
    """Each so manyth request is answered 503; 0: none."""
    cut_every: int = 0
    """The content of each so manyth GET is cut in half; 0: none."""
    refused: int = 0
    cut: int = 0
    requests: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    gets: Iterator[int] = field(default_factory=lambda: itertools.count(1))


@contextmanager
def flaky_s3(endpoint: str, faults: Faults) -> Iterator[str]:
    """The address of a proxy before the S3 server at `endpoint`, while the block runs."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(endpoint, faults))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def _handler(endpoint: str, faults: Faults) -> type[BaseHTTPRequestHandler]:
    host = urlsplit(endpoint).netloc
    connections = threading.local()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def _serve(self) -> None:
            body = self._body()
            time.sleep(faults.latency_s)
            if faults.refuse_every and next(faults.requests) % faults.refuse_every == 0:
                faults.refused += 1
                self._answer(503, {}, b"<Error><Code>SlowDown</Code></Error>")
                return
            status, headers, content = self._forward(body)
            is_cut = self.command == "GET" and len(content) > 1 and faults.cut_every
            if is_cut and next(faults.gets) % faults.cut_every == 0:
                faults.cut += 1
                self._answer(status, headers, content, n_bytes=len(content) // 2)
            else:
                self._answer(status, headers, content)

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _serve

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
            connection = getattr(connections, "open", None) or http.client.HTTPConnection(host)
            connections.open = connection
            headers = {k: v for k, v in self.headers.items() if k.lower() not in _OF_THE_HOP}
            if body:
                headers["Content-Length"] = str(len(body))
            connection.request(self.command, self.path, body, headers)
            response = connection.getresponse()
            content = response.read()
            kept = {k: v for k, v in response.getheaders() if k.lower() not in _OF_THE_HOP}
            if self.command == "HEAD":
                kept["Content-Length"] = response.headers.get("Content-Length", "0")
            return response.status, kept, content

        def _answer(
            self, status: int, headers: dict[str, str], content: bytes, n_bytes: int | None = None
        ) -> None:
            self.send_response_only(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if self.command != "HEAD":
                self.send_header("Content-Length", str(len(content)))
            elif status == 503:
                self.send_header("Content-Length", "0")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content[:n_bytes])
            if n_bytes is not None:
                self.close_connection = True

    return Handler


_OF_THE_HOP = frozenset({"content-length", "transfer-encoding", "connection", "host", "expect"})
