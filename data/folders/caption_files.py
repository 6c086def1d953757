"""Files that hold captions: metadata.jsonl, metadata.csv, and the text file beside an image.

A caption is UTF-8 text (a byte order mark is skipped), neither empty nor longer than MAX_CHARACTERS.
"""

import csv
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from border import read_text
from data.folders.tree import first_few

TEXT_COLUMNS = ("text", "caption", "prompt")
MAX_CHARACTERS = 10_000  # a text encoder reads 77 tokens: a text this long is another file
NUMBER = re.compile(r"[-+.0-9eE]*")
NO_TEXT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")  # control characters and halves of characters


def read_metadata(file: Path, images: list[Path]) -> dict[Path, str]:
    """{image: caption} of a Hugging Face imagefolder's metadata; file names are relative to the metadata's folder.

    Raises ValueError unless the rows name each of `images` once and nothing else, and one column is the caption.
    """
    rows = list((_jsonl if file.suffix == ".jsonl" else _csv)(file))
    column = _text_column(file, [row for _, row in rows])
    by_name = {path.relative_to(file.parent).as_posix(): path for path in images}
    captions, line_of, unknown, twice = {}, {}, [], []
    for line, row in rows:
        name = str(row.get("file_name"))
        path = by_name.get(PurePosixPath(name).as_posix())
        if path is None:
            unknown.append(f"{name[:100]!r} (line {line})")
        elif path in captions:
            twice.append(f"{name} (lines {line_of[path]} and {line})")
        else:
            captions[path], line_of[path] = checked(row.get(column), f"{file}, line {line}, {column}"), line
    unnamed = [name for name, path in by_name.items() if path not in captions]
    for fault, names in (
        ("names that are no image in its folder", unknown),
        ("images named twice", twice),
        ("images that no row names", unnamed),
    ):
        if names:
            raise ValueError(f"{file}: {fault}, {first_few(names)}")
    return captions


def _jsonl(file: Path) -> Iterator[tuple[int, dict]]:
    """(line number, row) of each line that is not blank."""
    for number, line in enumerate(read_text(file).split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{file}, line {number}: not JSON ({error})") from None
        if not isinstance(row, dict):
            raise ValueError(f'{file}, line {number}: not an object such as {{"file_name": "1.png", "text": "a dog"}}')
        yield number, row


def _csv(file: Path) -> Iterator[tuple[int, dict]]:
    """(number of the row's last line, row) of each row."""
    reader = csv.reader(io.StringIO(read_text(file), newline=""), strict=True)
    try:
        head = next(reader, [])
        if len(set(head)) < len(head):
            raise ValueError(f"{file}: two columns have one name in {', '.join(head)}")
        for row in reader:
            if row and len(row) != len(head):
                raise ValueError(
                    f"{file}, line {reader.line_num}: {len(row)} fields, but the head has {len(head)} "
                    f"(a text with commas stands in quotes)"
                )
            if row:
                yield reader.line_num, dict(zip(head, row))
    except csv.Error as error:
        raise ValueError(f"{file}, line {reader.line_num}: {error}") from None


def _text_column(file: Path, rows: list[dict]) -> str:
    """The column of captions: text, caption or prompt, else the one other column of strings that are not numbers."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    if "file_name" not in columns:
        raise ValueError(f"{file}: no column file_name; found {', '.join(columns) or 'no row'}")
    fitting = [name for name in TEXT_COLUMNS if name in columns] or [
        name
        for name in columns
        if not name.endswith("file_name")
        and all(isinstance(row.get(name), str) for row in rows)
        and not all(NUMBER.fullmatch(row[name]) for row in rows)
    ]
    if len(fitting) != 1:
        fault = f"several columns could be the caption: {', '.join(fitting)}" if fitting else "no column of captions"
        raise ValueError(f"{file}: {fault} (of {', '.join(columns)}); name one of them text and remove the others")
    return fitting[0]


def read_sidecar(file: Path) -> tuple[str, bool]:
    """(caption, whether more lines follow). The caption is the first line alone, as kohya's sd-scripts read it.

    Raises ValueError for a file that is too large, not UTF-8, or begins with no caption.
    """
    size = file.stat().st_size
    if size > 4 * MAX_CHARACTERS:  # UTF-8 takes at most 4 bytes for a character
        raise ValueError(f"{file}: {size} bytes; a caption has at most {MAX_CHARACTERS} characters")
    text = io.StringIO(read_text(file), newline=None).read()  # every line end becomes \n
    first, _, rest = text.partition("\n")
    return checked(first, f"{file}, first line"), bool(rest.strip())


def checked(text: object, where: str) -> str:
    """The caption without spaces at its ends. ValueError, which begins with `where`, if it is no text, empty, too long
    or not printable."""
    if not isinstance(text, str):
        raise ValueError(f"{where}: a caption is text, found {'nothing' if text is None else type(text).__name__}")
    text = text.strip()
    if not text:
        raise ValueError(f"{where}: the caption is empty")
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f"{where}: {len(text)} characters; a caption has at most {MAX_CHARACTERS}")
    if (match := NO_TEXT.search(text)) is not None:
        raise ValueError(f"{where}: character {match.start()} is {match[0]!r}, which no text holds")
    return text
