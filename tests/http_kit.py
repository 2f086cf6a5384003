"""A loopback HTTP server over a folder, with byte ranges, for the tests of remote datasets."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@dataclass
class Served:
    """What a client asked for. ``ranges`` false: every answer is the whole file, as some servers do."""

    folder: Path
    ranges: bool = True
    broken_after: int | None = None  # bodies after which the server answers 503
    delay_s: float = 0.0  # longest time before a body, to make concurrent requests overlap
    url: str = ""
    bodies: list[tuple[str, int]] = field(default_factory=list)  # (path, bytes sent)
    heads: list[str] = field(default_factory=list)  # paths that were asked for without their bodies

    @property
    def bytes_sent(self) -> int:
        return sum(size for _, size in self.bodies)


@contextmanager
def served(folder: Path, **options) -> Iterator[Served]:
    state = Served(folder, **options)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"state": state}))
    state.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: Served

    def log_message(self, *_):
        """Keep the tests' output quiet."""

    def do_HEAD(self):
        self.state.heads.append(self.path)
        self._answer(body=False)

    def do_GET(self):
        self._answer(body=True)

    def _answer(self, *, body: bool):
        path = self.state.folder / self.path.lstrip("/")
        broken = self.state.broken_after is not None and len(self.state.bodies) >= self.state.broken_after
        if broken or not path.is_file():
            self.send_response(503 if broken else 404)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        data = path.read_bytes()
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range") or "")
        if wanted and self.state.ranges:
            first, last = int(wanted[1]), min(int(wanted[2]), len(data) - 1)
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
            data = data[first : last + 1]
        else:
            self.send_response(200)
        self.send_header("Accept-Ranges", "bytes" if self.state.ranges else "none")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if body:
            self.state.bodies.append((self.path, len(data)))
            time.sleep(self.state.delay_s * (len(self.state.bodies) % 3) / 2)
            self.wfile.write(data)
