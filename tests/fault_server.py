"""A loopback HTTP server that misbehaves as it is told, and counts what it sent.

A path's ``Script`` is a list of faults, one a request; the last one stays. ``OK`` is an honest answer: 200, or 206
to a Range whose If-Range, if any, names the current tag.
"""

from __future__ import annotations

import re
import socket
import ssl
import struct
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

BLOCK = 1 << 14


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What one answer does wrong; the defaults are an honest answer."""

    status: int = 0  # answer with this and no body
    retry_after: str = ""
    location: str = ""  # with a status of 3xx
    headers: Mapping[str, str] = field(default_factory=dict)  # with a status
    reset: bool = False  # close with RST before any header
    cut_bytes: int | None = None  # end the connection after so many bytes of this body
    stall_bytes: int | None = None  # say nothing more after so many bytes
    short: int = 0  # leave so many bytes out at the end, with a Content-Length that agrees
    flip: int | None = None  # offset in the object of a byte that is sent inverted
    ignore_range: bool = False
    ignore_condition: bool = False  # of If-Range
    wrong_range: int = 0  # 206 with a body that begins so many bytes too late
    content_range: str = ""  # 206 that says so
    longer: bytes = b""  # 206 with so much behind the rest
    no_tag: bool = False
    no_length: bool = False  # HTTP/1.0: the body ends with the connection
    chunked: bool = False
    page: bool = False  # a login form instead of the file
    page_type: str = "text/html; charset=utf-8"
    page_first: int = 0  # so many bytes of the page come alone
    stalled_s: float = 3.0


OK = Fault()


@dataclass
class Served:
    """One object."""

    content: bytes
    etag: str = '"1"'
    script: list[Fault] = field(default_factory=list)
    headers: Mapping[str, str] = field(default_factory=dict)
    swap: Served | None = None  # what it is replaced by
    swap_after: int = 0  # requests
    requests: list[dict[str, str]] = field(default_factory=list)  # of GET, by lower-case name
    sent_bytes: int = 0


@dataclass
class FaultServer:
    """What is served, by path, with its query or without; ``bytes_per_s`` slows every body down."""

    objects: dict[str, Served] = field(default_factory=dict)
    bytes_per_s: float = 0.0
    tls: ssl.SSLContext | None = None
    url: str = ""
    at_once: int = 0
    most_at_once: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    closing: threading.Event = field(default_factory=threading.Event)

    def serve(self, path: str, content: bytes, script: Sequence[Fault] = (), **facts) -> Served:
        self.objects[path] = Served(content, script=list(script), **facts)
        return self.objects[path]

    @property
    def host(self) -> str:
        return self.url.split("//")[1]


@contextmanager
def fault_server(**facts) -> Iterator[FaultServer]:
    state = FaultServer(**facts)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"state": state}))
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # clients hang up: that is what this is for
    if state.tls:
        server.socket = state.tls.wrap_socket(server.socket, server_side=True)
    state.url = f"{'https' if state.tls else 'http'}://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        state.closing.set()
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: FaultServer

    def log_message(self, *_):
        """Keep the tests' output quiet."""

    def do_HEAD(self):
        self._answer(body=False)

    def do_GET(self):
        with self.state.lock:
            self.state.at_once += 1
            self.state.most_at_once = max(self.state.most_at_once, self.state.at_once)
        try:
            self._answer(body=True)
        finally:
            with self.state.lock:
                self.state.at_once -= 1

    def _answer(self, *, body: bool):
        served = self.state.objects.get(self.path) or self.state.objects.get(self.path.split("?")[0])
        if served is None:
            self._empty(404, {})
            return
        if body:
            served.requests.append({name.lower(): value for name, value in self.headers.items()})
        if served.swap and len(served.requests) > served.swap_after:
            served.content, served.etag = served.swap.content, served.swap.etag
        with self.state.lock:
            fault = OK
            if served.script and body:
                fault = served.script.pop(0) if len(served.script) > 1 else served.script[0]
        self._misbehave(served, fault, body=body)

    def _misbehave(self, served: Served, fault: Fault, *, body: bool):
        if fault.reset:
            # SO_LINGER of 0 s: close sends RST
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            self.connection.close()
        elif fault.status:
            extra = {"Retry-After": fault.retry_after, "Location": fault.location, **fault.headers}
            self._empty(fault.status, {name: value for name, value in extra.items() if value})
        elif fault.page:
            content = b"  <!DOCTYPE html><html><form action='/login'></form></html>"
            self.send_response(200)
            self.send_header("Content-Type", fault.page_type)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: fault.page_first])
            time.sleep(0.05 * bool(fault.page_first))
            self.wfile.write(content[fault.page_first :])
        else:
            self._object(served, fault, body=body)

    def _empty(self, status: int, headers: Mapping[str, str]):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _object(self, served: Served, fault: Fault, *, body: bool):
        content = served.content
        if fault.flip is not None:
            content = bytearray(content)
            content[fault.flip] ^= 0xFF
        content = bytes(content[: len(content) - fault.short])
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        current = fault.ignore_condition or self.headers.get("If-Range") in {None, served.etag}
        first, size = 0, len(content)
        if wanted and current and not fault.ignore_range:
            first = int(wanted[1])
            if first >= size:
                self._empty(416, {"Content-Range": f"bytes */{size}"})
                return
            last = min(int(wanted[2] or size), size - 1)
            content = content[first + fault.wrong_range : last + 1] + fault.longer
            self.send_response(206)
            said = f"bytes {first + fault.wrong_range}-{last}/{size}"
            self.send_header("Content-Range", fault.content_range or said)
        else:
            self.send_response(200)
        if not fault.no_tag:
            self.send_header("ETag", served.etag)
        for name, value in served.headers.items():
            self.send_header(name, value)
        if fault.chunked:
            self.send_header("Transfer-Encoding", "chunked")
        elif fault.no_length:
            self.send_header("Connection", "close")
            self.close_connection = True
        else:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self._body(served, content, fault)

    def _body(self, served: Served, content: bytes, fault: Fault):
        stop = next((n for n in (fault.cut_bytes, fault.stall_bytes) if n is not None), len(content))
        for at in range(0, min(stop, len(content)), BLOCK):
            block = content[at : min(at + BLOCK, stop)]
            with suppress(OSError):
                self.wfile.write(b"%x\r\n%b\r\n" % (len(block), block) if fault.chunked else block)
                served.sent_bytes += len(block)
            if self.state.bytes_per_s:
                time.sleep(len(block) / self.state.bytes_per_s)
        if fault.stall_bytes is not None:
            self.wfile.flush()
            self.state.closing.wait(fault.stalled_s)
        if fault.cut_bytes is not None or fault.stall_bytes is not None:
            self.close_connection = True
        elif fault.chunked:
            self.wfile.write(b"0\r\n\r\n")
