"""How unlike training images are samples, without a network: their distance of textures, that of the images being 1.

Samples of a class are compared with images of the same class, where it has two or more, else with all images.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from metrics.textures.swd import Projections, by_scale, own_distances, quantiles

DRAWS = 20  # of samples, for the deviation
KNOWN = 32  # images of a class that samples are compared with, at most: each is decoded once


class Likeness:
    """The training images of a run, ready to be compared with.

    farthest: the distance of the image that is farthest from the others of its class, 0 where there are none.
    """

    def __init__(self, x: Tensor, known: list[str], shown: list[str], decode: Callable[[Tensor], Tensor] = lambda x: x):
        """x (M, 3, S, S) training images with their classes or captions, and those of the N samples.

        decode(x): the images as the model's autoencoder gives them back, which no sample surpasses.
        """
        self.shown, self.references, self.farthest = shown, {}, 0.0
        counts = {name: known.count(name) for name in set(shown)}
        self.group = {name: name if count > 1 else "" for name, count in counts.items()}  # "" stands for all images
        for group in sorted(set(self.group.values())):
            own = [i for i, name in enumerate(known) if not group or name == group]
            images = x[own][:: -(-len(own) // KNOWN)]
            project = Projections(images)
            real = project(images)  # (M, scales, PATCHES, W)
            unit = torch.ones(real.shape[1], device=real.device)
            if len(images) > 1:
                decoded = project(decode(images))
                few = sum(self.group[name] == group for name in shown)
                unit = own_distances(real, few, decoded).mean(0)  # (scales,)
                self.farthest = max(self.farthest, (own_distances(real, 1, decoded) / unit).mean(1).max().item())
            self.references[group] = project, quantiles(real), unit

    def __call__(self, x: Tensor) -> tuple[float, float]:
        """Samples x (N, 3, S, S) -> their distance, the mean over classes, and its deviation under other samples."""
        generator, draws, means = torch.Generator().manual_seed(0), [], []
        for group, (project, real, unit) in self.references.items():
            p = project(x[[self.group[name] == group for name in self.shown]])
            again = [torch.randint(len(p), (len(p),), generator=generator) for _ in range(DRAWS if len(p) > 1 else 0)]
            first, *others = [(by_scale(quantiles(p[i]), real) / unit).mean().item() for i in (slice(None), *again)]
            means.append(first)
            draws += [others] if others else []
        mean = torch.tensor(means, dtype=torch.float64)
        # the bootstrap's over samples of a class, or where each class has one, over classes
        spread = torch.tensor(draws, dtype=torch.float64).var(1) if draws else mean.var()[None]
        return mean.mean().item(), (spread.sum().sqrt() / len(spread)).item()
