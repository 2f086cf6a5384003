"""Where files come from besides plain HTTPS: Hugging Face, S3, the clients of Kaggle and Synapse, people."""

from __future__ import annotations

import io
import json
import sys
import time
import zipfile
from pathlib import Path

import fsspec
import pytest
from download_kit import CONTENT, FAST, OTHER, behind, fetch, lab, names, self_signed, sha256
from fault_server import OK, Fault, fault_server

from medcurate.build.fetch import OFFLINE, Network, collect, ensure
from medcurate.download import clients, instructions, objects
from medcurate.download.clients import KAGGLE, SYNAPSE, arguments
from medcurate.download.hosts import Hosts
from medcurate.download.http import HttpFile
from medcurate.download.hub import HubFile
from medcurate.download.lockfile import LOCK_FILE
from medcurate.download.objects import ObjectFile
from medcurate.download.session import make_client
from medcurate.download.transfer import Transfer
from medcurate.download.types import DownloadError, NeedsRegistrationError, SourceChangedError, Wanted
from medcurate.errors import ConfigError, DataMissing, OutputError
from medcurate.storage import reads_anonymously

COMMIT = "c" * 40
SHA = sha256(CONTENT)


@pytest.fixture
def server():
    with fault_server() as state:
        yield state


@pytest.fixture(autouse=True)
def no_tokens(monkeypatch):
    reads_anonymously.cache_clear()
    for name in ("KAGGLE_API_TOKEN", "KAGGLE_USERNAME", "KAGGLE_KEY", "SYNAPSE_AUTH_TOKEN", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)


def error_of(tmp_path, *files, kind=DownloadError) -> str:
    (error,) = fetch(tmp_path, *files).errors
    assert type(error) is kind
    return str(error)


# --- Hugging Face ----------------------------------------------------------------------------------


