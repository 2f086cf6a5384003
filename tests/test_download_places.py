"""Pages in place of files, mirrors, redirects and certificates: from where bytes may come, and who is told."""

from __future__ import annotations

import re
import shutil

import pytest
from download_kit import CONTENT, OTHER, SHA, behind, check_same, fetch, names, self_signed, stopped
from fault_server import OK, Fault, fault_server

from medcurate.download.types import DownloadError, NeedsRegistrationError
from medcurate.errors import ConfigError
from medcurate.library import packaged_sources


@pytest.fixture
def server():
    with fault_server() as state:
        yield state


# --- who wants a person ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        Fault(page=True),
        Fault(page=True, page_type="application/zip"),
        Fault(page=True, page_type="application/zip", page_first=4),
        Fault(status=401),
        Fault(status=403),
        Fault(status=302, location="/login"),
        Fault(status=202, headers={"x-amzn-waf-action": "challenge"}),  # as figshare.com answers
        Fault(status=405, headers={"x-amzn-waf-action": "captcha"}),
    ],
    ids=[
        "page",
        "page called an archive",
        "page in pieces",
        "401",
        "403",
        "redirect to a page",
        "challenge",
        "captcha",
    ],
)
def test_a_login_page_is_no_archive(tmp_path, server, fault):
    served = server.serve("/a.zip", CONTENT, [fault])
    server.serve("/login", b"", [Fault(page=True)])
    file = behind(f"{server.url}/a.zip", sha256=SHA, size_bytes=len(CONTENT))
    text = stopped(tmp_path, file, kind=NeedsRegistrationError)
    assert "needs registration" in text
    assert f"put file at {tmp_path}/lab/a.zip, sha256 {SHA}, 400,000 bytes" in text
    assert "https://example.org/lab" in text
    assert len(served.requests) == 1
    assert names(tmp_path) == set()


def test_no_packaged_file_is_asked_for_where_only_browsers_are_let_in():
    """figshare's pages answer programs with a challenge; its own host for downloads and its API do not."""
    browsers_only = re.compile(r"https://([a-z-]+\.)?figshare\.com/ndownloader/")
    texts = {path.stem: path.read_text(encoding="utf-8") for path in packaged_sources().glob("*.toml")}
    assert [name for name, text in texts.items() if browsers_only.search(text)] == []


def test_who_was_let_in_need_not_register(tmp_path, server):
    """An address that is signed for some minutes ends so."""
    served = server.serve("/a.zip", CONTENT, [Fault(cut_bytes=100_000), Fault(status=403)])
    text = stopped(tmp_path, behind(f"{server.url}/a.zip"), kind=DownloadError)
    assert "registration" not in text
    assert "403 Forbidden. 100,000 of 400,000 bytes are kept" in text
    served.script[:] = [OK]
    fetch(tmp_path, behind(f"{server.url}/a.zip")).check()
    check_same(tmp_path, served)


def test_a_page_may_be_what_is_wanted(tmp_path, server):
    server.serve("/a.html", b"", [Fault(page=True)])
    fetch(tmp_path, behind(f"{server.url}/a.html", path="a.html")).check()


# --- places ----------------------------------------------------------------------------------------


def test_mirrors_are_tried_in_order(tmp_path, server):
    scripts = {"/1": [Fault(status=404)], "/2": [Fault(status=503)], "/3": [OK], "/4": [OK]}
    served = [server.serve(path, CONTENT, script) for path, script in scripts.items()]
    urls = [server.url + path for path in scripts]
    done = fetch(tmp_path, behind(*urls, sha256=SHA))
    done.check()
    assert done.fetched[0].url == urls[2]
    assert [bool(each.requests) for each in served] == [True, True, True, False]


def test_a_mirror_continues_a_part_where_a_digest_decides(tmp_path, server):
    first = server.serve("/1", CONTENT, [Fault(cut_bytes=300_000), Fault(status=404)])
    second = server.serve("/2", CONTENT, etag='"of the mirror"')
    fetch(tmp_path, behind(f"{server.url}/1", f"{server.url}/2", sha256=SHA)).check()
    assert first.sent_bytes + second.sent_bytes == len(CONTENT)
    first.script[:], second.requests[:] = [Fault(cut_bytes=300_000), Fault(status=404)], []
    fetch(tmp_path, behind(f"{server.url}/1", f"{server.url}/2", path="b.zip")).check()
    assert "range" not in second.requests[0]
    assert (tmp_path / "lab" / "b.zip").read_bytes() == CONTENT


