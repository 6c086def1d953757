"""python -m weights.download NAME [--to FOLDER]: fetch published weights, resume, and check what arrived.

    NAME.part        the bytes so far; becomes NAME in one step when size and hash are right
    NAME.part.json   the version (ETag or date) that they belong to: a changed file starts again from zero

Only https is spoken, redirects included. The size is checked against the server's. The hash is checked against the
SHA-256 in weights/formats/published.py, else the digits in torch's own file names, else the server's, a SHA-256
(Hugging Face) or an MD5 (Amazon S3, for files sent in one part). Without any, a line says so.
"""

import argparse
import contextlib
import hashlib
import http.client
import json
import re
import shutil
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from tqdm import tqdm

from border import in_words, read_json
from data.output.atomic import replacing
from weights.formats.files import sniff
from weights.formats.published import FILES, SHA256, target

LOCAL = ("127.0.0.1", "localhost", "::1")  # hosts that are this machine
CHUNK = 1 << 20  # bytes read at a time
TIMEOUT = 60  # seconds without a byte


class KeepLinked(urllib.request.HTTPRedirectHandler):
    """Follows redirects and keeps size and hash, which Hugging Face sends only with the redirect."""

    def __init__(self):
        self.linked = {}

    def redirect_request(self, *args: object) -> urllib.request.Request | None:
        headers, url = args[4:]  # of (request, response, code, message, headers, url)
        check_address(url, local=args[0].host.startswith(LOCAL))
        self.linked |= {key.lower(): value for key, value in headers.items() if key.lower().startswith("x-linked-")}
        return super().redirect_request(*args)


def download(name: str, folder: str | Path | None = None) -> Path:
    """Fetch a file of weights/formats/published.py into `folder`, by default the user's cache, unless it is there."""
    if name not in FILES:
        raise ValueError(f"unknown name {name!r}, the downloadable ones are {', '.join(FILES)}")
    path = target(name, folder)
    if not path.exists():
        fetch(FILES[name], path, SHA256.get(name))
    return path


