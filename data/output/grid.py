"""Images in one picture: a grid whose columns are classes and whose rows are samples; grids beside each other; PNG."""

import io
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from data.output.about import png_text
from data.output.atomic import write_atomic

PAPER, INK = (255, 255, 255), (20, 20, 20)
GAP, TEXT, TITLE = 4, 14, 20  # pixels


def grid(
    columns: Mapping[str, Sequence[np.ndarray]], rows: Sequence[str] | None = None, min_side: int = 128
) -> Image.Image:
    """{class name: its (H, W, 3) uint8 images} -> one column for each class; `rows` are labels left of the rows.

    All images are enlarged by one whole factor, by repeating pixels, until the largest side reaches `min_side` pixels:
    64 pixels are visible and none is invented. A column may be shorter than the others: its cells stay empty.

    Raises ValueError for no image, images of another type or shape, and another number of row labels than rows.
    """
    if not columns or not any(len(column) for column in columns.values()):
        raise ValueError("a grid needs at least one image")
    for name, column in columns.items():
        for image in column:
            if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
                raise ValueError(f"column {name!r}: expected uint8 (H, W, 3); found {image.dtype} {image.shape}")
    count = max(len(column) for column in columns.values())
    if rows is not None and len(rows) != count:
        raise ValueError(f"{len(rows)} row labels for {count} rows")
    height = max(image.shape[0] for column in columns.values() for image in column)
    width = max(image.shape[1] for column in columns.values() for image in column)
    factor = max(1, math.ceil(min_side / max(height, width)))
    height, width = height * factor, width * factor
    font = ImageFont.load_default(size=TEXT)
    names = [_wrap(name, font, width) for name in columns]
    widths = [max(width, _text_size(name, font)[0]) for name in names]
    left = 0 if rows is None else max(_text_size(row, font)[0] for row in rows) + 2 * GAP
    top = max(_text_size(name, font)[1] for name in names) + 2 * GAP
    size = (left + sum(widths) + GAP * (len(widths) + 1), top + count * (height + GAP))
    picture = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(picture)
    x = left + GAP
    for name, cell, column in zip(names, widths, columns.values(), strict=True):
        draw.multiline_text((x + cell / 2, top - GAP), name, INK, font, anchor="md", align="center")
        for i, image in enumerate(column):
            big = np.kron(image, np.ones((factor, factor, 1), np.uint8))
            at = (x + (cell - big.shape[1]) // 2, top + i * (height + GAP) + (height - big.shape[0]) // 2)
            picture.paste(Image.fromarray(big), at)
        x += cell + GAP
    for i, row in enumerate(rows or ()):
        draw.text((left - GAP, top + i * (height + GAP) + height / 2), row, INK, font, anchor="rm")
    return picture


def sections(parts: Mapping[str, Image.Image], beside: bool = True) -> Image.Image:
    """{title: grid}, such as "images", "before", "after" -> one picture, side by side, or stacked if not `beside`.

    Raises ValueError for no grid.
    """
    if not parts:
        raise ValueError("no sections to draw")
    font = ImageFont.load_default(size=TITLE)
    margin, head = 4 * GAP, TITLE + 4 * GAP
    cells = [
        (max(part.width, math.ceil(_text_size(title, font)[0])), part.height + head) for title, part in parts.items()
    ]
    wide, high = [cell[0] for cell in cells], [cell[1] for cell in cells]
    between = margin * (len(cells) - 1)
    inner = (sum(wide) + between, max(high)) if beside else (max(wide), sum(high) + between)
    picture = Image.new("RGB", (inner[0] + 2 * margin, inner[1] + 2 * margin), PAPER)
    draw = ImageDraw.Draw(picture)
    x = y = margin
    for (title, part), (width, height) in zip(parts.items(), cells, strict=True):
        draw.text((x, y), title, INK, font)
        picture.paste(part, (x, y + head))
        x, y = (x + width + margin, y) if beside else (x, y + height + margin)
    return picture


def save_image(path: str | Path, image: Image.Image | np.ndarray, about: dict | None = None) -> None:
    """Write a PNG whole or not at all. image: Pillow's, or (H, W, 3) or (H, W) uint8. about: see about.py.

    Raises ValueError for a suffix other than .png and an array of another type.
    """
    if Path(path).suffix.lower() != ".png":
        raise ValueError(f"{path}: images are written as .png")
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8:
            raise ValueError(f"{path}: an image has values of type uint8; found {image.dtype}")
        image = Image.fromarray(image)
    content = io.BytesIO()
    image.save(content, format="PNG", pnginfo=png_text(about) if about else None)
    write_atomic(path, content.getvalue())


def _wrap(name: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """A class name with line breaks after / _ - or a space where a line would be wider than its column."""
    lines = [""]
    for word in re.findall(r"[^/_\- ]*[/_\- ]?", name):
        if lines[-1] and _text_size(lines[-1] + word, font)[0] > width:
            lines.append("")
        lines[-1] += word
    return "\n".join(line.rstrip() for line in lines)


def _text_size(text: str, font: ImageFont.FreeTypeFont) -> tuple[int, int]:
    """(width, height) in pixels of one or more lines."""
    left, _, right, bottom = ImageDraw.Draw(Image.new("RGB", (1, 1))).multiline_textbbox((0, 0), text, font=font)
    return math.ceil(right - left), math.ceil(bottom)
