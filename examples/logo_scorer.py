"""A scorer for the generated logo; `python -m examples.logo_scorer` measures how well it tells logos apart.

Two functions of the redness of a pixel, x = red - max(green, blue). A template t is moved over the picture in 6 sizes
and 7 turns, and compared by its correlation over the pixels w of its extent:

    c(t) = sum_w (t - mean_w t)(x - mean_w x) / (|w| std_w(t) std_w(x))        in -1..1, the best place counts

    detector  c of the logo and a narrow margin                         a wrong word in a red box is a half detection
    text      1 if the letters read in the best red box, each by its best c in its cell, are the logo's word

Like the study's detector and OCR (De Man, sec. 4.2) they know nothing of what carries the logo.
"""

from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor
from torch.nn import functional as F

import weights
from data import load
from data.generated.garments import PROPS
from data.generated.logos import ASPECT, LETTERS, MARKS, WORD, caption, image, letter
from data.output.grid import grid, save_image
from data.transforms import Transform, to_tensor
from metrics.alignment.scores import THRESHOLD

ROOT = Path(__file__).resolve().parent.parent
SIDE, HIGH, WIDE = 64, 37, 53  # of the pictures; of the window that holds any template
SIZES, TURNS = (0.46, 0.50, 0.54, 0.58, 0.63, 0.68), np.radians((-9, -6, -3, 0, 3, 6, 9))
LEGIBLE = 0.3  # a letter with a smaller correlation is not read
BLUR = 0.5  # pixels, of template and picture: places between pixels count too
FLAT = 0.06  # the least std_w(x): noise on an even colour is no pattern


def window(size: float, turn: float) -> tuple[np.ndarray, np.ndarray]:
    """The logo's frame p, q in units of its half length, at each of twice the window's pixels, (2 HIGH, 2 WIDE)."""
    v, u = (np.mgrid[0 : 2 * HIGH, 0 : 2 * WIDE] + 0.5 - np.array([HIGH, WIDE])[:, None, None]) / SIDE
    return (np.cos(turn) * u + np.sin(turn) * v) / size, (np.cos(turn) * v - np.sin(turn) * u) / size


def kernel(template: np.ndarray, extent: np.ndarray) -> np.ndarray:
    """(2 HIGH, 2 WIDE) template and extent -> kernels (2, HIGH, WIDE): (t - mean t) / (|w| std t), and w / |w|."""
    soft = gaussian_filter(1.0 * template, 2 * BLUR)
    t, w = (a.reshape(HIGH, 2, WIDE, 2).mean((1, 3)) for a in (soft, 1.0 * extent))
    w = w / w.sum()
    t = t - (w * t).sum()
    return np.stack([w * t / np.sqrt((w * t * t).sum()), w])


