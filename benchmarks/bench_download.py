"""A verified download against curl followed by sha256sum, on the same file of a loopback server.

    python benchmarks/bench_download.py [--megabytes 512] [--runs 5]

One run prints the table of docs/benchmarks.md. The server is a process of its own that answers by sendfile, so that
it costs the arms as little as it can; all processes share the machine's processors.
"""

from __future__ import annotations

import argparse
import hashlib
import http.server
import multiprocessing
import os
import shutil
import statistics
import subprocess
import tempfile
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

import measure

from medcurate.config.source import Source
from medcurate.download.run import Task, download
from medcurate.progress import configure

GOAL = 0.8


def serve(path: Path, port: Connection) -> None:
    """Answer every GET with ``path``; tell the port first."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            """Nothing."""

        def do_GET(self) -> None:
            size = path.stat().st_size
            self.send_response(200)
            self.send_header("Content-Length", str(size))
            self.send_header("ETag", '"1"')
            self.end_headers()
            self.wfile.flush()
            with open(path, "rb") as stream:
                sent = 0
                while sent < size:
                    sent += os.sendfile(self.connection.fileno(), stream.fileno(), sent, size - sent)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    port.send(server.server_port)
    server.serve_forever()


def source(url: str, sha256: str, size_bytes: int) -> Source:
    """A source of one file."""
    facts = {
        "id": "bench",
        "title": "",
        "homepage": "",
        "citation": "",
        "modality": "ct",
        "dimensions": 3,
        "licence": {"id": "CC0-1.0", "commercial": "yes"},
        "files": [{"path": "a.zip", "origin": {"url": url}, "sha256": sha256, "size_bytes": size_bytes}],
        "pairings": [{"kind": "flat-suffix", "options": {}}],
        "image": {"reader": "nifti"},
        "label": {"reader": "nifti", "decoder": "index"},
        "labels": {"1": "liver"},
    }
    return Source.model_validate(facts)


def ours(folder: Path, wanted: Source) -> None:
    """One download as `medcurate download` does it: digest, fsync, record, name."""
    shutil.rmtree(folder, ignore_errors=True)
    done = download([Task(wanted, folder, wanted.files[0])])
    done.check()
    if done.fetched[0].sha256 != wanted.files[0].sha256:
        raise SystemExit("the digest differs")


def theirs(folder: Path, url: str, sha256: str, check: list[str]) -> None:
    """curl to a file, then ``check`` on it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    target = folder / "a.zip"
    subprocess.run(["curl", "--silent", "--fail", "--output", target, url], check=True)
    if check:
        said = subprocess.run([*check, target], check=True, capture_output=True, text=True).stdout
        if sha256 not in said:
            raise SystemExit("the digest differs")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=512)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    configure("plain")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        content = os.urandom(1 << 20) * options.megabytes
        (folder / "a.zip").write_bytes(content)
        sha256, size_bytes = hashlib.sha256(content).hexdigest(), len(content)
        del content
        here, there = multiprocessing.Pipe()
        server = multiprocessing.Process(target=serve, args=(folder / "a.zip", there), daemon=True)
        server.start()
        url = f"http://127.0.0.1:{here.recv()}/a.zip"
        arms: dict[str, Callable[[], object]] = {
            "`curl`, then `sha256sum`": partial(theirs, folder / "c", url, sha256, ["sha256sum"]),
            "`curl`, then `openssl dgst -sha256`": partial(
                theirs, folder / "o", url, sha256, ["openssl", "dgst", "-sha256"]
            ),
            "`curl` alone, nothing checked": partial(theirs, folder / "n", url, sha256, []),
            "`medcurate download`": partial(ours, folder / "m", source(url, sha256, size_bytes)),
        }
        seconds = measure.interleaved(arms, options.runs)
        server.terminate()
    report(seconds, size_bytes)


def report(seconds: dict[str, list[float]], size_bytes: int) -> None:
    """Print the table."""
    base = next(iter(seconds.values()))
    print(f"{measure.machine()}; {size_bytes / 1e6:,.0f} MB; goal: {GOAL} of curl, then sha256sum\n")
    print("| arm | MB/s | times curl, then sha256sum |")
    print("|---|---|---|")
    for name, found in seconds.items():
        rate = size_bytes / 1e6 / statistics.median(found)
        print(f"| {name} | {rate:,.0f} | {measure.ratio(base, found):.2f} |")


if __name__ == "__main__":
    main()
