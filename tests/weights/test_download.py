"""Downloads from a server in a thread that can be told to cut, lie and change its mind."""

import gzip
import hashlib
import json
import re
import shutil
import socket
import struct
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch

from weights.download import KeepLinked, download, fetch, main
from weights.formats import published


class Handler(BaseHTTPRequestHandler):
    """Serves server.content by the rules in server.says, and notes every request."""

    def log_message(self, *arguments):
        pass

    def do_GET(self):
        says, content = self.server.says, self.server.content
        self.server.seen.append(dict(self.headers))
        if self.path == "/missing":
            return self.send_error(404)
        if self.path == "/redirected":
            self.send_response(302)
            self.send_header("Location", "/there")
            for key, value in says.get("linked", {}).items():
                self.send_header(key, value)
            return self.end_headers()
        start, asked = 0, self.headers.get("Range")
        if asked and not says.get("cannot resume") and self.headers.get("If-Range") == says.get("ETag"):
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            if start >= len(content):
                return self.send_error(416)
        self.send_response(206 if start else 200)
        if start:
            shift = says.get("shift", 0)
            self.send_header("Content-Range", f"bytes {start + shift}-{len(content) - 1}/{len(content)}")
        for key in ("ETag", "Last-Modified", "x-amz-version-id"):
            if key in says:
                self.send_header(key, says[key])
        if not says.get("no length"):
            self.send_header("Content-Length", str(says.get("length", len(content)) - start))
        self.end_headers()
        self.wfile.write(content[start : says.get("cut", len(content))])
        if says.get("reset"):  # closes with an error instead of an end
            self.wfile.flush()
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
        return None


@pytest.fixture
def server(tmp_path):
    torch.save({"a": torch.arange(2000)}, tmp_path / "content")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.content, server.says, server.seen = (tmp_path / "content").read_bytes(), {"ETag": '"one"'}, []
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def left(path):
    return sorted(file.name for file in path.parent.glob("w*"))


def test_whole(server, tmp_path, capsys):
    path = tmp_path / "sub" / "w.pt"
    fetch(server.url + "/w", path)
    assert path.read_bytes() == server.content
    assert left(path) == ["w.pt"]
    assert "states no hash, so only the size was checked" in capsys.readouterr().out


def test_resume_after_a_cut(server, tmp_path):
    path = tmp_path / "w.pt"
    server.says["cut"] = 5000
    with pytest.raises(ValueError, match=r"the connection ended after 5,000 of [\d,]+ bytes; run the same command"):
        fetch(server.url + "/w", path)
    assert left(path) == ["w.pt.part", "w.pt.part.json"]
    del server.says["cut"]
    fetch(server.url + "/w", path)
    assert (server.seen[1]["Range"], server.seen[1]["If-Range"]) == ("bytes=5000-", '"one"')
    assert path.read_bytes() == server.content
    assert left(path) == ["w.pt"]


def test_a_broken_connection_can_be_resumed(server, tmp_path):
    server.says |= {"cut": 5000, "reset": True}
    with pytest.raises(ValueError, match=r"the connection (broke|ended) after [\d,]+ .*run the same command to go on"):
        fetch(server.url + "/w", tmp_path / "w.pt")
    server.says = {"ETag": '"one"'}
    fetch(server.url + "/w", tmp_path / "w.pt")
    assert (tmp_path / "w.pt").read_bytes() == server.content


def interrupted(server, path, **says):
    server.says |= {"cut": 5000} | says
    with pytest.raises(ValueError, match="the connection ended"):
        fetch(server.url + "/w", path)
    del server.says["cut"]


def test_a_file_that_changed_starts_again(server, tmp_path, capsys):
    interrupted(server, tmp_path / "w.pt")
    torch.save({"b": torch.arange(3000)}, tmp_path / "content")
    server.content, server.says["ETag"] = (tmp_path / "content").read_bytes(), '"two"'
    fetch(server.url + "/w", tmp_path / "w.pt")
    assert (tmp_path / "w.pt").read_bytes() == server.content
    assert "changed since the last try" in capsys.readouterr().out


