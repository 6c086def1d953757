"""The page for who has good parts and a few defective ones: its commands, in order, in their short form."""

import re
import shlex
from pathlib import Path

import numpy as np
from PIL import Image

import sample
import train
from data import load
from data.__main__ import main as inspect
from data.output.grid import save_image
from data.place.__main__ import main as place
from data.transforms import Transform
from evidence.pairs_picture import main as picture

PAGE = Path(__file__).parents[2] / "docs" / "defects.md"
SHORT = {
    "train.py": "--steps 2 --batch 2 --sample-steps 2 --count 1 --cache= --adapter lora:rank=2".split(),
    "sample.py": "--count 3 --steps 2 --least 0".split(),
}
MAINS = {"train.py": train.main, "sample.py": sample.main, "data": inspect, "data.place": place}


def test_the_pages_commands_run_in_order_and_leave_pairs(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    images = load("generated:bottle/few/3", Transform(16))
    for label, state in ((0, "train/good"), (1, "test/crack")):
        assert images.classes[label].endswith(state.split("/")[1]), images.classes
        for i, row in enumerate(np.flatnonzero(images.labels.numpy() == label)):
            save_image(Path("parts/nut", state, f"{i}.png"), images.pixels[row])
            mask = np.zeros((16, 16), np.uint8)
            mask[6:9, 6:10] = 255
            if label:
                save_image(Path("parts/nut/ground_truth/crack", f"{i}_mask.png"), mask)
    commands = re.findall(r"^python .*$", "\n".join(re.findall(r"```bash\n(.*?)```", PAGE.read_text(), re.S)), re.M)
    assert len(commands) == 5
    for command in commands:
        words = shlex.split(command)[1:]
        name, words = (words[1], words[2:]) if words[0] == "-m" else (words[0], words[1:])
        if name == "train.py":
            words += ["--model", str(tiny / "dit.safetensors"), "--vae", str(tiny / "vae.safetensors")]
        assert not MAINS[name]([*words, *SHORT.get(name, [])]), command
    assert "3 images, 3 masks" in capsys.readouterr().out
    picture(["--pairs", "pairs", "--count", "2", "--side", "32", "--out", "shown.png"])
    assert Image.open("shown.png").width > 64
