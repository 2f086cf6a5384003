"""A dataset behind ``s3://`` and ``https://`` on a loopback server that counts what it sends and fails as told."""

from __future__ import annotations

import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp.connector
import fsspec
import pytest
from fault_server import FaultServer, Served, fault_server

import medcurate.storage

BUCKET = "/bucket"
PREFIX = f"{BUCKET}/deep"  # of every path
_NOTHING_FOUND = b"""<?xml version="1.0" encoding="UTF-8"?>
<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>bucket</Name><Prefix></Prefix>
<KeyCount>0</KeyCount><MaxKeys>1</MaxKeys><IsTruncated>false</IsTruncated></ListBucketResult>"""


@dataclass(frozen=True)
class Remote:
    """A dataset at ``url``; ``server`` is what answers."""

    url: str
    server: FaultServer

    def object(self, name: str) -> Served:
        """The file ``name`` of the dataset."""
        return self.server.objects[f"{PREFIX}/{name}"]

    def shards(self, split: str = "train") -> list[Served]:
        """The split's shards."""
        return [one for path, one in self.server.objects.items() if f"/shards/{split}" in path]

    def sent_bytes(self, split: str = "train") -> int:
        """Bytes of the split's shards that left the server."""
        return sum(one.sent_bytes for one in self.shards(split))


@contextmanager
def remote_dataset(
    scheme: str, dataset: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Remote]:
    """Serve ``dataset`` as ``scheme`` ("s3" or "https"), to this process and to those that it starts."""
    context = _trusted(scratch, monkeypatch) if scheme == "https" else None
    with fault_server(tls=context) as server:
        for path in sorted(dataset.rglob("*")):
            if path.is_file():
                server.serve(f"{PREFIX}/{path.relative_to(dataset).as_posix()}", path.read_bytes())
        if scheme == "s3":
            server.serve(BUCKET, _NOTHING_FOUND)  # to those who look for a missing object among others
            _be_endpoint(server, monkeypatch)
        yield Remote(f"s3:/{PREFIX}" if scheme == "s3" else f"{server.url}{PREFIX}", server)


def _be_endpoint(server: FaultServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """What S3's clients read: the address to ask in place of Amazon's, and credentials to sign with."""
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "someone")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    forget_s3()


def forget_s3() -> None:
    """Let the next reader look for address and credentials anew."""
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    medcurate.storage.reads_anonymously.cache_clear()


def _trusted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """A server's context, with a certificate of its own that clients here are told to trust."""
    key, certificate = folder / "key.pem", folder / "cert.pem"
    words = (
        "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1"
    )
    subprocess.run(
        ["openssl", *words.split(), "-keyout", key, "-out", certificate], check=True, capture_output=True
    )
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))  # read once a process, by those that start later
    monkeypatch.setattr(
        aiohttp.connector, "_SSL_CONTEXT_VERIFIED", ssl.create_default_context(cafile=certificate)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context
