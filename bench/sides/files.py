"""Files of full size for the commands of a row: python -m bench.sides.files dit|sd FOLDER SIZE, SIZE as JSON."""

import json
import sys
from pathlib import Path

import torch

import weights
from bench.sides.ours import new_dit, new_sd, new_vae
from data.generated.photographs import image
from data.output.grid import save_image
from dit import SIZES
from weights.models.save import export


def dit(folder: Path, size: dict) -> None:
    """A DiT as it was published, an autoencoder as a diffusers folder, images of two classes."""
    published = {"depth": SIZES[size["model"]]["depth"]}  # --depth would make it a model that no file has
    torch.save(new_dit(size | published).state_dict(), folder / "dit.pt")
    export(new_vae(size), folder / "vae", "vae-diffusers")
    for i, state in enumerate(["good", "crack"] * 2):
        pixels, _, _ = image("hazelnut", state, "few", i, size=size["side"] // 2)
        save_image(folder / "images" / state / f"{i}.png", pixels)


def sd(folder: Path, size: dict) -> None:
    """A Stable Diffusion as a diffusers folder in float16, and one image."""
    weights.save_sd(new_sd(size), folder / "sd", "sd-diffusers", torch.float16)
    save_image(folder / "images" / "hazelnut" / "0.png", image("hazelnut", "good", "few", 0, size=size["side"])[0])


if __name__ == "__main__":
    {"dit": dit, "sd": sd}[sys.argv[1]](Path(sys.argv[2]), json.loads(sys.argv[3]))
