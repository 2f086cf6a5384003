"""Locations: local paths and URLs behave alike, and a short or whole answer is never taken for a range."""

from __future__ import annotations

import pickle
import sys

import fsspec  # noqa: F401
import pytest
from http_kit import served

from medcurate import storage
from medcurate.errors import ConfigError
from medcurate.storage import Location, StorageError, locate

CONTENT = bytes(range(256)) * 40


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "a.tar").write_bytes(CONTENT)
    return tmp_path


@pytest.fixture(params=["path", "file", "http"])
def place(request, folder):
    if request.param == "http":
        with served(folder) as server:
            yield locate(server.url + "/")
    else:
        yield locate(folder if request.param == "path" else f"file://{folder}")


def test_local_and_remote_files_read_alike(place):
    member = place.member("shards/a.tar")
    assert member.exists()
    assert not place.member("shards/b.tar").exists()
    assert member.size_bytes == len(CONTENT)
    assert member.read_range(300, 1000) == CONTENT[300:1300]
    with member.open() as stream:
        assert stream.read(10) == CONTENT[:10]
        stream.seek(-7, 2)
        assert stream.read() == CONTENT[-7:]
        stream.seek(5000)
        assert stream.read(9) == CONTENT[5000:5009]


def test_a_range_past_the_end_is_an_error(place):
    with pytest.raises(StorageError, match="a\\.tar"):
        place.member("shards/a.tar").read_range(len(CONTENT) - 5, 10)


def test_a_missing_file_is_named(place):
    with pytest.raises(StorageError, match=r"shards/none\.tar: no such file"):
        place.member("shards/none.tar").read_range(0, 1)


def test_a_server_that_ignores_ranges_is_caught(folder):
    with served(folder, ranges=False) as server:
        member = locate(server.url).member("shards/a.tar")
        with pytest.raises(StorageError, match="ignores byte ranges"):
            member.read_range(10, 20)


def test_a_failing_server_is_no_missing_file(folder):
    with served(folder, broken_after=0) as server:
        member = locate(server.url).member("shards/a.tar")
        with pytest.raises(StorageError, match="cannot be read") as caught:
            member.exists()
    assert "no such file" not in str(caught.value)
    with pytest.raises(StorageError, match="cannot be read"):
        member.exists()


def test_an_unknown_protocol_names_the_known_ones():
    with pytest.raises(ConfigError, match=r"ftp.*known: file, https, s3"):
        locate("ftp://example.org/data")


@pytest.mark.parametrize("host", ["example.org", "10.0.0.7:8080", "[2001:db8::1]", "127.0.0.1.example.org"])
def test_plain_http_is_for_this_machine_alone(host):
    with pytest.raises(ConfigError, match=r"http://.*read and change the data; give the https:// address"):
        locate(f"http://{host}/data")


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:8080", "[::1]:8080"])
def test_a_server_on_this_machine_may_speak_plain_http(host):
    assert locate(f"http://{host}/data/").url == f"http://{host}/data"


def test_what_is_no_url_is_told():
    with pytest.raises(ConfigError, match=r"https://\[bad/data: is no URL"):
        locate("https://[bad/data")


def test_a_missing_client_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, "s3", raising=False)
    with pytest.raises(ConfigError, match=r'pip install "medcurate\[remote\]"'):
        locate("s3://bucket/data")


def test_a_profile_that_does_not_exist_is_named(monkeypatch):
    storage.reads_anonymously.cache_clear()
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(ConfigError, match=r"profile \(nobody\).*AWS_PROFILE"):
        locate("s3://bucket/corpus")


def test_a_proxy_that_is_not_there_is_named_and_no_profile(monkeypatch, tmp_path):
    storage.reads_anonymously.cache_clear()
    for name in (
        "AWS_ACCESS_KEY_ID",
        "AWS_PROFILE",
        "AWS_EC2_METADATA_DISABLED",
        "NO_PROXY",
        "no_proxy",
        "http_proxy",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("HTTP_PROXY", "http://name:hidden@127.0.0.1:9")
    with pytest.raises(ConfigError, match=r"proxy URL: .*127\.0\.0\.1:9.* Mend HTTP_PROXY") as caught:
        locate("s3://bucket/corpus")
    assert "AWS_PROFILE" not in str(caught.value)
    assert "hidden" not in str(caught.value)


def test_only_local_locations_have_a_path(folder):
    assert locate(folder).path == folder
    with pytest.raises(ConfigError, match="local folder"):
        _ = Location("s3://bucket/data").path


def test_no_message_tells_the_password_of_an_address(folder):
    with served(folder, broken_after=0) as server:
        secret = server.url.replace("://", "://me:hunter2@")
        for asked in (Location.exists, lambda file: file.size_bytes, lambda file: file.read_range(0, 1)):
            with pytest.raises(StorageError, match="cannot be read") as caught:
                asked(locate(secret).member("a.tar"))
            assert "hunter2" not in str(caught.value)
    with pytest.raises(ConfigError, match=r"https://example.org/data: this needs a local folder") as caught:
        locate("https://me:hunter2@example.org/data").path  # noqa: B018
    for address in (
        "http://me:hunter2@example.org",
        "ftp://me:hunter2@example.org",
        "https://me:hunter2@[bad",
        "https://me:hunter2@ex\u2100mple.org/d",
    ):
        with pytest.raises(ConfigError) as caught:
            locate(address)
        assert "hunter2" not in str(caught.value)
    assert str(locate("https://me:hunter2@example.org/a@b")) == "https://example.org/a@b"


def test_locations_travel_to_workers(folder):
    member = locate(folder).member("shards/a.tar")
    copy = pickle.loads(pickle.dumps(member))  # noqa: S301
    assert copy == member
    assert copy.read_range(0, 4) == CONTENT[:4]
