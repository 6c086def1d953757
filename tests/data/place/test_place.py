"""Where masks come to lie: on the object, in the legal region, with the shape of a real defect or of a made-up one."""

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from data.place.__main__ import main
from data.place.foreground import foreground, otsu
from data.place.moved import moved_mask
from data.place.procedural import noise, spot, stroke

DISC = np.hypot(*np.mgrid[-32:32, -36:28]) < 20


def photograph(seed=0, grain=6):
    """A bright disc on a dark ground with a lamp's gradient, and grain."""
    light = np.linspace(20, 50, 64)[None, :, None] + np.where(DISC, 120, 0)[..., None] * np.ones(3)
    return (light + np.random.default_rng(seed).normal(0, grain, (64, 64, 3))).clip(0, 255).astype(np.uint8)


def iou(a, b):
    return (a & b).sum() / (a | b).sum()


@pytest.mark.parametrize("seed", range(3))
def test_the_object_is_found_and_its_holes_filled(seed):
    image = photograph(seed)
    image[30:34, 32:36] = image[0, 0]
    found = foreground(image)
    assert iou(found, DISC) > 0.9 and found[32, 34] and ndimage.label(found)[1] == 1


def test_a_photograph_of_one_colour_has_no_object():
    with pytest.raises(ValueError, match="no object was found"):
        foreground(np.full((32, 32, 3), 90, np.uint8))


def test_otsu_lies_between_two_heaps():
    values = np.concatenate([np.full(900, 1.0), np.full(100, 5.0)])
    assert 1 < otsu(values) < 5


@pytest.mark.parametrize("seed", range(5))
def test_a_moved_mask_lies_inside_and_is_as_large_within_the_scale(seed):
    mask = np.zeros((90, 50), bool)  # of a photograph of another size
    mask[70:74, 10:22] = True
    made = moved_mask(mask, DISC, np.random.default_rng(seed))
    assert made.shape == DISC.shape and not (made & ~DISC).any()
    assert 0.4 * mask.sum() < made.sum() < 2.2 * mask.sum()


def test_what_has_no_room_is_refused():
    mask = np.ones((40, 40), bool)
    with pytest.raises(ValueError, match="a mask of 40x40 pixels finds no place where"):
        moved_mask(mask, DISC, np.random.default_rng(0))
    with pytest.raises(ValueError, match="an empty mask"):
        moved_mask(~mask, DISC, np.random.default_rng(0))
    with pytest.raises(ValueError, match="no pixel is allowed"):
        spot(np.zeros((8, 8), bool), np.random.default_rng(0))


@pytest.mark.parametrize("shape", [spot, stroke])
def test_made_up_masks_lie_inside_in_one_piece_and_differ(shape):
    made = [shape(DISC, np.random.default_rng(seed)) for seed in range(8)]
    for mask in made:
        assert mask.any() and not (mask & ~DISC).any()
    assert all(ndimage.label(mask, np.ones((3, 3)))[1] == 1 for mask in made if shape is spot)
    assert len({mask.tobytes() for mask in made}) == 8
    assert (shape(DISC, np.random.default_rng(3)) == made[3]).all()


def test_the_noise_falls_with_the_frequency():
    power = np.abs(np.fft.rfft2(noise((128, 128), np.random.default_rng(0), 1.5))) ** 2
    low, high = power[0, 2:6].mean(), power[0, 32:64].mean()
    assert 300 < low / high < 10000  # (44 / 3.6)^3 is 1800


@pytest.fixture
def folders(tmp_path):
    for name, image in (("good/7", photograph()), ("good/8", photograph(1))):
        (tmp_path / "good").mkdir(exist_ok=True)
        Image.fromarray(image).save(tmp_path / f"{name}.png")
    (tmp_path / "real").mkdir()
    mask = np.zeros((64, 64), np.uint8)
    mask[5:8, 5:12] = 255
    Image.fromarray(mask).save(tmp_path / "real" / "000_mask.png")
    Image.fromarray((np.indices((64, 64))[1] > 30).astype(np.uint8) * 255).save(tmp_path / "legal.png")
    return tmp_path


@pytest.mark.parametrize("kind", [["--from-masks", "real"], ["--shape", "stroke"], []])
def test_the_command_writes_masks_named_after_the_photographs(kind, folders, monkeypatch):
    monkeypatch.chdir(folders)
    assert main(["--good", "good", "--out", "a", "--count", "2", "--legal", "legal.png", *kind]) == 0
    assert main(["--good", "good", "--out", "b", "--count", "2", "--legal", "legal.png", *kind]) == 0
    names = sorted(path.name for path in (folders / "a").iterdir())
    assert names == ["7-0.png", "7-1.png", "8-0.png", "8-1.png"]
    for name in names:
        mask = np.asarray(Image.open(folders / "a" / name)) > 0
        assert mask.any() and not mask[:, :31].any()
        assert (folders / "a" / name).read_bytes() == (folders / "b" / name).read_bytes()


@pytest.mark.parametrize(
    ("flags", "fault"),
    [
        (["--from-masks", "good"], "good/7.png: a mask has one value per pixel"),
        (["--legal", "real"], "good/7.png: real/7.png: No such file"),
        (["--count", "0"], "--count and --scale must be at least 1"),
        (["--from-masks", "real", "--shape", "stroke"], "--shape has no effect"),
    ],
)
def test_a_fault_is_one_sentence(flags, fault, folders, monkeypatch, capsys):
    monkeypatch.chdir(folders)
    assert main(["--good", "good", "--out", "a", *flags]) == 2
    error = capsys.readouterr().err
    assert fault in error and error.count("\n") == 1
