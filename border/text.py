"""One way to read text: UTF-8 with or without a byte order mark, of a bounded size."""

import re
from pathlib import Path

TEXT_LIMIT = 200_000_000  # bytes; the largest text that is read is the metadata of a folder of images
LFS = b"version https://git-lfs"


def read_text(path: str | Path, limit: int = TEXT_LIMIT) -> str:
    """The text of a file, its line ends as they are. Prompts, captions, TOML, JSON and vocabularies are read by it.

    Raises ValueError for a Git LFS pointer, more than `limit` bytes, and for the first byte that is not UTF-8;
    OSError for a file that cannot be opened.
    """
    with open(path, "rb") as file:
        data = file.read(limit + 1)
    if (pointer := read_lfs_pointer(data)) is not None:
        raise ValueError(f"{path}: {pointer}")
    if len(data) > limit:
        raise ValueError(f"{path}: more than {limit:,} bytes, the limit for such a text")
    try:
        return data.decode("utf-8").removeprefix("\ufeff")  # Windows' editors begin a file with this mark
    except UnicodeDecodeError as error:
        guess = " (it may be UTF-16)" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else ""
        found = f"byte {error.start} is 0x{data[error.start]:02x}, which is not UTF-8{guess}"
        raise ValueError(f"{path}: {found}: save the file as UTF-8") from None


def in_words(error: OSError) -> str:
    """ "notes.txt: File exists", without the number of the error."""
    return f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error)


def read_lfs_pointer(head: bytes, what: str = "") -> str | None:
    """What is wrong with a file that begins with these bytes if it is a Git LFS pointer; None for any other file.

    Such a note of three lines stands in a clone for each large file that was not fetched. what: " of weights".
    """
    if not head.startswith(LFS):
        return None
    length = re.search(rb"size (\d{1,19})", head[:512])
    whole = f"the {int(length[1]):,} bytes" if length else "the file"
    return f"a Git LFS pointer of a few bytes, expected {whole}{what} that it stands for; run `git lfs pull`"
