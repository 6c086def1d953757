"""What a PNG says about itself: JSON in its text chunk `graft`, beside the pixels and without a change of them."""

import json
from pathlib import Path

from PIL import Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

KEY = "graft"
LIMIT = 1_000_000  # characters


def png_text(about: dict) -> PngInfo:
    """The chunk for Pillow's save."""
    info = PngInfo()
    info.add_itxt(KEY, json.dumps(about, ensure_ascii=False))
    return info


def read_about(path: str | Path) -> dict:
    """What the PNG says about itself; {} for an image of another origin. ValueError for a file that is no PNG."""
    try:
        with Image.open(path, formats=("PNG",)) as image:
            text = str(image.info.get(KEY, "{}"))
    except (OSError, UnidentifiedImageError, ValueError, SyntaxError) as error:
        raise ValueError(f"{path}: not a PNG that can be read ({error})") from None
    try:
        about = json.loads(text) if len(text) <= LIMIT else {}
    except (ValueError, RecursionError):
        about = {}
    return about if isinstance(about, dict) else {}
