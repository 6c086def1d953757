"""File -> uint8 RGB array: upright, opaque, 8 bits, of a bounded size. An error is one sentence with the file's name.

The order matters: EXIF orientation comes before any conversion, which would drop the tag. 16 bits are scaled by
255/65535; Pillow's own conversion of a 16-bit grey image clips at 255, which is white. Alpha is laid over a background
colour. Pillow's PNG, JPEG, WebP, BMP and TIFF readers alone are used, chosen by the content and not by the suffix.
"""

import stat
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from PIL import Image, ImageOps

from border import read_lfs_pointer

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
# formats that are not read: where their signature begins, and what they are called
OTHERS = {
    b"ftypheic": (4, "HEIC"),
    b"ftypheix": (4, "HEIC"),
    b"ftypmif1": (4, "HEIF"),
    b"ftypavif": (4, "AVIF"),
    b"GIF8": (0, "GIF"),
    b"8BPS": (0, "Photoshop"),
    b"\0\0\0\x0cjP": (0, "JPEG 2000"),
    b"\xff\x0a": (0, "JPEG XL"),
    b"<svg": (0, "SVG"),
}
MAX_PIXELS = 50_000_000
MASK_COLOURS = 16  # a mask of classes has a few
WHITE_IS_ZERO = 262  # the TIFF tag that says, with 0, that 0 is white; Pillow heeds it at 8 bits alone
WHITE = (255, 255, 255)
EIGHT_BITS = ((np.arange(65536) + 128) // 257).astype(np.uint8)  # of 16: value * 255 / 65535, rounded


class Facts(NamedTuple):
    """A file before conversion: Pillow's format and mode, (width, height) in pixels, number of frames."""

    format: str
    mode: str
    size: tuple[int, int]
    frames: int


def image_format(head: bytes) -> str | None:
    """Name of the allowed format whose signature begins `head` (12 bytes are enough), or None."""
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return "TIFF"
    return "BMP" if head.startswith(b"BM") else None


def describe_other(head: bytes) -> str:
    """ "a HEIC file, not ..." of the first bytes (512 are enough) of a file that no reader here takes."""
    if (pointer := read_lfs_pointer(head)) is not None:
        return pointer
    name = next((name for sign, (at, name) in OTHERS.items() if head[at : at + len(sign)] == sign), None)
    readable = "not PNG, JPEG, WebP, BMP or TIFF"
    return f"a {name} file, {readable}: convert it" if name else f"its content is {readable}, whatever the suffix says"


def looks_like_mask(image: np.ndarray) -> bool:
    """Whether (H, W, 3) uint8 looks like a mask, at most MASK_COLOURS colours or black and white as JPEG keeps them."""
    height, width = image.shape[:2]
    few = image[:: -(-height // 256), :: -(-width // 256)].astype(np.int32)  # every n-th pixel, so no colour is new
    if len(np.unique(few[..., 0] << 16 | few[..., 1] << 8 | few[..., 2])) <= MASK_COLOURS:
        return True
    grey, spread = few.mean(2), np.ptp(few, 2)
    return bool((spread <= 8).all() and ((grey <= 16) | (grey >= 239)).mean() >= 0.99)


def decode(path: str | Path, background: tuple[int, int, int] = WHITE) -> np.ndarray:
    """Image file -> (H, W, 3) uint8 RGB, alpha laid over `background`, the first frame of an animated file.

    Raises ValueError naming the file if it is empty, truncated, not PNG/JPEG/WebP/BMP/TIFF or above MAX_PIXELS.
    """
    return read_image(path, background)[0]


def read_image(path: str | Path, background: tuple[int, int, int] = WHITE) -> tuple[np.ndarray, Facts]:
    """The image of `decode`, and the facts of its file before conversion. ValueError as from `decode`."""
    image, facts = _open(Path(path))
    return _to_rgb(image, background), facts


def decode_all(items: Iterable, transform: Callable[[np.ndarray], np.ndarray] | None = None) -> list[np.ndarray]:
    """All images in order, each decoded once: a list of (H, W, 3) uint8. One ValueError names all the bad files.

    An item is a path or has a `.path`. `transform` runs right after decoding, so that memory holds the transformed
    images only. A ValueError of it (a crop larger than the image) makes a bad file too.
    """
    images, bad, count = [], [], 0
    for item in items:
        path = Path(getattr(item, "path", item))
        count += 1
        try:
            image = decode(path)
        except ValueError as error:
            bad.append(str(error))
            continue
        try:
            images.append(image if transform is None else transform(image))
        except ValueError as error:
            bad.append(f"{path}: {error}")
    refuse(bad, count)
    return images


def refuse(bad: list[str], count: int) -> None:
    """One ValueError that names all the bad files among `count` images, if there is any."""
    if bad:
        raise ValueError(f"{len(bad)} of {count} images cannot be used:\n  " + "\n  ".join(bad))


def decode_mask(path: str | Path) -> np.ndarray:
    """Mask file -> (H, W) uint8, upright like its image. Values stay: 0/255 is 0/255, class and palette indices are
    indices, 1 bit becomes 0/1.

    Raises ValueError as `decode` does, and for a mask whose colour channels differ or whose values exceed 255.
    """
    image, facts = _open(Path(path))
    values = np.array(image)
    if values.ndim == 3:  # a grey mask that was saved as LA, RGB or RGBA
        if image.mode in ("LA", "RGBA"):
            if (values[..., -1] != 255).any():
                raise ValueError(f"{path}: a mask with transparency has no defined value; found mode {facts.mode}")
            values = values[..., :-1]
        if (values != values[..., :1]).any():
            raise ValueError(f"{path}: a mask has one value per pixel; found {facts.mode} with channels that differ")
        values = values[..., 0]
    if values.max() > 255:
        raise ValueError(f"{path}: mask values must fit 0..255; found {values.max()} in mode {facts.mode}")
    return values.astype(np.uint8)


def _open(path: Path) -> tuple[Image.Image, Facts]:
    """A fully decoded, upright Pillow image in its stored mode."""
    try:
        status = path.stat()
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror or error}") from error
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(f"{path}: not a regular file")
    if status.st_size == 0:
        raise ValueError(f"{path}: the file is empty (0 bytes)")
    with path.open("rb") as file:
        head = file.read(512)
        if image_format(head) is None:
            raise ValueError(f"{path}: {describe_other(head)}")
        file.seek(0)
        return _decode(file, path)


def _decode(file: BinaryIO, path: Path) -> tuple[Image.Image, Facts]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)  # the limit is an error here
            with Image.open(file, formats=FORMATS) as image:
                width, height = image.size  # from the header: nothing is decoded yet
                if width * height > MAX_PIXELS:
                    raise Image.DecompressionBombError(f"{width}x{height}")
                check_whole(image)
                facts = Facts(image.format, image.mode, image.size, getattr(image, "n_frames", 1))
                check_range(image)
                inverted = (
                    image.format == "TIFF" and image.mode.startswith("I") and image.tag_v2.get(WHITE_IS_ZERO) == 0
                )
                image = ImageOps.exif_transpose(image)
                return Image.fromarray(65535 - np.array(image, np.uint16)) if inverted else image, facts
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(f"{path}: more than {MAX_PIXELS} pixels ({error})") from error
    except Exception as error:  # Pillow's readers raise a dozen kinds on hostile bytes; the user needs the file's name
        raise ValueError(f"{path}: cannot be decoded ({error or type(error).__name__})") from error


def check_whole(image: Image.Image) -> None:
    """ValueError for strips or tiles that leave a part of the image out; Pillow makes that part black."""
    (width, height), areas = image.size, [(box[2] - box[0]) * (box[3] - box[1]) for _, box, *_ in image.tile]
    if areas and sum(areas) < width * height:  # a WebP has none
        raise ValueError(f"its parts hold {sum(areas)} of {width}x{height} pixels")


def check_range(image: Image.Image) -> None:
    """ValueError for numbers without a known white: floating point, and whole numbers beyond 0..65535."""
    if image.mode == "F":
        raise ValueError(
            "its pixels are floating-point numbers, of which nothing says which is white: save 8 or 16 bits"
        )
    if image.mode.startswith("I") and not 0 <= np.min(image) <= np.max(image) <= 65535:
        raise ValueError(f"its pixels go from {np.min(image)} to {np.max(image)}, expected 8 or 16 bits")


def _to_rgb(image: Image.Image, background: tuple[int, int, int]) -> np.ndarray:
    if image.mode.startswith("I"):  # 16-bit grey, whichever byte order; older Pillow widens it to 32 bits
        grey = EIGHT_BITS[np.asarray(image)]  # (H, W)
        return np.repeat(grey[..., None], 3, axis=2)  # (H, W, 3)
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (*background, 255)), image)
    return np.array(image.convert("RGB"))  # (H, W, 3)
