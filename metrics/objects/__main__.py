"""Train a small detector of an object and measure it: python -m metrics.objects --data DIR --without DIR ...

The boxes are those of the masks of --data. Images that are like these and show no such object, such as badly written
logos, teach what is none; their masks do not count. The file serves examples/detect_and_read.py, which scores samples.
"""

import argparse
import sys

import torch
from torch import Tensor

import weights
from data import ImageSet, load
from data.transforms import Transform, to_tensor
from metrics.alignment.scores import THRESHOLD
from metrics.objects.boxes import boxes_of
from metrics.objects.detector import CELL, Detector, detect, save_detector, train_detector
from metrics.objects.precision import precisions
from unet import VAE


def main(arguments: list[str] | None = None) -> None:
    """Images, training, file, numbers."""
    parser = argparse.ArgumentParser(prog="python -m metrics.objects", description=__doc__)
    text, number = {"metavar": "DIR"}, {"type": int, "metavar": "N"}
    parser.add_argument("--data", default="generated:hugo_near/oracle/6", **text, help="images with masks of objects")
    parser.add_argument("--without", default="generated:misspelt_near/oracle/6", **text, help="images without one")
    parser.add_argument("--val", default="generated:hugo_near/test/2", **text, help="held-out images with masks")
    parser.add_argument("--val-without", default="generated:misspelt_near/test/2", **text, help="and without one")
    parser.add_argument("--vae", default="", metavar="NAME", help="autoencoder: it learns its decoded images too")
    parser.add_argument("--size", default=64, **number, help=f"side of the images in pixels, a multiple of {CELL}")
    parser.add_argument("--steps", default=400, **number, help="optimizer steps")
    parser.add_argument("--seed", default=0, **number, help="seed of everything random")
    parser.add_argument("--out", default="runs/detector.safetensors", metavar="FILE", help="file of the detector")
    options = parser.parse_args(arguments)
    shown, bare, val, val_bare = (
        load(source, Transform(options.size))
        for source in (options.data, options.without, options.val, options.val_without)
    )
    for source, images in ((options.data, shown), (options.val, val)):
        if images.masks is None or not images.masks.any():
            raise ValueError(f"{source}: expected images with masks of the objects, found no mask")
    x, without, masks = to_tensor(shown.pixels), to_tensor(bare.pixels), torch.from_numpy(shown.masks)
    if options.vae:
        vae = weights.load(options.vae, expect="vae", dtype=torch.float32).eval()
        x, without = (torch.cat([images, decoded(vae, images)]) for images in (x, without))
        masks = masks.repeat(2, 1, 1)
    print(f"{len(x)} images with objects and {len(without)} without one, {options.steps} steps", flush=True)
    network = train_detector(x, masks, without, options.steps, options.seed)
    save_detector(network, options.out, f"{options.data}, without {options.without}")
    x, without = to_tensor(val.pixels), to_tensor(val_bare.pixels)
    print(f"held out: {report(network, x, val, without)}")
    if options.vae:
        print(f"decoded by {options.vae}: {report(network, decoded(vae, x), val, decoded(vae, without))}")
    print(f"{options.out} holds the detector")


@torch.no_grad()
def decoded(vae: VAE, x: Tensor) -> Tensor:
    """Images (N, 3, S, S) as the autoencoder gives them back."""
    return torch.cat([vae.decode(vae.encode(part)[0]) for part in x.split(32)]).clamp(-1, 1)


def report(network: Detector, x: Tensor, images: ImageSet, without: Tensor) -> str:
    """AP over images with the object x (N, 3, S, S) and without it, and the shares that reach the threshold."""
    found = [detect(network, some) for some in (x, without)]
    none = torch.zeros(0, 4)
    numbers = precisions([*found[0], *found[1]], [*map(boxes_of, images.masks), *[none] * len(without)])
    shares = [sum(bool((p >= THRESHOLD).any()) for _, p in some) / len(some) for some in found]
    return (
        f"AP {numbers['ap_50']:.3f} at IoU 0.5, {numbers['ap_50_95']:.3f} at 0.5 to 0.95, of {len(x)} images with the "
        f"object and {len(without)} without; detected with {THRESHOLD:.2f} or more in {shares[0]:.2f} and "
        f"{shares[1]:.2f}"
    )


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
