"""Photographs of tiles, here drawn: which are of one tile, no tile in two parts, crops that the name decides."""

import numpy as np
import pytest
from PIL import Image

from data.place.moved import displaced, laid
from evidence.__main__ import main as claims
from evidence.claims.classifiers import magnetic_tile
from evidence.results import HOLDS, NEITHER
from evidence.tools.tiles import CUT, GAP, JITTER, SHIFT, SIDE, crops, few_shot, moved, read, split


def photograph(root, label, frame, exposure=1, size=(130, 110), dot=None):
    """A grey photograph of noise with a black dot of 12 pixels at `dot`, and its mask."""
    image = np.random.default_rng(frame).integers(100, 156, size).astype(np.uint8)
    mask = np.zeros(size, np.uint8)
    if dot:
        place = np.s_[dot[0] : dot[0] + 12, dot[1] : dot[1] + 12]
        image[place], mask[place] = 0, 255
    for kind, plane, end in (("images", image, "jpg"), ("masks", mask, "png")):
        (root / kind / label).mkdir(parents=True, exist_ok=True)
        Image.fromarray(plane).save(root / kind / label / f"exp{exposure}_num_{frame}.{end}")


@pytest.fixture
def folder(tmp_path):
    for i in range(8):
        for exposure in (1, 2):
            photograph(tmp_path, "crack", 10_000 * i + 20 * exposure, exposure, dot=(60, 50))
        photograph(tmp_path, "free", 10_000 * i + 500)
        photograph(tmp_path, "free", 10_000 * i + 5_000)
    return tmp_path


def test_photographs_near_each_other_are_of_one_tile(folder):
    photos = read(folder)
    assert len(photos) == 32 and len({p.tile for p in photos}) == 16
    assert all({p.label for p in photos if p.tile == 10_000 * i + 20} == {"crack", "free"} for i in range(8))
    assert all(
        later.tile - earlier.tile in (0, 4_980, 5_020) and 4_980 > GAP for earlier, later in zip(photos, photos[1:])
    )


def test_no_tile_is_in_two_parts_and_the_few_classes_are_halved(folder):
    parts = split(read(folder), ("crack",))
    tiles = {name: {p.tile for p in photos} for name, photos in parts.items()}
    assert not tiles["train"] & tiles["test"] and not tiles["val"] & (tiles["train"] | tiles["test"])
    assert sum(map(len, parts.values())) == 32
    assert [len({p.tile for p in parts[name] if p.label == "crack"}) for name in ("train", "val", "test")] == [4, 0, 4]


def test_few_photographs_are_taken_in_turn_from_the_tiles(folder):
    photos = read(folder)
    shown, others = few_shot(photos, "crack", 3, 4, seed=0)
    assert len(shown) == 4 and len({p.tile for p in shown}) == 3
    assert {p.tile for p in others} == {p.tile for p in photos if p.label == "crack"} - {p.tile for p in shown}
    assert shown != few_shot(photos, "crack", 3, 4, seed=1)[0]


def test_crops_hold_the_defect_and_depend_on_the_name_alone(folder):
    photo = next(p for p in read(folder) if p.label == "crack")
    made = crops(photo, 3)
    assert all(image.shape == mask.shape == (SIDE, SIDE) for image, mask in made)
    assert all(image[mask > 200].mean() < 40 < image[mask == 0].mean() for image, mask in made)
    assert JITTER + 12 < CUT // 2 and not (made[0][0] == made[1][0]).all()
    assert all((a == b).all() for one, two in zip(made, crops(photo, 3)) for a, b in zip(one, two))


def test_moved_defects_lie_on_defect_free_squares(folder):
    photos = read(folder)
    made = moved(photos[:2], [p for p in photos if p.label == "free"][:2], 4, np.random.default_rng(0))
    assert made.pixels.shape == (4, SIDE, SIDE) and made.pixels.dtype == np.uint8
    assert all(10 < (image < 60).sum() < 150 for image in made.pixels)  # 8 x 8 pixels, scaled, less what is cut off
    away, within = made.alpha == 0, made.alpha > 0.99
    assert (made.pixels[away] == made.ground[away]).all() and (made.ground[within] >= 60).all()
    assert (made.pixels[within] < 60).mean() > 0.3  # the mask is widened, so that more is laid


def test_a_displaced_defect_does_not_come_in_again_at_the_other_side():
    mask, rng = np.zeros((SIDE, SIDE), np.uint8), np.random.default_rng(0)
    mask[:10] = 255  # the upper border
    for _ in range(20):
        places = np.argwhere(displaced((mask, mask), rng, SHIFT)[1] > 64)
        assert not len(places) or np.ptp(places[:, 0]) < 50  # one strip, turned by 20 degrees at most


def test_the_share_of_a_square_that_is_laid_on_another():
    ones = np.ones((2, 2))
    assert (laid(200 * ones, 0.25 * ones, (100 * ones).astype(np.uint8)) == 125).all()
    assert (laid(900 * ones, ones, (100 * ones).astype(np.uint8)) == 255).all()


def test_a_name_without_a_frame(tmp_path):
    photograph(tmp_path, "crack", 1)
    (tmp_path / "images" / "crack" / "exp1_num_1.jpg").rename(tmp_path / "images" / "crack" / "one.jpg")
    with pytest.raises(ValueError, match="one.jpg: expected a name such as exp1_num_4727.jpg"):
        read(tmp_path)


def test_without_the_photographs_the_claim_is_left_out(tmp_path, capsys):
    claims(["--claim", "magnetic_tile", "--photographs", str(tmp_path / "nowhere"), "--out", str(tmp_path / "out")])
    assert "magnetic_tile: left out" in capsys.readouterr().out and not (tmp_path / "out" / "evidence.md").exists()


def test_the_result_says_what_the_numbers_say():
    real, moved_too = [[0.5, 0.5, 0.5, 0.5], [0.5, 0.5, 0.5, 0.7]], [[0.6] * 4, [0.5, 0.5, 0.5, 0.9]]
    runs = {
        "real": real,
        "real + altered": real,
        "real + moved": moved_too,
        "real + shuffled": real,
        "real + drawn again": [[0.7] * 4] * 2,
    }
    found = {"part": "test", "arms": runs, "images": {"test": {"crack": [15, 4]}}}
    statements, text = magnetic_tile.result(found)
    assert "| real | 0.525 (0.500 to 0.550) |  |" in text and "| +0.075 +- 0.318 |" in text
    assert "crack: 15 photographs of 4 tiles" in text
    against = {text.split("`")[1]: (found, numbers) for text, found, numbers in statements}
    assert against["real + moved"] == (HOLDS, "+0.100 +- 0.000")
    assert [name for name, (found, _) in against.items() if found == HOLDS] == ["real + moved"]
    assert against["real"][0] == NEITHER
