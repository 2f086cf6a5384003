"""Proxies and certificates of the environment: used, or told in a sentence that holds no password."""

from __future__ import annotations

import os
import socket
import sys
import threading
from contextlib import contextmanager
from dataclasses import replace

import pytest
from download_kit import CONTENT, FAST, behind, fetch, stopped
from fault_server import fault_server

from medcurate.errors import ConfigError


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    for name in [*os.environ]:
        if name.lower().endswith("_proxy") or name.startswith("SSL_CERT"):
            monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        (
            "ALL_PROXY",
            "socks5://user:SECRET@127.0.0.1:9",
            "ALL_PROXY: a SOCKS proxy needs .* pip install socksio",
        ),
        ("HTTPS_PROXY", "ftp://SECRET@127.0.0.1", "HTTPS_PROXY: one of them is no address of a proxy"),
        (
            "https_proxy",
            "http://user:SECRET#1@127.0.0.1:9",
            "https_proxy: one of them is no address of a proxy",
        ),
        ("NO_PROXY", "[::1]", "NO_PROXY: .*in NO_PROXY names and addresses without brackets"),
        ("SSL_CERT_FILE", "nowhere.pem", "SSL_CERT_FILE=nowhere.pem: .*No such file"),
        ("SSL_CERT_FILE", os.devnull, "SSL_CERT_FILE=/dev/null: certificates cannot be read"),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path, monkeypatch, name, value, said):
    monkeypatch.setitem(sys.modules, "socksio", None)
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=said) as error:
        fetch(tmp_path, behind("https://example.org/a.zip"))
    assert "SECRET" not in str(error.value)


def test_no_proxy_stands_between_this_machine_and_itself(tmp_path, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with fault_server() as server:
        server.serve("/a.zip", CONTENT)
        fetch(tmp_path, behind(f"{server.url}/a.zip")).check()


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "ALL_PROXY"])
def test_a_proxy_that_is_not_there_is_not_taken_for_the_host(tmp_path, monkeypatch, name):
    monkeypatch.setenv(name, "http://127.0.0.1:9")
    policy = replace(FAST, patience_s=0.1)
    text = stopped(tmp_path, behind("https://example.org/a.zip"), policy=policy)
    assert "Connection refused by way of its proxy" in text
    monkeypatch.setenv("NO_PROXY", "nowhere.invalid")
    text = stopped(tmp_path, behind("https://nowhere.invalid/a.zip"), policy=policy)
    assert "by way of" not in text


@contextmanager
def proxy(*answers: bytes):
    """The address of one that answers every CONNECT with the next of ``answers``, and how many it answered."""
    asked: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            for answer in answers:
                with listening.accept()[0] as connection:
                    asked.append(connection.recv(1 << 16))
                    connection.sendall(b"HTTP/1.1 " + answer + b"\r\nContent-Length: 0\r\n\r\n")

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}", asked


def test_a_proxy_that_wants_a_password_is_not_asked_again(tmp_path, monkeypatch):
    with proxy(b"407 Proxy Authentication Required") as (address, asked):
        monkeypatch.setenv("HTTPS_PROXY", address)
        text = stopped(tmp_path, behind("https://example.org/a.zip"))
    assert "the proxy answers 407 Proxy Authentication Required" in text
    assert len(asked) == 1


def test_a_proxy_that_is_busy_is_asked_again(tmp_path, monkeypatch):
    with proxy(b"503 Service Unavailable", b"407 Proxy Authentication Required") as (address, asked):
        monkeypatch.setenv("HTTPS_PROXY", address)
        stopped(tmp_path, behind("https://example.org/a.zip"), policy=FAST)
    assert len(asked) == 2