def check_address(url: str, local: bool = True) -> None:
    """ValueError for an address that is not https; http to this machine itself is let through if `local`."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme != "https" and not (local and parts.scheme == "http" and (parts.hostname or "") in LOCAL):
        raise ValueError(f"{url}: expected an https address, also where a server redirects to")


def fetch(url: str, path: Path, sha256: str | None = None) -> None:
    """Download `url` to `path`, resuming what an earlier call left. Raises ValueError with url and numbers.

    sha256: of the whole file, in hex digits, where it is known.

    A cut connection leaves the part, from which the next call goes on; a wrong hash deletes it.
    """
    check_address(url)
    part, note = path.with_name(path.name + ".part"), path.with_name(path.name + ".part.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    response, linked, done = open_at(url, part, note)
    with response:
        size, digest = size_and_hash(response, linked, done)
        version = response.headers.get("ETag") or response.headers.get("Last-Modified")
        free = shutil.disk_usage(path.parent).free
        if size is not None and size - done > free:
            raise ValueError(f"{path}: expected {size - done:,} bytes of free disk, found {free:,}")
        with replacing(note) as file:
            file.write(json.dumps({"url": url, "version": version}).encode())
        receive(response, part, done, size, path.name)
    got = part.stat().st_size
    if size is not None and got < size:
        raise ValueError(f"{url}: the connection ended after {got:,} of {size:,} bytes; run the same command to go on")
    if size is not None and got > size:
        discard(part, note)
        raise ValueError(f"{url}: expected {size:,} bytes, found {got:,}; the file was deleted")
    check_hash(url, part, note, digest, sha256)
    part.replace(path)
    note.unlink()


def open_at(url: str, part: Path, note: Path) -> tuple[http.client.HTTPResponse, dict[str, str], int]:
    """Request the missing bytes; returns (response, the redirect's headers, bytes already there)."""
    there = part.stat().st_size if part.exists() and note.exists() else 0
    kept = read_note(note) if there else {}
    # a weak ETag may name other bytes, so it cannot vouch for the part that is there
    version = kept.get("version") if kept.get("url") == url else None
    headers = {"User-Agent": "graft", "Accept-Encoding": "identity"}
    if there and version and not version.startswith("W/"):
        headers |= {"Range": f"bytes={there}-", "If-Range": version}
    keep = KeepLinked()
    try:
        response = urllib.request.build_opener(keep).open(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416 and "Range" in headers:  # the part is already as long as the file, or longer
            discard(part, note)
            return open_at(url, part, note)
        raise ValueError(f"{url}: the server answered {error.code} {error.reason}") from None
    except OSError as error:
        raise ValueError(f"{url}: no answer: {error}") from None
    start = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    resumed = response.status == 206 and start is not None and int(start[1]) == there
    if response.status == 206 and not resumed:
        raise ValueError(f"{url}: asked for bytes from {there:,}, found {response.headers.get('Content-Range')!r}")
    if there and not resumed:
        print(f"{url}: changed since the last try, or its server cannot resume; starting again")
    return response, keep.linked, there if resumed else 0


def read_note(note: Path) -> dict:
    """The url and version that a part belongs to; {} for a note that was cut off or is none."""
    with contextlib.suppress(ValueError):
        return {key: value for key, value in read_json(note, 100_000).items() if isinstance(value, str)}
    return {}


def size_and_hash(
    response: http.client.HTTPResponse, linked: dict[str, str], done: int
) -> tuple[int | None, str | None]:
    """(size of the whole file, its hash as hex digits), each None where the server sends none."""
    length = response.headers.get("Content-Length")
    size = done + int(length) if length and length.isdigit() else None
    if linked.get("x-linked-size", "").isdigit():
        size = int(linked["x-linked-size"])
    sha256 = re.fullmatch(r'"?([0-9a-f]{64})"?', linked.get("x-linked-etag", ""))
    md5 = re.fullmatch(r'"([0-9a-f]{32})"', response.headers.get("ETag", ""))  # with a dash it is a hash of hashes
    amazon = any(key.lower().startswith("x-amz-") for key in response.headers)  # elsewhere 32 digits may be anything
    digest = sha256 or (md5 if amazon else None)
    return size, digest[1] if digest else None


def receive(response: http.client.HTTPResponse, part: Path, done: int, size: int | None, label: str) -> None:
    """Append the response's bytes to the part. Raises ValueError when the connection breaks."""
    with (
        open(part, "ab" if done else "wb") as file,
        tqdm(total=size, initial=done, unit="B", unit_scale=True, unit_divisor=1024, desc=label) as bar,
    ):
        try:
            while block := response.read1(CHUNK):
                file.write(block)
                bar.update(len(block))
        except (OSError, http.client.HTTPException) as error:
            got = f"the connection broke after {file.tell():,} bytes ({error})"
            raise ValueError(f"{response.url}: {got}; run the same command to go on") from None


def check_hash(url: str, part: Path, note: Path, digest: str | None, sha256: str | None = None) -> None:
    """Delete the part and raise ValueError if its hash is not `sha256`, else that of the file's name or the server."""
    named = re.search(r"-([0-9a-f]{8})\.pth$", url)
    digest = sha256 or (named[1] if named else digest)
    if digest is None:
        print(f"{url}: its server states no hash, so only the size was checked")
        digest = ""
    kind = "md5" if len(digest) == 32 else "sha256"
    with open(part, "rb") as file:
        found = hashlib.file_digest(file, kind).hexdigest()
    if not found.startswith(digest):
        discard(part, note)
        raise ValueError(f"{url}: expected {kind} {digest}, found {found}; the file was deleted, fetch it again")
    try:
        check_content(part)
    except ValueError:
        discard(part, note)
        raise


def check_content(part: Path) -> None:
    """Raise ValueError unless the bytes are weights, or gzip where the name ends in .gz."""
    if ".gz" not in part.suffixes:
        sniff(part)
    elif part.read_bytes()[:2] != b"\x1f\x8b":
        raise ValueError(f"{part}: expected a gzip file, found {part.stat().st_size:,} other bytes; fetch it again")


def discard(part: Path, note: Path) -> None:
    part.unlink(missing_ok=True)
    note.unlink(missing_ok=True)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m weights.download", description=__doc__.partition("\n")[0])
    parser.add_argument("name", choices=FILES, metavar="NAME", help=", ".join(FILES))
    parser.add_argument("--to", metavar="FOLDER", help="where to put it, the user's cache by default")
    given = parser.parse_args(arguments)
    try:
        print(download(given.name, given.to))
    except ValueError as error:
        parser.exit(2, f"{error}\n")
    except OSError as error:
        parser.exit(2, f"{in_words(error)}\n")


if __name__ == "__main__":
    main()
