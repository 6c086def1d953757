"""The reader of words: what counts as the logo's word, and words in real fonts where RapidOCR is installed."""

import sys

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from metrics.objects.reader import load_reader, spelled


def test_a_word_counts_in_capitals_or_not_and_with_zeros():
    words = [["HUGO"], ["HUG0"], ["hugo"], ["Hug0", "BOSS"], ["HUCO"], ["HUGOS"], ["HU", "GO"], []]
    assert spelled(words, "hugo").tolist() == [1, 1, 1, 1, 0, 0, 0, 0]
    assert spelled(words, "HUG0").tolist() == spelled(words, "hugo").tolist()


def test_without_rapidocr_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "rapidocr_onnxruntime", None)
    with pytest.raises(ValueError, match=r"needs RapidOCR: pip install -e \"\.\[reader\]\""):
        load_reader()


def plain(size):
    """The font that comes with Pillow, Aileron."""
    return ImageFont.load_default(size)


def bold(size):
    """The one that comes with Matplotlib, in bold."""
    font_manager = pytest.importorskip("matplotlib.font_manager")
    return ImageFont.truetype(font_manager.findfont("DejaVu Sans:bold"), size)


def printed(word, font, side):
    """A word in black on a red box, (side, side, 3)."""
    image = Image.new("RGB", (side, side), (150, 150, 160))
    draw = ImageDraw.Draw(image)
    left, top, right, bottom = draw.textbbox((side / 2, side / 2), word, font, anchor="mm")
    rim = side / 20
    draw.rectangle((left - rim, top - rim, right + rim, bottom + rim), (204, 13, 18))
    draw.text((side / 2, side / 2), word, (8, 8, 8), font, anchor="mm")
    return np.array(image)


@pytest.mark.parametrize("font", [plain, bold])
@pytest.mark.parametrize("side", [64, 128])
def test_words_in_real_fonts_are_read(font, side):
    pytest.importorskip("rapidocr_onnxruntime")
    words = ("HUGO", "HUG0", "hugo", "HUCO", "OGUH", "")
    read = load_reader()(np.stack([printed(word, font(side // 4), side) for word in words]))
    assert spelled(read, "hugo").tolist() == [1, 1, 1, 0, 0, 0]
    assert read[3:] == [["HUCO"], ["OGUH"], []]  # what it cannot know it reads as it stands
