"""What an adapter file of another tool does to one layer, computed in float32.

    W' = W + s P + D        s = alpha / r, or alpha / sqrt(r) by rank-stabilised LoRA (arXiv 2312.03732), or 1
    W' = m V / |V|, V = W + s P + D                                             with DoRA (arXiv 2402.09353)

P is the product B A of a LoRA, or one of LyCORIS (weights/adapter_files/products.py). D and d are full differences of
weight and bias. r is what the tensors say. m has one number for each output, or in some of kohya's and LyCORIS' files
one for each input.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from weights.adapter_files.products import Hadamard, Kronecker, LowRank, product_of


class Change(NamedTuple):
    """What a file changes in one layer, None for parts that it does not have."""

    scale: float
    product: LowRank | Hadamard | Kronecker | None
    magnitude: Tensor | None  # with as many axes as W, of length 1 where the norm runs
    weight: Tensor | None  # D
    bias: Tensor | None  # d


def difference(change: Change, weight: Tensor) -> Tensor | None:
    """W' - W (the shape of W, float32); None where the file changes the bias alone."""
    weight = weight.float()
    full = None if change.weight is None else change.weight.to(weight).reshape(weight.shape)
    if change.product is None:
        return full
    delta = change.scale * change.product.matrix(weight).reshape(weight.shape)
    delta = delta if full is None else delta + full
    if change.magnitude is None:
        return delta
    v, m = weight + delta, change.magnitude.to(weight)
    axes = [axis for axis, length in enumerate(m.shape) if length == 1]
    return m * v / torch.linalg.vector_norm(v, dim=axes, keepdim=True) - weight


def change(parts: dict[str, Tensor], layer: nn.Module, scale: Callable[[int], float]) -> Change:
    """The tensors of one layer by role, checked against it. scale(rank) gives s where they hold no alpha."""
    weight, bias = layer.weight, getattr(layer, "bias", None)
    for role, expected in (("weight", weight), ("bias", bias)):
        if role in parts and (expected is None or flat(parts[role]) != flat(expected)):
            here = None if expected is None else list(expected.shape)
            raise ValueError(f"{role} {list(parts[role].shape)}, here {here}")
    s, alpha, product = 1.0, parts.get("alpha"), product_of(parts, weight)
    if product is None and not parts.keys() & {"weight", "bias"}:
        raise ValueError(f"has {', '.join(sorted(parts))} and lacks the rest")
    if alpha is not None and alpha.numel() != 1:
        raise ValueError(f"alpha {list(alpha.shape)}, expected one number")
    if product is not None and product.rank is not None:
        s = scale(product.rank) if alpha is None else alpha.item() / product.rank
    return Change(s, product, magnitude_of(parts, weight, product), parts.get("weight"), parts.get("bias"))


def flat(tensor: Tensor) -> tuple[int, int]:
    """(outputs, numbers in all): equal for a 1x1 convolution and a Linear."""
    return tensor.shape[:1].numel(), tensor.numel()


def magnitude_of(
    parts: dict[str, Tensor], weight: Tensor, product: LowRank | Hadamard | Kronecker | None
) -> Tensor | None:
    """m with the axes of W. The shape of kohya's dora_scale, (out, 1, ...) or (1, in, ...), shows which norm it is."""
    ones = (1,) * (weight.dim() - 1)
    m = parts.get("magnitude", parts.get("dora_scale"))
    if m is None:
        return None
    if product is None:
        raise ValueError("has a DoRA magnitude and no LoRA")
    if m.numel() == len(weight) and ("magnitude" in parts or m.shape[:1] == weight.shape[:1]):
        return m.reshape(len(weight), *ones)
    if "magnitude" not in parts and m.numel() == weight.shape[1] and m.shape[:2] == (1, weight.shape[1]):
        return m.reshape(1, -1, *ones[1:])
    raise ValueError(f"DoRA magnitude {list(m.shape)}, here {list(weight.shape)}")
