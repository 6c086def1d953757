"""Where the row of a new class starts: which old rows it is the mean of.

The label "crack" of a nut is most like "crack" of other products, and a buckeye is the ImageNet class most like a
hazelnut; a row that starts near needs fewer images to arrive.
"""
import difflib

import torch

from sampling import Schedule

CLASSIFIER_STEPS = 8   # timesteps at which `nearest` compares denoising errors


def start_rows(start: str, old: list[str] | None, rows: int, new: list[str], nearest) -> list[list[int]]:
    """Old row ids whose mean each new class starts from; [] means a random row.

    start: "name"    old classes whose last name is that of the new one ("*/crack" for "hazelnut/crack"), else "mean"
           "nearest" what `nearest()` answers, one id a new class
           "mean"    all old classes
           "random"  none
           otherwise one old class for all, by name or id
    old: names of the old classes if the checkpoint has them; rows: their number. ValueError for a class not known.
    """
    everything = list(range(rows))
    if start == "mean":
        return [everything for _ in new]
    if start == "random":
        return [[] for _ in new]
    if start == "nearest":
        return [[row] for row in nearest()]
    if start == "name":
        same = [[i for i, name in enumerate(old or []) if last_name(name) == last_name(wanted)] for wanted in new]
        return [ids or everything for ids in same]
    if start.isdigit() and int(start) < rows:
        return [[int(start)] for _ in new]
    if old and start in old:
        return [[old.index(start)] for _ in new]
    near = difflib.get_close_matches(start, old or [], n=1, cutoff=0)
    raise ValueError(f"start {start!r} is none of name, nearest, mean, random, an id in 0..{rows - 1}"
                     + (f" or a class of the checkpoint; did you mean {near[0]!r}?" if near else ""))


def last_name(name):
    """"hazelnut/crack" -> "crack"."""
    return name.rsplit("/", 1)[-1]


@torch.no_grad()
def nearest_rows(model, x0: torch.Tensor, labels: torch.Tensor, rows: int, schedule: Schedule, seed: int = 0,
                 batch: int = 64) -> list[int]:
    """For every new class the old row under which the model denoises its images best (Li et al. 2023, eq. 7).

    x0 (N, C, H, W) scaled latents, labels (N,) new classes. The same timesteps and noise for all rows: only the row
    decides. Costs CLASSIFIER_STEPS forward passes for every image and old row, so give it a few images of a class.
    """
    generator = torch.Generator().manual_seed(seed)
    last = len(schedule.alpha_bar)
    times = torch.linspace(0.1 * last, 0.8 * last, CLASSIFIER_STEPS).long()
    chosen = []
    for label in range(int(labels.max()) + 1):
        images = x0[labels == label].repeat_interleave(len(times), 0)                       # (B, C, H, W)
        t = times.repeat(len(images) // len(times)).to(images.device)                           # (B,)
        eps = torch.randn(images.shape, generator=generator).to(images)
        x_t = schedule.add_noise(images, eps, t)
        errors = []
        for row in range(rows):
            y = torch.full((len(images),), row, device=images.device)
            error = 0.0
            for i in range(0, len(images), batch):
                part = slice(i, i + batch)
                out = model(x_t[part], t[part], y[part])[:, :images.shape[1]].float()
                error += (out - schedule.target(images[part], eps[part], t[part])).square().sum().item()
            errors.append(error)
        chosen.append(min(range(rows), key=errors.__getitem__))
    return chosen