def test_servers_that_cannot_resume(server, tmp_path):
    interrupted(server, tmp_path / "w.pt", **{"cannot resume": True})
    fetch(server.url + "/w", tmp_path / "w.pt")
    assert (tmp_path / "w.pt").read_bytes() == server.content


def test_a_weak_version_vouches_for_nothing(server, tmp_path):
    interrupted(server, tmp_path / "w.pt", ETag='W/"one"')
    fetch(server.url + "/w", tmp_path / "w.pt")
    assert "Range" not in server.seen[1]
    assert (tmp_path / "w.pt").read_bytes() == server.content


def test_a_part_of_another_url_is_not_resumed(server, tmp_path):
    interrupted(server, tmp_path / "w.pt")
    fetch(server.url + "/other", tmp_path / "w.pt")
    assert "Range" not in server.seen[1]


def test_a_part_that_is_too_long_starts_again(server, tmp_path):
    interrupted(server, tmp_path / "w.pt")
    with open(tmp_path / "w.pt.part", "ab") as file:
        file.write(bytes(len(server.content)))
    fetch(server.url + "/w", tmp_path / "w.pt")
    assert (tmp_path / "w.pt").read_bytes() == server.content


def test_a_server_that_answers_another_range(server, tmp_path):
    interrupted(server, tmp_path / "w.pt", shift=7)
    with pytest.raises(ValueError, match="asked for bytes from 5,000, found 'bytes 5007-"):
        fetch(server.url + "/w", tmp_path / "w.pt")


def test_wrong_size(server, tmp_path):
    size = len(server.content)
    server.says |= {"linked": {"X-Linked-Size": str(size - 10)}}
    with pytest.raises(ValueError, match=f"expected {size - 10:,} bytes, found {size:,}; the file was deleted"):
        fetch(server.url + "/redirected", tmp_path / "w.pt")
    assert left(tmp_path / "w.pt") == []


def test_no_size(server, tmp_path):
    server.says["no length"] = True
    fetch(server.url + "/w", tmp_path / "w.pt")
    assert (tmp_path / "w.pt").read_bytes() == server.content


def test_the_hash_of_a_redirect(server, tmp_path, capsys):
    digest = hashlib.sha256(server.content).hexdigest()
    server.says["linked"] = {"X-Linked-Etag": f'"{digest}"', "X-Linked-Size": str(len(server.content))}
    fetch(server.url + "/redirected", tmp_path / "w.pt")
    assert "no hash" not in capsys.readouterr().out
    server.content = server.content[:-1] + b"!"
    with pytest.raises(ValueError, match=f"expected sha256 {digest}, found [0-9a-f]+; the file was deleted"):
        fetch(server.url + "/redirected", tmp_path / "w2.pt")
    assert left(tmp_path / "w2.pt") == ["w.pt"]


def test_the_hash_of_an_object_store(server, tmp_path):
    server.says |= {"ETag": f'"{"0" * 32}"', "x-amz-version-id": "null"}
    with pytest.raises(ValueError, match=f"expected md5 {'0' * 32}, found"):
        fetch(server.url + "/w", tmp_path / "w.pt")
    server.says["ETag"] = f'"{hashlib.md5(server.content).hexdigest()}"'
    fetch(server.url + "/w", tmp_path / "w.pt")


def test_the_hash_in_a_file_name(server, tmp_path):
    with pytest.raises(ValueError, match="expected sha256 01234567, found"):
        fetch(server.url + "/vgg-01234567.pth", tmp_path / "w.pth")
    digest = hashlib.sha256(server.content).hexdigest()[:8]
    fetch(f"{server.url}/vgg-{digest}.pth", tmp_path / "w.pth")


def test_answers_that_are_no_file(server, tmp_path):
    with pytest.raises(ValueError, match="/missing: the server answered 404 Not Found"):
        fetch(server.url + "/missing", tmp_path / "w.pt")
    server.content = b"<html>please log in</html>"
    with pytest.raises(ValueError, match="a web page of 26 bytes"):
        fetch(server.url + "/w", tmp_path / "w.pt")
    assert left(tmp_path / "w.pt") == []
    with pytest.raises(ValueError, match="http://127.0.0.1:1/w: no answer"):
        fetch("http://127.0.0.1:1/w", tmp_path / "w.pt")


