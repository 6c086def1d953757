"""Does an image show what its prompt says? Cosines of image and text features, compared in three ways.

    CLIP-T    cos(f, g)                                               f an image, g its prompt
    CLIP-IQA  softmax(s cos(f, g_good), s cos(f, g_bad))_good         opposite prompts, s the network's logit scale
    accuracy  of p = softmax_k(s cos(f, g_k)): the share of images whose true prompt is the likeliest

(Ruiz et al. 2023, arXiv 2208.12242; Wang et al. 2022, arXiv 2207.12396.) Each alternative g_k
differs from the true prompt in one attribute. The study of a logo asked for this (De Man, sec. 6): a detector accepts a
black sweater where the prompt says a blue one. Features are those of CLIP (arXiv 2103.00020) or of any network that
embeds images and texts together. For generated photographs, a classifier's softmax over the classes of `alternatives`
in data/generated/photographs.py and data/generated/logos.py takes their place.
"""

import re
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

# name -> two opposite prompts, the good one first
PAIRS = {
    "quality": ("Good photo.", "Bad photo."),
    "sharpness": ("Sharp photo.", "Blurry photo."),
    "noise": ("Clean photo.", "Noisy photo."),
    "natural": ("Natural photo.", "Synthetic photo."),
}


def clip_t(images: Tensor, texts: Tensor) -> Tensor:
    """Features of images (N, D) and of the prompt of each, (N, D) or (1, D) -> cosines (N,); their mean is CLIP-T.

    Leave the learned word out of the prompts, since the network does not know it: "a sweater", not "a <new> sweater".
    Raises ValueError for another number of prompts.
    """
    if len(texts) not in (1, len(images)):
        raise ValueError(f"CLIP-T compares each of {len(images)} images with its prompt, found {len(texts)} prompts")
    return F.cosine_similarity(images.double(), texts.double())


def choose(images: Tensor, texts: Tensor, scale: float) -> Tensor:
    """Features of images (N, D) and of K prompts (K, D), logit scale -> probabilities of the prompts (N, K)."""
    return (scale * F.normalize(images.double()) @ F.normalize(texts.double()).T).softmax(1)


def clip_iqa(images: Tensor, pair: Tensor, scale: float) -> Tensor:
    """Features of images (N, D) and of two opposite prompts (2, D) -> the probability of the first (N,).

    Compare numbers of one network and one pair only. Raises ValueError unless there are 2 prompts.
    """
    if len(pair) != 2:
        raise ValueError(f"CLIP-IQA compares 2 opposite prompts, found {len(pair)}")
    return choose(images, pair, scale)[:, 0]


def prompt_accuracy(choices: Sequence[Tensor]) -> dict[str, float]:
    """For each prompt the probabilities (N_i, K_i) of its images, the true prompt in column 0 -> numbers of the table.

    accuracy: share of images whose true prompt is likelier than every other (a tie is wrong); probability: mean of the
    true prompt's; chance: mean of 1 / K. Raises ValueError for no image and for fewer than two prompts.
    """
    if not sum(map(len, choices)) or min(p.shape[1] for p in choices) < 2:
        raise ValueError(
            f"prompt accuracy needs an image or more and two prompts at least to choose from, "
            f"found shapes {[tuple(p.shape) for p in choices]}"
        )
    right = torch.cat([p[:, 0] > p[:, 1:].amax(1) for p in choices])
    true = torch.cat([p[:, 0] for p in choices])
    chance = sum(len(p) / p.shape[1] for p in choices) / len(true)
    return {
        "images": len(true),
        "accuracy": right.double().mean().item(),
        "probability": true.mean().item(),
        "chance": chance,
    }


def alternatives(template: str) -> list[str]:
    """ "a {blue|black|red} {sweater|hat}" -> the prompt of all first choices, then those that differ from it in one.

    An empty choice leaves the attribute out: "a sweater{ with a logo|}". Raises ValueError for a template that offers
    no choice.
    """
    parts = re.split(r"\{([^{}]*)\}", template)
    choices = [part.split("|") for part in parts]  # texts between the attributes are attributes of one choice
    if len(parts) == 1 or any(set("{}|") & set(text) for text in parts[::2]):
        raise ValueError(f"alternatives stand in braces, as in 'a {{blue|black}} sweater', found {template!r}")
    for options in choices[1::2]:
        if len(set(options)) < max(len(options), 2):
            raise ValueError(f"an attribute has two choices or more, each once, found {{{'|'.join(options)}}}")
    first = [options[0] for options in choices]
    others = [[*first[:i], other, *first[i + 1 :]] for i, options in enumerate(choices) for other in options[1:]]
    return ["".join(prompt) for prompt in (first, *others)]