def templates(size: float, turn: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Kernels of the logo, of a red box with any word, and of each letter in each of the four cells."""
    p, q = window(size, turn)
    ink = {s: [letter(p - 0.48 * (k - 1.5), q, s) < 0.08 for k in range(4)] for s in LETTERS}
    box = (np.abs(p) < 1) & (np.abs(q) < ASPECT)
    word = np.any([ink[stroke][k] for k, stroke in enumerate(WORD)], 0)
    some = np.mean([np.any(ink[s], 0) for s in LETTERS], 0)
    around = [(np.abs(p) < 1 + margin) & (np.abs(q) < ASPECT + margin) for margin in (0.05, 0.14)]
    cells = [box & (np.abs(p - 0.48 * (k - 1.5)) < 0.24) for k in range(4)]
    return (
        kernel(box & ~word, around[0]),
        kernel(box * (1 - some), around[1]),
        np.stack([[kernel(~ink[s][k], cells[k]) for s in LETTERS] for k in range(4)]),
    )


POSES = [templates(size, turn) for size in SIZES for turn in TURNS]
LOGO, BOX, CELLS = (torch.tensor(np.stack(kind), dtype=torch.float32) for kind in zip(*POSES))


def slide(x: Tensor, kernels: Tensor) -> Tensor:
    """x (N, 1, H, W), kernels (K, h, w) -> the sum of their products at every place (N, K, H - h + 1, W - w + 1)."""
    spectrum = torch.fft.rfft2(x) * torch.fft.rfft2(kernels, s=x.shape[-2:]).conj()
    moved = torch.fft.irfft2(spectrum, s=x.shape[-2:])
    return moved[..., : x.shape[-2] - kernels.shape[-2] + 1, : x.shape[-1] - kernels.shape[-1] + 1]


def correlate(x: Tensor, kernels: Tensor) -> Tensor:
    """x (N, 1, H, W), kernels (K, 2, HIGH, WIDE) -> correlations (N, K, H', W')."""
    t, w = kernels.unbind(1)
    variance = slide(x * x, w) - slide(x, w) ** 2
    return slide(x, t) / variance.clamp(min=FLAT**2).sqrt()


def redness(images: np.ndarray) -> Tensor:
    """uint8 (N, S, S, 3) -> red - max(green, blue) in -1..1, at 64 px with a rim, (N, 1, 80, 80)."""
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    if x.shape[-1] != SIDE:
        x = F.interpolate(x, (SIDE, SIDE), mode="bilinear", antialias=True)
    red = gaussian_filter((x[:, :1] - x[:, 1:].amax(1, keepdim=True)).numpy(), (0, 0, BLUR, BLUR))
    return F.pad(torch.from_numpy(red), (8,) * 4, mode="replicate")


def detect(x: Tensor) -> Tensor:
    """Redness (N, 1, H, W) -> the largest correlation with the logo (N,)."""
    return correlate(x, LOGO).flatten(1).amax(1).clamp(min=0)


def read(x: Tensor) -> list[str]:
    """Redness (N, 1, H, W) -> the four letters in the best red box of each, a question mark for none of LETTERS."""
    boxes = correlate(x, BOX)  # (N, K, H', W')
    words = []
    for one, place in zip(x, boxes.flatten(1).argmax(1).tolist()):
        pose, row, column = np.unravel_index(place, boxes.shape[1:])
        cells = correlate(one[None, :, row : row + HIGH, column : column + WIDE], CELLS[pose].flatten(0, 1))
        likeness, best = cells.view(4, len(LETTERS)).max(1)
        words.append("".join(list(LETTERS)[i] if c >= LEGIBLE else "?" for i, c in zip(best, likeness)))
    return words


def score(images: np.ndarray, batch: int = 8) -> dict[str, np.ndarray]:
    """images uint8 (N, S, S, 3) -> the detector's confidence and the text hit of each."""
    parts = [redness(images[i : i + batch]) for i in range(0, len(images), batch)]
    return {
        "detector": np.concatenate([detect(x).numpy() for x in parts]),
        "text": np.array([float(word == WORD) for x in parts for word in read(x)]),
    }


def picture(file: Path) -> None:
    """A picture of each thing with nothing, with the logo and with a fake."""
    grounds = {
        "t-shirt": "black",
        "sweater": "blue",
        "shorts": "green",
        "hat": "white",
        **dict.fromkeys(PROPS, "props"),
    }
    columns = {
        caption(f"nothing_on_{ground}", thing): [image(f"{mark}_on_{ground}", thing, "test", 0)[0] for mark in MARKS]
        for thing, ground in grounds.items()
    }
    save_image(file, grid(columns, list(MARKS)))


def main(source: str = "generated:{}/test/10") -> None:
    """Print the scores of generated photographs, as they are and reconstructed by tiny-vae."""
    vae = weights.load("tiny-vae").float().eval()
    print("| | images | confidence 0 % | 5 % | 50 % | 95 % | 100 % | detected | read |\n|---|" + "---:|" * 8)
    for decoded in (False, True):
        for mark in MARKS:
            images = load(source.format(mark), Transform(SIDE)).pixels
            if decoded:
                with torch.no_grad():
                    x = torch.cat([vae.decode(vae.encode(part)[0]) for part in to_tensor(images).split(32)])
                images = ((x.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
            scores = score(images)
            numbers = [
                *np.quantile(scores["detector"], (0, 0.05, 0.5, 0.95, 1)),
                (scores["detector"] >= THRESHOLD).mean(),
                scores["text"].mean(),
            ]
            name = mark + ", through tiny-vae" * decoded
            print(f"| {name} | {len(images)} | {' | '.join(f'{number:.2f}' for number in numbers)} |", flush=True)


if __name__ == "__main__":
    picture(ROOT / "docs" / "logos.png")
    main()
