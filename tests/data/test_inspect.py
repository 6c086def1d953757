import runpy
import sys

import numpy as np
import pytest
from PIL import Image

from data.__main__ import main


def picture(path, size=(4, 4), mode="RGB", **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size).save(path, **options)


def test_a_good_folder_prints_classes_sizes_and_modes(tmp_path, capsys):
    picture(tmp_path / "crack" / "a.png", (10, 20))
    picture(tmp_path / "hole" / "b.jpg", (30, 5), "L")
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "hole" / "c.webp", save_all=True, append_images=frames[1:])
    assert main(["--inspect", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert out.startswith("classes: 2 classes, 3 images, 0 masks")
    assert "sizes: 8..30 wide, 5..20 high" in out and "1 JPEG L, 1 PNG RGB, 1 WEBP RGB" in out
    assert "1 animated images" in out and out.endswith("0 bad files\n")


def test_bad_files_are_listed_with_status_2(tmp_path, capsys):
    picture(tmp_path / "nut" / "train" / "good" / "000.png")
    picture(tmp_path / "nut" / "test" / "crack" / "000.png")
    picture(tmp_path / "nut" / "ground_truth" / "crack" / "000_mask.png", (5, 4), "L")
    (tmp_path / "nut" / "test" / "crack" / "001.png").write_bytes(b"")
    assert main(["--inspect", str(tmp_path)]) == 2
    out = capsys.readouterr().out
    assert "2 bad files:" in out and "001.png: the file" in out
    assert "000_mask.png: the mask is 5x4, its image 4x4" in out


def test_nothing_but_bad_files_and_an_unknown_layout(tmp_path, capsys):
    (tmp_path / "crack").mkdir()
    (tmp_path / "crack" / "a.png").write_text("no image")
    assert main(["--inspect", str(tmp_path)]) == 2 and "sizes" not in capsys.readouterr().out
    (tmp_path / "hole").mkdir()
    assert main(["--inspect", str(tmp_path)]) == 2 and "holds no image" in capsys.readouterr().err


def test_the_command_is_python_dash_m_data(tmp_path, monkeypatch, capsys):
    species = "00001_Animalia_Chordata_Aves_Accipitriformes_Accipitridae_Aquila_chrysaetos"
    (tmp_path / species).mkdir()
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / species / "a.png")
    monkeypatch.setattr(sys, "argv", ["data", "--inspect", str(tmp_path), "--rank", "order"])
    monkeypatch.delitem(sys.modules, "data.__main__")
    with pytest.raises(SystemExit) as done:
        runpy.run_module("data", run_name="__main__")
    assert done.value.code == 0 and "1 superclasses: Accipitriformes" in capsys.readouterr().out