def test_a_mirror_with_other_bytes_is_found_and_the_file_fetched_whole(tmp_path, server):
    server.serve("/1", CONTENT, [Fault(cut_bytes=300_000), Fault(status=404)])
    server.serve("/2", OTHER)
    file = behind(f"{server.url}/1", f"{server.url}/2", sha256=SHA)
    assert "expected sha256" in stopped(tmp_path, file)
    server.serve("/1", CONTENT)
    fetch(tmp_path, file).check()
    assert (tmp_path / "lab" / "a.zip").read_bytes() == CONTENT


def test_every_place_that_failed_is_named(tmp_path, server):
    text = stopped(tmp_path, behind(f"{server.url}/no", f"{server.url}/neither"))
    assert text.count("404 Not Found") == 2


@pytest.mark.parametrize(
    "url", ["http://example.org/a.zip", "ftp://example.org/a.zip", "file:///etc/passwd", "a.zip"]
)
@pytest.mark.parametrize("mirror", [False, True])
def test_only_https_is_downloaded_from(tmp_path, server, url, mirror):
    served = server.serve("/a.zip", CONTENT)
    urls = [f"{server.url}/a.zip", url] if mirror else [url]
    with pytest.raises(ConfigError, match="only https:// and s3://"):
        fetch(tmp_path, behind(*urls))
    assert not served.requests


@pytest.mark.parametrize(
    "location", ["http://example.org/a.zip", "ftp://127.0.0.1/a.zip", "file:///etc/passwd"]
)
def test_a_redirect_away_from_https_is_not_followed(tmp_path, server, location):
    server.serve("/a.zip", CONTENT, [Fault(status=302, location=location)])
    assert re.search(r"redirects to .*, not to https", stopped(tmp_path, behind(f"{server.url}/a.zip")))
    assert names(tmp_path) == set()


@pytest.mark.skipif(not shutil.which("openssl"), reason="needs openssl to make a certificate")
@pytest.mark.parametrize("host", ["a..b", f"{'a' * 64}.org", "xn--a.org"])
def test_a_redirect_to_a_host_that_cannot_be_is_told(tmp_path, server, host):
    server.serve("/a.zip", CONTENT, [Fault(status=302, location=f"https://{host}/a.zip")])
    assert "a host whose name cannot be one" in stopped(tmp_path, behind(f"{server.url}/a.zip"))


@pytest.mark.parametrize("host", ["a..b", f"{'a' * 64}.org", "xn--a.org"])
def test_an_address_whose_host_cannot_be_is_no_url(tmp_path, host):
    with pytest.raises(ConfigError, match=f"https://{re.escape(host)}/a.zip: not a URL"):
        fetch(tmp_path, behind(f"https://{host}/a.zip"))


@pytest.mark.parametrize("password", ["SECRET/1", "SECRET#1", "SECRET?1"])
def test_a_password_that_makes_an_address_none_is_not_told(tmp_path, password):
    with pytest.raises(ConfigError, match=r"example\.org/a\.zip: not a URL\. Write special") as error:
        fetch(tmp_path, behind(f"https://user:{password}@example.org/a.zip"))
    assert "SECRET" not in str(error.value)


def test_a_certificate_of_nobody_is_refused_at_once(tmp_path):
    with fault_server(tls=self_signed(tmp_path)) as server:
        served = server.serve("/a.zip", CONTENT)
        text = stopped(tmp_path, behind(f"{server.url}/a.zip"))
    assert "its certificate cannot be verified: self-signed certificate" in text
    assert "SSL_CERT_FILE names the file" in text
    assert not served.requests


def test_redirects_are_followed_and_resumed_through(tmp_path, server):
    server.serve("/a.zip", b"", [Fault(status=307, location="/b"), Fault(status=302, location="/b")])
    served = server.serve("/b", CONTENT, [Fault(cut_bytes=100_000), OK])
    fetch(tmp_path, behind(f"{server.url}/a.zip")).check()
    check_same(tmp_path, served)
    assert served.requests[1]["range"] == "bytes=100000-"


def test_a_redirect_without_end_is_told(tmp_path, server):
    server.serve("/a.zip", b"", [Fault(status=302, location="/a.zip")])
    assert "redirects more than 10 times" in stopped(tmp_path, behind(f"{server.url}/a.zip"))


def test_a_host_that_nobody_answers_for(tmp_path):
    text = stopped(tmp_path, behind("http://127.0.0.1:9/a.zip"))
    assert "127.0.0.1:9: " in text
    assert "times in a row" in text