def test_the_tokenizer_comes_as_gzip(server, tmp_path):
    with pytest.raises(ValueError, match="expected a gzip file, found"):
        fetch(f"{server.url}/w", tmp_path / "w.gz")
    assert left(tmp_path / "w.gz") == []
    server.content = gzip.compress(b"a b\n")
    fetch(f"{server.url}/w", tmp_path / "w.gz")
    assert left(tmp_path / "w.gz") == ["w.gz"]


def test_a_disk_that_is_too_small(server, tmp_path):
    server.says["length"] = 10**17
    with pytest.raises(ValueError, match=r"expected 100,000,000,000,000,000 bytes of free disk, found [\d,]+$"):
        fetch(server.url + "/w", tmp_path / "w.pt")
    assert shutil.disk_usage(tmp_path).free < 10**17


def test_by_name(server, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(published.FILES, "vgg16", server.url + "/vgg16.pth")
    monkeypatch.setitem(published.SHA256, "vgg16", hashlib.sha256(server.content).hexdigest())
    main(["vgg16", "--to", str(tmp_path)])
    assert str(tmp_path / "vgg16.pth") in capsys.readouterr().out
    assert download("vgg16", tmp_path) == tmp_path / "vgg16.pth"
    assert len(server.seen) == 1
    monkeypatch.setitem(published.SHA256, "vgg16", "0" * 64)
    with pytest.raises(ValueError, match="expected sha256 0000.* the file was deleted"):
        download("vgg16", tmp_path / "again")
    with pytest.raises(ValueError, match="unknown name 'vgg17', the downloadable ones are DiT-XL-2-256x256"):
        download("vgg17", tmp_path)
    monkeypatch.setitem(published.FILES, "alexnet", server.url + "/missing")
    with pytest.raises(SystemExit):
        main(["alexnet", "--to", str(tmp_path)])
    assert "404" in capsys.readouterr().err


def test_a_part_without_its_note_starts_again(server, tmp_path):
    (tmp_path / "w.pt.part").write_bytes(b"something")
    fetch(server.url + "/w", tmp_path / "w.pt")
    assert (tmp_path / "w.pt").read_bytes() == server.content
    assert json.dumps(server.seen).count("Range") == 0


@pytest.mark.parametrize("url", ["http://example.org/w", "ftp://example.org/w", "file:///etc/passwd", "w"])
def test_only_https_is_spoken(tmp_path, url):
    with pytest.raises(ValueError, match="expected an https address"):
        fetch(url, tmp_path / "w.pt")


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ("https://example.org/w", "http://example.org/w"),
        ("https://example.org/w", "http://127.0.0.1/w"),
        ("https://example.org/w", "ftp://example.org/w"),
        ("http://127.0.0.1/w", "http://example.org/w"),
    ],
)
def test_a_redirect_does_not_leave_https(first, then):
    request = urllib.request.Request(first)
    with pytest.raises(ValueError, match=f"{then}: expected an https address"):
        KeepLinked().redirect_request(request, None, 302, "Found", {}, then)
    secure = KeepLinked().redirect_request(request, None, 302, "Found", {}, "https://example.org/v")
    assert secure.full_url == "https://example.org/v"


def test_every_known_hash_is_of_a_known_file():
    assert published.SHA256.keys() <= published.FILES.keys()
    for name, digest in published.SHA256.items():
        named = re.search(r"-([0-9a-f]{8})\.pth$", published.FILES[name])
        assert re.fullmatch("[0-9a-f]{64}", digest) and (named is None or digest.startswith(named[1]))


def test_a_note_that_was_cut_off_starts_again(server, tmp_path):
    (tmp_path / "w.pt.part").write_bytes(b"something")
    (tmp_path / "w.pt.part.json").write_text('{"url": "http')
    fetch(server.url + "/w", tmp_path / "w.pt")
    assert (tmp_path / "w.pt").read_bytes() == server.content
