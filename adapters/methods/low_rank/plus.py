"""LoRA+ and rank-stabilised LoRA: how fast B learns, and how far B A goes, two options of `lora`.

    ratio=16    B learns at 16 times the rate of A            LoRA+, Hayou et al. 2024, arXiv 2402.12354
    stable=1    y = W x + b + (alpha / sqrt(r)) B A x         rsLoRA, Kalajdzievski 2023, arXiv 2312.03732

B starts at 0 and A does not: at one rate for both, the wider the layer is, the less A's features change. By alpha / r
the update of a step shrinks as the rank grows, by alpha / sqrt(r) it does not, so that one alpha serves all ranks.
"""

import math


def scale_of(rank: int, alpha: float, stable: int) -> float:
    """alpha / r, or alpha / sqrt(r) where it is rank-stabilised."""
    return alpha / (math.sqrt(rank) if stable else rank)


def check_options(alpha: float | None, stable: int, ratio: float) -> None:
    """ValueError for a `stable` other than 0 and 1 or without an alpha, and for a ratio that is not above 0."""
    if stable not in (0, 1) or not 0 < ratio < math.inf:
        raise ValueError(f"needs stable 0 or 1 and a finite ratio > 0, found stable {stable}, ratio {ratio}")
    if stable and alpha is None:
        raise ValueError("stable=1 scales by alpha / sqrt(rank): give alpha too, which is one for all ranks")