@pytest.fixture
def hub(server, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    return server


def in_hub(server, content=CONTENT, script=(), *, stated=SHA, commit=COMMIT):
    """What a dataset repository answers: HEAD of the branch tells the commit, GET goes to the commit."""
    headers = {"X-Repo-Commit": commit, "X-Linked-Size": str(len(content)), "X-Linked-Etag": f'"{stated}"'}
    server.serve("/datasets/org/set/resolve/main/data/a.zip", b"", headers=headers)
    return server.serve(f"/datasets/org/set/resolve/{commit}/data/a.zip", content, script, headers=headers)


def hf(**facts):
    return {"path": "a.zip", "origin": {"huggingface": "org/set", "resource": "data/a.zip"} | facts}


def test_a_file_of_the_hub_is_of_the_commit_that_was_stated_and_resumed(tmp_path, hub):
    served = in_hub(hub, script=[Fault(cut_bytes=100_000), OK])
    done = fetch(tmp_path, hf())
    done.check()
    assert (tmp_path / "lab" / "a.zip").read_bytes() == CONTENT
    assert served.requests[1]["range"] == "bytes=100000-"
    assert json.loads((tmp_path / "lab" / LOCK_FILE).read_bytes())["a.zip"]["url"] == (
        "hf://datasets/org/set@main/data/a.zip"
    )


def test_the_digest_that_the_hub_states_is_checked(tmp_path, hub):
    in_hub(hub, content=OTHER)
    text = error_of(tmp_path, hf(), kind=SourceChangedError)
    assert f"expected sha256 {SHA} (stated by Hugging Face), got {sha256(OTHER)}" in text


def test_a_declared_revision_is_asked_for(tmp_path, hub):
    in_hub(hub, commit="d" * 40)
    assert "404" in error_of(tmp_path, hf(revision="e" * 40))
    fetch(tmp_path, hf(revision="d" * 40)).check()


@pytest.mark.parametrize(
    ("status", "code", "said"),
    [(403, "GatedRepo", "terms must be accepted"), (401, "RepoNotFound", "401"), (403, "", "403")],
)
def test_a_closed_repository_asks_for_a_person(tmp_path, hub, monkeypatch, status, code, said):
    from http.server import BaseHTTPRequestHandler

    send = BaseHTTPRequestHandler.send_response

    def refusing(handler, found, message=None):
        send(handler, status if handler.command == "HEAD" else found, message)
        if code:
            handler.send_header("X-Error-Code", code)

    in_hub(hub)
    monkeypatch.setattr(BaseHTTPRequestHandler, "send_response", refusing)
    text = error_of(tmp_path, hf(), kind=NeedsRegistrationError)
    assert said in text
    assert f"put file at {tmp_path}/lab/a.zip" in text


def test_the_hub_s_limit_says_how_long_to_wait(tmp_path, hub, monkeypatch):
    from http.server import BaseHTTPRequestHandler

    send, asked = BaseHTTPRequestHandler.send_response, []

    def busy(handler, found, message=None):
        asked.append(handler.command)
        send(handler, 429, message)
        handler.send_header("RateLimit", '"resolvers";r=0;t=240')

    in_hub(hub)
    monkeypatch.setattr(BaseHTTPRequestHandler, "send_response", busy)
    assert "it asks to wait 240 s" in error_of(tmp_path, hf())
    assert asked == ["HEAD"]


def test_an_endpoint_that_is_set_to_nothing_is_the_hub_s_own(monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "")
    with make_client(FAST) as client:
        assert HubFile(client=client, repository="org/set", resource="a").endpoint == "https://huggingface.co"


def test_a_hub_that_nobody_vouches_for_is_refused_at_once(tmp_path, monkeypatch):
    with fault_server(tls=self_signed(tmp_path)) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        started = time.monotonic()
        assert "its certificate cannot be verified: self-signed" in error_of(tmp_path, hf())
    assert time.monotonic() - started < FAST.patience_s


def test_who_set_the_hub_offline_is_told_and_not_kept_waiting(tmp_path, hub, monkeypatch):
    import huggingface_hub

    in_hub(hub)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    huggingface_hub.close_session()
    try:
        assert "HF_HUB_OFFLINE forbids it" in error_of(tmp_path, hf())
    finally:
        monkeypatch.undo()
        huggingface_hub.close_session()


def test_without_the_library_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert 'pip install "medcurate[hub]"' in error_of(tmp_path, hf(), kind=ConfigError)


def test_a_token_goes_to_its_own_host_only(tmp_path, server):
    """As from the hub to where its large files lie."""
    with fault_server() as other, make_client(FAST) as client:
        server.serve("/a", b"", [Fault(status=302, location=f"{other.url}/b")])
        served = other.serve("/b", CONTENT)
        file = HttpFile(client=client, address=f"{server.url}/a", headers={"Authorization": "Bearer secret"})
        with file.open(5, None) as answer:
            assert b"".join(answer.chunks) == CONTENT[5:]
        assert server.objects["/a"].requests[0]["authorization"] == "Bearer secret"
        assert "authorization" not in served.requests[0]


def test_a_password_in_an_address_is_sent_to_its_host_and_neither_recorded_nor_told(tmp_path, server):
    with fault_server() as other:
        secret = server.url.replace("//", "//us%40er:p%3Ass@")
        first = server.serve("/a.zip", CONTENT, [Fault(cut_bytes=100_000), OK])
        gone = server.serve("/b.zip", b"", [Fault(status=302, location=f"{other.url}/b")])
        elsewhere = other.serve("/b", b"", [Fault(status=401)])
        fetch(tmp_path, behind(f"{secret}/a.zip")).check()
        refused = error_of(tmp_path, behind(f"{secret}/b.zip", path="b.zip"), kind=NeedsRegistrationError)
    assert {each["authorization"] for each in (*first.requests, *gone.requests)} == {"Basic dXNAZXI6cDpzcw=="}
    assert "authorization" not in elsewhere.requests[0]
    recorded = b"".join(path.read_bytes() for path in tmp_path.rglob("*.json"))
    assert f"{server.url}/a.zip".encode() in recorded
    assert b"p%3Ass" not in recorded
    assert "p%3Ass" not in refused
    declared = lab(behind(f"{secret}/a.zip")).files[0]
    assert f"from: {server.url}/a.zip" in "\n".join(instructions.file_lines(declared, tmp_path))
    with pytest.raises(ConfigError, match=r"^ftp://a\.org/x: only https"):
        fetch(tmp_path, behind("ftp://us:p%3Ass@a.org/x"))
    with pytest.raises(ConfigError, match=r"^s3://bucket/x: a bucket takes no name and password"):
        fetch(tmp_path, behind("s3://us:p%3Ass@bucket/x"))


SIGNATURES = {
    "X-Amz-Credential=AKIA%2F20260101&X-Amz-Signature=5ecret&X-Amz-Expires=60": "",
    "AWSAccessKeyId=AKIA&Expires=1&Signature=5ecret%3D": "",
    "GoogleAccessId=me&x-goog-signature=5ecret": "",
    "sv=2024-01-01&sr=b&sig=5ecret%2F": "?sv=2024-01-01&sr=b",
    "format=original&key=5ecret": "?format=original",
    "access_token=5ecret&id=7": "?id=7",
    "accessToken=5ecret&id=7": "?id=7",
    "private_link=5ecret": "",
    "id=7&monkey=2": "?id=7&monkey=2",
}


@pytest.mark.parametrize("query", SIGNATURES)
def test_a_signature_in_an_address_is_sent_and_neither_recorded_nor_told(tmp_path, server, query):
    served = server.serve(f"/a.zip?{query}", CONTENT, [Fault(cut_bytes=100_000), OK])
    server.serve(f"/b.zip?{query}", b"", [Fault(status=403)])
    server.serve(f"/c.zip?{query}", CONTENT, [Fault(cut_bytes=100_000), Fault(status=404)])
    fetch(tmp_path, behind(f"{server.url}/a.zip?{query}")).check()
    told = error_of(
        tmp_path, behind(f"{server.url}/b.zip?{query}", path="b.zip"), kind=NeedsRegistrationError
    )
    told += error_of(tmp_path, behind(f"{server.url}/c.zip?{query}", path="c.zip"))
    declared = lab(behind(f"{server.url}/a.zip?{query}")).files[0]
    told += "\n".join(instructions.file_lines(declared, tmp_path))
    recorded = b"".join(path.read_bytes() for path in tmp_path.rglob("*.json")).decode()
    assert len(served.requests) == 2
    assert f'{server.url}/a.zip{SIGNATURES[query]}"' in recorded  # the file
    assert f'{server.url}/c.zip{SIGNATURES[query]}"' in recorded  # the part
    assert "5ecret" not in told + recorded


def test_a_part_is_continued_under_a_new_signature(tmp_path, server):
    served = server.serve("/a.zip", CONTENT, [Fault(cut_bytes=100_000), Fault(status=404), OK])
    error_of(tmp_path, behind(f"{server.url}/a.zip?sig=old"))
    fetch(tmp_path, behind(f"{server.url}/a.zip?sig=new")).check()
    assert served.requests[-1]["range"] == "bytes=100000-"


# --- S3 --------------------------------------------------------------------------------------------


@pytest.fixture
def bucket(server, monkeypatch):
    """A server that S3's client takes for an S3 endpoint: HEAD and GET of /bucket/key are the same there."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    monkeypatch.setattr(objects, "_BLOCK_BYTES", 1 << 16)
    return server


class Quiet:
    """Who hears nothing of a download."""

    expect = advance = record = staticmethod(lambda _: None)


def s3(**facts):
    return {"path": "a.zip", "origin": {"url": "s3://bucket/deep/a.zip"}, **facts}


@pytest.mark.parametrize("script", [[OK], [OK, Fault(status=503), OK], [OK, Fault(reset=True), OK]])
def test_an_object_is_read_by_ranges_and_resumed(tmp_path, bucket, script):
    served = bucket.serve("/bucket/deep/a.zip", CONTENT, script)
    fetch(tmp_path, s3(sha256=SHA)).check()
    assert (tmp_path / "lab" / "a.zip").read_bytes() == CONTENT
    assert names(tmp_path) == {"a.zip"}
    assert served.sent_bytes == len(CONTENT)
    assert "authorization" not in served.requests[0]


def test_an_object_that_is_replaced_between_blocks_is_not_mixed(tmp_path, bucket):
    from fault_server import Served

    served = bucket.serve("/bucket/deep/a.zip", CONTENT)
    served.swap, served.swap_after = Served(OTHER, etag='"2"'), 3
    text = error_of(tmp_path, s3(), kind=SourceChangedError)
    assert 'version "1"' in text
    assert 'version "2"' in text
    assert not (tmp_path / "lab" / "a.zip").exists()


def test_a_missing_object_is_told(tmp_path, bucket):
    assert "s3://bucket: no such object" in error_of(tmp_path, s3())


def test_a_folder_of_a_bucket_is_no_empty_file(tmp_path):
    store = fsspec.filesystem("memory")
    store.pipe("/bucket/deep/a.zip", CONTENT)
    wanted = Wanted(source="lab", target=tmp_path / "a.zip")
    transfer = Transfer(wanted, FAST, Hosts(FAST), Quiet())
    with pytest.raises(DownloadError, match="it is a folder, not a file"):
        transfer.run([ObjectFile(lambda: store, "memory://bucket/deep")])
    assert not list(tmp_path.iterdir())


def test_a_mirror_in_a_bucket_gives_what_the_first_place_lacks(tmp_path, bucket):
    bucket.serve("/bucket/deep/a.zip", CONTENT)
    origin = {"url": f"{bucket.url}/gone/a.zip", "mirrors": ["s3://bucket/deep/a.zip"]}
    fetch(tmp_path, {"path": "a.zip", "origin": origin, "sha256": SHA}).check()
    assert (tmp_path / "lab" / "a.zip").read_bytes() == CONTENT


def test_without_the_library_a_bucket_is_passed_over_and_alone_it_names_the_extra(
    tmp_path, server, monkeypatch
):
    monkeypatch.setitem(sys.modules, "botocore.session", None)
    server.serve("/a.zip", CONTENT)
    origin = {"url": "s3://bucket/deep/a.zip", "mirrors": [f"{server.url}/a.zip"]}
    fetch(tmp_path, {"path": "a.zip", "origin": origin}).check()
    assert 'pip install "medcurate[remote]"' in error_of(tmp_path, s3(path="b.zip"))


def test_a_profile_that_does_not_exist_is_named_and_a_mirror_gives_the_file(tmp_path, bucket, monkeypatch):
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    bucket.serve("/a.zip", CONTENT)
    assert "Mend AWS_PROFILE" in error_of(tmp_path, s3(path="b.zip"))
    origin = {"url": "s3://bucket/deep/a.zip", "mirrors": [f"{bucket.url}/a.zip"]}
    fetch(tmp_path, {"path": "a.zip", "origin": origin}).check()


def test_another_file_system_serves_as_well(tmp_path):
    """Any file system of fsspec with sizes and ranges; a part is continued where its tag stands."""
    store = fsspec.filesystem("memory")
    store.pipe("/bucket/a.zip", CONTENT)
    wanted = Wanted(source="lab", target=tmp_path / "a.zip", sha256=SHA)
    Transfer(wanted, FAST, Hosts(FAST), Quiet()).run([ObjectFile(lambda: store, "memory://bucket/a.zip")])
    assert wanted.target.read_bytes() == CONTENT


# --- Kaggle and Synapse ----------------------------------------------------------------------------


def test_what_the_clients_are_asked():
    def words(**origin):
        return arguments(lab({"path": "a.zip", "origin": origin}).files[0].origin, Path("/x"))

    assert words(kaggle="o/n", resource=".") == ["datasets", "download", "o/n", "-p", "/x", "-q"]
    assert words(kaggle="c", resource="t.zip") == [
        "competitions",
        "download",
        "c",
        "-f",
        "t.zip",
        "-p",
        "/x",
        "-q",
    ]
    assert words(synapse="syn12") == ["get", "syn12", "--downloadLocation", "/x", "--manifest", "suppress"]


@pytest.fixture
def stub(tmp_path, monkeypatch):
    """A client of our own in place of the official one: writes what the environment says into its folder."""
    place = tmp_path / "modules"
    place.mkdir()
    (place / "stub_client.py").write_text(
        "import os, sys, pathlib\n"
        "folder = pathlib.Path(sys.argv[sys.argv.index('-p') + 1])\n"
        "print('hello', sys.argv[1:])\n"
        "if os.environ['STUB'] == 'fail': sys.exit('403 - accept the rules first')\n"
        "(folder / 'n.zip').write_bytes(open(os.environ['STUB'], 'rb').read())\n"
    )
    (tmp_path / "content").write_bytes(CONTENT)
    monkeypatch.setenv("PYTHONPATH", str(place))
    monkeypatch.syspath_prepend(str(place))
    monkeypatch.setenv("STUB", str(tmp_path / "content"))
    monkeypatch.setenv("KAGGLE_API_TOKEN", "secret")
    changed = clients.Client(name="Kaggle", module="stub_client", extra="kaggle", tokens=KAGGLE.tokens)
    monkeypatch.setattr(clients, "KAGGLE", changed)


KAGGLED = {"path": "a.zip", "origin": {"kaggle": "o/n", "resource": "."}}


def test_a_client_fetches_and_its_file_is_checked(tmp_path, stub, monkeypatch, capfd):
    fetch(tmp_path, KAGGLED | {"sha256": SHA}).check()
    assert (tmp_path / "lab" / "a.zip").read_bytes() == CONTENT
    assert names(tmp_path) == {"a.zip"}
    assert "hello" not in capfd.readouterr().out
    (tmp_path / "content").write_bytes(OTHER)
    text = error_of(tmp_path, KAGGLED | {"path": "b.zip", "sha256": SHA}, kind=SourceChangedError)
    assert f"got {sha256(OTHER)}" in text
    assert names(tmp_path) == {"a.zip", "b.zip.bad"}


def test_a_file_that_kaggle_packs_is_not_taken_for_the_file(tmp_path, stub):
    one = {"kaggle": "o/n", "resource": "tables/n"}
    text = error_of(tmp_path, {"path": "n.csv", "origin": one})
    assert 'gives it packed, as n.zip. Declare it so in the source: path = "n.csv.zip"' in text
    assert names(tmp_path) == set()
    fetch(tmp_path, {"path": "n.csv.zip", "origin": one}).check()


def test_a_client_that_fails_is_quoted(tmp_path, stub, monkeypatch):
    monkeypatch.setenv("STUB", "fail")
    text = error_of(tmp_path, KAGGLED)
    assert "403 - accept the rules first" in text
    assert "secret" not in text


def test_a_client_s_file_that_cannot_be_written_stops_no_other(tmp_path, stub, server):
    server.serve("/b.zip", CONTENT)
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "x").write_bytes(b"a file, where a folder is needed")
    done = fetch(tmp_path, KAGGLED | {"path": "x/y/a.zip"}, behind(f"{server.url}/b.zip", path="b.zip"))
    assert [fetched.target.name for fetched in done.fetched] == ["b.zip"]
    (error,) = done.errors
    assert type(error) is OutputError
    assert f"{tmp_path}/lab/x is a file, where a folder is needed" in str(error)


def test_a_client_that_is_not_installed_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("SYNAPSE_AUTH_TOKEN", "secret")
    absent = clients.Client(name="Synapse", module="no_such_client", extra="synapse", tokens=SYNAPSE.tokens)
    monkeypatch.setattr(clients, "SYNAPSE", absent)
    file = {"path": "a.zip", "origin": {"synapse": "syn12"}}
    assert 'pip install "medcurate[synapse]"' in error_of(tmp_path, file, kind=ConfigError)


# --- people ----------------------------------------------------------------------------------------


def test_without_a_token_the_user_is_told_what_to_put_where(tmp_path):
    wanted = lab(
        {"path": "k.zip", "origin": {"kaggle": "o/n", "resource": "."}, "md5": "0" * 32},
        {"path": "s.zip", "origin": {"synapse": "syn12", "by_hand": "Join the challenge, then:"}},
        {"path": "h.zip", "origin": {"by_hand": "Sign the form."}, "unpack": {"into": "h"}, "size_bytes": 5},
    )
    with pytest.raises(DataMissing) as caught:
        ensure([wanted], tmp_path, {"lab": tmp_path}, Network())
    lines = str(caught.value).splitlines()
    folder = tmp_path / "lab"
    assert lines == [
        f'source "lab": files missing in {folder}: 3. They cannot be downloaded without you: put them there '
        "and run the same command again.",
        "  page: https://example.org/lab",
        f"  {folder}/k.zip",
        "    from: https://www.kaggle.com/datasets/o/n (the whole archive)",
        f"    size: not known; md5: {'0' * 32}",
        "    or: with KAGGLE_API_TOKEN or KAGGLE_USERNAME and KAGGLE_KEY set and pip install "
        '"medcurate[kaggle]" it is downloaded automatically',
        f"  {folder}/s.zip",
        "    from: Join the challenge, then: https://www.synapse.org/syn12",
        "    size: not known; sha256: not known",
        '    or: with SYNAPSE_AUTH_TOKEN set and pip install "medcurate[synapse]" it is downloaded automatically',
        f"  {folder}/h.zip  (or, instead of the archive, its content in {folder}/h)",
        "    from: Sign the form.",
        "    size: 5 bytes; sha256: not known",
    ]


@pytest.mark.parametrize(
    ("origin", "text"),
    [
        ({"huggingface": "o/n", "resource": "a"}, "https://huggingface.co/datasets/o/n (a)"),
        ({"kaggle": "c", "resource": "a"}, "https://www.kaggle.com/competitions/c (a)"),
        ({"package": "p", "resource": "a"}, "the package p (a)"),
        ({"generator": "ct-phantom"}, "generated by ct-phantom"),
        ({"url": "https://example.org/a"}, "https://example.org/a"),
    ],
)
def test_every_origin_has_words(origin, text):
    file = lab({"path": "a", "origin": origin}).files[0]
    assert instructions.origin_text(file.origin) == text


# --- a source as a whole ---------------------------------------------------------------------------


def zipped(**members: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"top/{name}.txt", content)
    return stream.getvalue()


ARCHIVE = zipped(a=b"one", b=b"two")


def source(server, **facts):
    rule = {"into": "set", "strip": 1}
    return lab({"path": "set.zip", "origin": {"url": f"{server.url}/set.zip"}, "unpack": rule} | facts)


def ready(wanted, tmp_path, network=None):
    (folder,) = ensure([wanted], tmp_path, {"lab": tmp_path}, network or Network())
    return {path.name: path.read_bytes() for path in (folder / "set").glob("*.txt")}


def test_an_archive_is_fetched_checked_and_unpacked_once(tmp_path, server):
    served = server.serve("/set.zip", ARCHIVE)
    wanted = source(server, sha256=sha256(ARCHIVE))
    expected = {"a.txt": b"one", "b.txt": b"two"}
    assert ready(wanted, tmp_path) == expected
    written = (tmp_path / "lab" / "set" / "a.txt").stat().st_mtime_ns
    assert ready(wanted, tmp_path, OFFLINE) == expected
    assert (tmp_path / "lab" / "set" / "a.txt").stat().st_mtime_ns == written
    (tmp_path / "lab" / "set.zip").unlink()  # to save room
    assert ready(wanted, tmp_path) == expected
    assert len(served.requests) == 1


def test_an_archive_that_came_damaged_may_come_again(tmp_path, server):
    """No digest is declared: what could not be unpacked is not what later copies are held to."""
    server.serve("/set.zip", ARCHIVE[:-30])
    with pytest.raises(ConfigError, match="remove it and run the same command again"):
        ready(source(server), tmp_path)
    (tmp_path / "lab" / "set.zip").unlink()
    server.serve("/set.zip", ARCHIVE, etag='"2"')
    assert ready(source(server), tmp_path) == {"a.txt": b"one", "b.txt": b"two"}
    assert json.loads((tmp_path / "lab" / LOCK_FILE).read_bytes())["set.zip"]["sha256"] == sha256(ARCHIVE)


def test_a_recorded_file_that_changed_says_how_to_let_it_in(tmp_path, server):
    server.serve("/a.zip", CONTENT)
    fetch(tmp_path, behind(f"{server.url}/a.zip")).check()
    (tmp_path / "lab" / "a.zip").unlink()
    server.serve("/a.zip", OTHER)
    text = error_of(tmp_path, behind(f"{server.url}/a.zip"), kind=SourceChangedError)
    assert f" in {tmp_path / 'lab' / LOCK_FILE})" in text
    assert "where the publisher confirms the new file, remove its entry from that record." in text


def test_what_came_over_the_network_is_not_hashed_again(tmp_path, server, monkeypatch):
    server.serve("/set.zip", ARCHIVE)
    monkeypatch.setattr("medcurate.build.stamps.file_digests", lambda *_, **__: pytest.fail("read again"))
    ready(source(server, sha256=sha256(ARCHIVE)), tmp_path)
    ready(source(server, sha256=sha256(ARCHIVE)), tmp_path)


def test_a_folder_placed_by_hand_stands_for_its_archive(tmp_path, server, capfd):
    served = server.serve("/set.zip", ARCHIVE)
    (tmp_path / "lab" / "set").mkdir(parents=True)
    (tmp_path / "lab" / "set" / "mine.txt").write_bytes(b"mine")
    assert ready(source(server, sha256="0" * 64), tmp_path) == {"mine.txt": b"mine"}
    assert not served.requests
    assert "by hand: source lab, folder set" in capfd.readouterr().err


def test_an_archive_that_is_read_in_place_is_fetched_again_when_it_is_gone(tmp_path, server):
    served = server.serve("/set.zip", ARCHIVE)
    wanted = source(server, unpack={"into": "set", "strip": 1, "in_place": True})
    ready(wanted, tmp_path)
    (tmp_path / "lab" / "set.zip").unlink()
    ready(wanted, tmp_path)
    assert (tmp_path / "lab" / "set.zip").read_bytes() == ARCHIVE
    assert len(served.requests) == 2


def test_parts_of_a_split_archive_are_not_fetched_for_a_folder_that_is_there(tmp_path, server):
    wanted = lab(
        {"path": "set.z01", "origin": {"url": f"{server.url}/set.z01"}},
        {
            "path": "set.zip",
            "origin": {"url": f"{server.url}/set.zip"},
            "unpack": {"into": "set", "parts": ["set.z01"]},
        },
    )
    (tmp_path / "lab" / "set").mkdir(parents=True)
    assert ready(wanted, tmp_path, OFFLINE) == {}


def test_offline_lists_everything_and_asks_nobody(tmp_path, server):
    served = server.serve("/set.zip", ARCHIVE)
    with pytest.raises(
        DataMissing, match=r"(?s)Nothing is downloaded by this command: .*set.zip .*\n    from: http"
    ):
        ready(source(server), tmp_path, OFFLINE)
    assert not served.requests


def test_nothing_is_fetched_for_a_build_that_waits_for_a_person(tmp_path, server):
    served = server.serve("/set.zip", ARCHIVE)
    hand = lab({"path": "h.zip", "origin": {"by_hand": "Sign."}}).model_copy(update={"id": "hand"})
    homes = {"lab": tmp_path, "hand": tmp_path}
    with pytest.raises(DataMissing):
        ensure([source(server), hand], tmp_path, homes, Network())
    assert not served.requests
    with pytest.raises(DataMissing, match="Sign"):
        collect([source(server), hand], tmp_path, homes, Network())
    assert (tmp_path / "lab" / "set" / "a.txt").exists()


@pytest.mark.parametrize("get", [collect, ensure])
def test_complete_sources_are_unpacked_though_an_archive_of_others_is_damaged(tmp_path, server, get):
    for name, content in (("a", ARCHIVE[:-30]), ("set", ARCHIVE), ("b", ARCHIVE[:-40])):
        server.serve(f"/{name}.zip", content)
    damaged = [
        source(server, path=f"{name}.zip", origin={"url": f"{server.url}/{name}.zip"}).model_copy(
            update={"id": name}
        )
        for name in "ab"
    ]
    with pytest.raises(ConfigError, match=r"(?s)/a/a\.zip: it has no end.*/b/b\.zip: it has no end"):
        get(
            [damaged[0], source(server), damaged[1]],
            tmp_path,
            dict.fromkeys(("a", "lab", "b"), tmp_path),
            Network(),
        )
    assert (tmp_path / "lab" / "set" / "a.txt").exists()


def test_complete_sources_are_unpacked_though_others_fail(tmp_path, server):
    server.serve("/set.zip", ARCHIVE)
    other = lab({"path": "a.zip", "origin": {"url": f"{server.url}/none"}}).model_copy(update={"id": "other"})
    with pytest.raises(DownloadError, match=r"a\.zip of other cannot be downloaded"):
        collect([other, source(server)], tmp_path, {"lab": tmp_path, "other": tmp_path}, Network())
    assert (tmp_path / "lab" / "set" / "a.txt").exists()
