"""Eight kinds of run for the trials of kills: every recipe that leaves something, every kind of file that is left."""

import shlex
from pathlib import Path

import numpy as np
from PIL import Image

from tests.tiny import write_dit, write_sd

COMMON = "--steps 6 --batch 2 --save-every 2 --sample-every 3 --precision fp32 --warmup 2 --out run"
LATENT = f"{COMMON} --count 1 --cache cache"
DIT = f"{LATENT} --model {{made}}/dit.safetensors --vae {{made}}/vae.safetensors --data generated:hazelnut/few/1"
SD = f"{LATENT} --model {{made}}/sd --sample-steps 2 --size 16 --flips none --rotations 0"
CAPTIONED = f"{SD} --data generated:hazelnut/few/1"
TUNED = f"{DIT} --sample-steps 2 --measure 0 --adapter lora:rank=2"  # the DiT that the others go on from
VARIANTS = {
    "class rows and LoRA": f"{DIT} --sample-steps 2 --adapter lora:rank=2 --val generated:hazelnut/val/1 --measure 1 "
    "--keep best --count 2",
    "all weights, with their average": f"{DIT} --sample-steps 2 --adapter full --ema 0.9 --measure 0",
    "ControlNet": f"{DIT} --recipe control --sample-steps 2 --init {{made}}/run/adapter.safetensors",
    "LoRA of UNet and text encoder": f"{CAPTIONED} --recipe text --adapter lora:rank=2 --adapter text.lora:rank=2",
    "DreamBooth": f"{CAPTIONED} --recipe dreambooth --adapter unet.full --class-images 3 --class-prompt 'a photo of a "
    "hazelnut'",
    "Textual Inversion": f"{SD} --recipe textual_inversion --data {{made}}/photos --template 'a photo of a <thing>' "
    "--token <thing> --token-init hazelnut --lr 0.01 --keep best --count 2",
    "consistency": f"{DIT} --recipe consistency --adapter lora:rank=2 --measure 0 "
    "--init {made}/run/adapter.safetensors",
    "autoencoder": f"{COMMON} --recipe autoencoder --model {{made}}/vae.safetensors --adapter full --size 16 "
    "--data generated:hazelnut/few/1",
}


def flags(line: str, made: Path) -> list[str]:
    """The command line of a variant, for the folder that its run/ and cache/ are to lie in."""
    return [word.format(made=made) for word in shlex.split(line)]


def write_inputs(made: Path) -> None:
    """The models and photographs that the variants begin with, but for the tuned adapter."""
    (made / "photos").mkdir(parents=True)
    write_dit(made)
    write_sd(made / "sd")
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 255, (16, 16, 3), np.uint8)
        Image.fromarray(pixels).save(made / "photos" / f"{number}.png")
