import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from data.folders.layouts import Item
from data.images import MAX_PIXELS, decode, decode_all, decode_mask, image_format, looks_like_mask, read_image


def png(width, height, depth, colour, pixels):
    """A PNG written by hand: what Pillow cannot write (16-bit colour), or a size that its data does not fill."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\0" + pixels)) + chunk(b"IEND", b"")


def save(path, pixels, mode=None, **options):
    image = Image.fromarray(np.asarray(pixels))
    (image.convert(mode) if mode else image).save(path, **options)
    return path


NOISE = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)


@pytest.mark.parametrize("suffix", ["png", "bmp", "webp"])
def test_lossless_formats_come_back_exactly(tmp_path, suffix):
    path = save(tmp_path / f"a.{suffix}", NOISE, **({"lossless": True} if suffix == "webp" else {}))
    assert (decode(path) == NOISE).all() and decode(path).dtype == np.uint8


def test_exif_rotation_is_applied_before_conversion(tmp_path):
    upright = np.zeros((8, 16, 3), np.uint8)
    upright[:, :8] = (255, 0, 0)
    exif = Image.Exif()
    exif[0x0112] = 6  # stored turned: a viewer turns it clockwise by 90 degrees
    for mode in ("RGB", "L", "CMYK"):
        path = save(tmp_path / f"{mode}.jpg", np.rot90(upright).copy(), mode, exif=exif, quality=95)
        image, facts = read_image(path)
        assert image.shape == (8, 16, 3) and facts.size == (8, 16) and facts.mode == mode
        assert image[:, :8, 0].mean() > image[:, 8:, 0].mean() + 50


def test_alpha_is_laid_over_the_stated_colour(tmp_path):
    rgba = np.zeros((2, 3, 4), np.uint8)
    rgba[..., :3], rgba[0, :, 3], rgba[1, 0, 3] = 100, 255, 128
    path = save(tmp_path / "a.png", rgba)
    assert (decode(path)[0] == 100).all() and (decode(path)[1, 1:] == 255).all()
    assert abs(int(decode(path)[1, 0, 0]) - 177) <= 1  # half of 100, half of white
    assert (decode(path, background=(0, 7, 0))[1, 1] == (0, 7, 0)).all()
    grey_alpha = save(tmp_path / "la.png", rgba, "LA")
    assert (decode(grey_alpha)[0] == 100).all() and (decode(grey_alpha)[1, 1] == 255).all()


def test_palette_with_and_without_a_transparent_entry(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpalette([200, 0, 0, 0, 0, 200])
    image.putpixel((1, 0), 1)
    image.save(tmp_path / "p.png")
    image.save(tmp_path / "t.png", transparency=1)
    assert decode(tmp_path / "p.png").tolist() == [[[200, 0, 0], [0, 0, 200]]]
    assert decode(tmp_path / "t.png").tolist() == [[[200, 0, 0], [255, 255, 255]]]


def test_cmyk_one_bit_and_grey_become_rgb(tmp_path):
    cmyk = save(tmp_path / "c.jpg", np.full((8, 8, 3), (200, 40, 40), np.uint8), "CMYK", quality=95)
    assert np.abs(decode(cmyk).astype(int) - (200, 40, 40)).max() < 12
    bits = save(tmp_path / "b.png", np.array([[0, 255]], np.uint8), "1")
    assert decode(bits).tolist() == [[[0] * 3, [255] * 3]]
    assert decode(save(tmp_path / "l.png", NOISE[..., 0])).shape == (6, 8, 3)


def test_16_bits_are_scaled_and_never_saturate_to_white(tmp_path):
    values = np.array([[0, 257, 4095, 32768, 65535]], np.uint16)
    path = save(tmp_path / "a.png", values)
    assert decode(path)[0, :, 0].tolist() == [0, 1, 16, 128, 255]
    (tmp_path / "rgb.png").write_bytes(png(1, 1, 16, 2, struct.pack(">3H", 0, 4096, 65535)))
    (tmp_path / "la.png").write_bytes(png(2, 1, 16, 4, struct.pack(">4H", 0x4000, 65535, 0x4000, 0)))
    assert decode(tmp_path / "rgb.png").tolist() == [[[0, 16, 255]]]
    assert decode(tmp_path / "la.png").tolist() == [[[64] * 3, [255] * 3]]


def test_the_first_frame_of_an_animation_is_taken(tmp_path):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ((255, 0, 0), (0, 0, 255))]
    for name in ("a.webp", "a.png"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], lossless=True)
        image, facts = read_image(tmp_path / name)
        assert (image == (255, 0, 0)).all() and facts.frames == 2


def test_the_format_is_decided_by_content(tmp_path):
    save(tmp_path / "a.jpg", NOISE)
    (tmp_path / "a.jpg").rename(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png")[1].format == "JPEG"
    Image.fromarray(NOISE).save(tmp_path / "c.jpg", "MPO", save_all=True, append_images=[Image.fromarray(NOISE)])
    assert read_image(tmp_path / "c.jpg")[0].shape == NOISE.shape  # a camera's JPEG with a preview behind it
    Image.fromarray(NOISE).save(tmp_path / "b.gif")
    (tmp_path / "b.gif").rename(tmp_path / "b.png")
    with pytest.raises(ValueError, match=r"b.png: a GIF file, not PNG, JPEG, WebP, BMP or TIFF"):
        decode(tmp_path / "b.png")


@pytest.mark.parametrize(
    "head, name",
    [
        (b"\x89PNG\r\n\x1a\n....", "PNG"),
        (b"\xff\xd8\xff\xe0", "JPEG"),
        (b"RIFF....WEBP", "WEBP"),
        (b"BM", "BMP"),
        (b"RIFF....WAVE", None),
        (b"GIF89a", None),
        (b"", None),
    ],
)
def test_signatures(head, name):
    assert image_format(head) == name


def test_broken_files_are_named(tmp_path):
    whole = save(tmp_path / "whole.png", NOISE).read_bytes()
    (tmp_path / "half.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.png").write_text("hello, world")
    (tmp_path / "folder.png").mkdir()
    big = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    big.save(tmp_path / "half.jpg")
    (tmp_path / "half.jpg").write_bytes((tmp_path / "half.jpg").read_bytes()[:1500])
    reasons = {
        "half.png": "cannot be decoded",
        "half.jpg": "cannot be decoded",
        "empty.png": r"the file is empty \(0 bytes\)",
        "text.png": "content is not",
        "folder.png": "not a regular file",
        "gone.png": "No such file",
    }
    for name, reason in reasons.items():
        with pytest.raises(ValueError, match=reason) as error:
            decode(tmp_path / name)
        assert name in str(error.value)


@pytest.mark.parametrize("side", [7_100, 10_000, 30_000])  # above our limit, above Pillow's warning, above its error
def test_a_bomb_is_an_error_before_it_is_decoded(tmp_path, side):
    assert side * side > MAX_PIXELS
    (tmp_path / "bomb.png").write_bytes(png(side, side, 1, 0, b""))
    with pytest.raises(ValueError, match=r"bomb.png: more than 50000000 pixels"):
        decode(tmp_path / "bomb.png")


def test_a_tiff_whose_strips_do_not_cover_it_is_refused(tmp_path):
    """Pillow makes black of what they leave out: a photograph that is half there, or millions of pixels of nothing."""
    path = tmp_path / "cut.tif"
    Image.fromarray(np.full((11, 13), 200, np.uint8)).save(path)
    content, height = path.read_bytes(), struct.pack("<HHII", 257, 4, 1, 11)
    if height not in content:  # Pillow writes the height as SHORT or LONG
        height = struct.pack("<HHIHH", 257, 3, 1, 11, 0)
    assert content.count(height) == 1
    path.write_bytes(content.replace(height, struct.pack("<HHII", 257, 4, 1, 2_000_011)))
    with pytest.raises(ValueError, match=r"cut.tif: cannot be decoded \(its parts hold 143 of 13x2000011 pixels\)"):
        decode(path)


def test_decode_all_names_every_bad_file_in_one_error(tmp_path):
    good = save(tmp_path / "good.png", NOISE)
    images = decode_all([Item(good, "crack"), good], transform=lambda image: image[:2])
    assert len(images) == 2 and images[0].shape == (2, 8, 3)
    (tmp_path / "a.png").write_bytes(b"")
    (tmp_path / "b.png").write_text("no")

    def refuse(image):
        raise ValueError("too small")

    with pytest.raises(ValueError, match="2 of 3 images cannot be used") as error:
        decode_all([tmp_path / "a.png", good, tmp_path / "b.png"])
    assert "a.png" in str(error.value) and "b.png" in str(error.value) and "good.png" not in str(error.value)
    with pytest.raises(ValueError, match=r"good.png: too small"):
        decode_all([good], transform=refuse)


def test_masks_keep_their_values(tmp_path):
    indices = np.array([[0, 1, 2], [7, 254, 255]], np.uint8)
    for mode in (None, "LA", "RGB", "RGBA"):
        mask = decode_mask(save(tmp_path / "m.png", indices, mode))
        assert (mask == indices).all() and mask.dtype == np.uint8
    palette = Image.fromarray(indices[:1])
    palette.putpalette([0, 0, 0, 9, 9, 9, 200, 30, 30])
    palette.save(tmp_path / "p.png")
    assert decode_mask(tmp_path / "p.png").tolist() == [[0, 1, 2]]
    assert decode_mask(save(tmp_path / "1.png", np.array([[0, 255]], np.uint8), "1")).tolist() == [[0, 1]]
    assert decode_mask(save(tmp_path / "16.png", np.array([[0, 200]], np.uint16))).tolist() == [[0, 200]]


def test_masks_without_one_value_per_pixel_are_refused(tmp_path):
    with pytest.raises(ValueError, match="channels that differ"):
        decode_mask(save(tmp_path / "rgb.png", NOISE))
    with pytest.raises(ValueError, match="transparency"):
        decode_mask(save(tmp_path / "a.png", np.full((2, 2, 4), 9, np.uint8)))
    with pytest.raises(ValueError, match="found 300"):
        decode_mask(save(tmp_path / "16.png", np.array([[0, 300]], np.uint16)))


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_deflate"])
def test_tiff_of_8_and_16_bits(tmp_path, compression):
    assert (decode(save(tmp_path / "rgb.tif", NOISE, compression=compression)) == NOISE).all()
    deep = np.array([[0, 32768, 65535]], np.uint16)
    assert decode(save(tmp_path / "grey.tiff", deep, compression=compression))[0, :, 0].tolist() == [0, 128, 255]
    assert decode_mask(save(tmp_path / "m.tif", np.array([[0, 2]], np.uint8))).tolist() == [[0, 2]]
    save(tmp_path / "inverted.tif", deep, tiffinfo={262: 0})  # 0 is white
    assert decode(tmp_path / "inverted.tif")[0, :, 0].tolist() == [255, 127, 0]
    with pytest.raises(ValueError, match=r"f.tif: .*floating-point numbers"):
        decode(save(tmp_path / "f.tif", np.ones((2, 2), np.float32)))
    with pytest.raises(ValueError, match=r"i.tif: .*from 0 to 70000, expected 8 or 16 bits"):
        decode(save(tmp_path / "i.tif", np.array([[0, 70000]], np.int32)))


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"\0\0\0\x18ftypheic", "a HEIC file"),
        (b"\0\0\0\x18ftypavif", "a AVIF file"),
        (b"8BPS\0\1", "a Photoshop file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12345\n", "expected the 12,345 bytes"),
    ],
)
def test_a_file_of_another_kind_is_named(tmp_path, head, name):
    (tmp_path / "a.jpg").write_bytes(head + b"\0" * 20)
    with pytest.raises(ValueError, match=rf"a.jpg: .*{name}"):
        decode(tmp_path / "a.jpg")


def test_what_looks_like_a_mask():
    mask = np.zeros((300, 500), np.uint8)
    mask[50:200, 100:300] = 7
    assert looks_like_mask(np.repeat(mask[..., None], 3, 2))
    assert looks_like_mask(np.repeat((mask > 0)[..., None] * np.uint8(255), 3, 2))
    assert not looks_like_mask(NOISE)
    assert not looks_like_mask(np.repeat(np.linspace(0, 255, 400, dtype=np.uint8)[None, :, None], 3, 2).repeat(300, 0))


def test_no_reader_but_the_five_is_asked(tmp_path):
    """Pillow asks one reader after the other. One that would take any file stands before all others here."""
    asked = []

    def reader(file, name):
        asked.append(name)
        raise SyntaxError

    save(tmp_path / "a.png", NOISE)
    Image.init()
    Image.register_open("ODD", reader, lambda prefix: True)
    Image.ID.insert(0, Image.ID.pop())
    try:
        decode(tmp_path / "a.png")
    finally:
        Image.ID.remove("ODD"), Image.OPEN.pop("ODD")
    assert not asked
