"""What a LoRA file of another tool does to one layer, computed in float32.

    W' = W + s B A + D        s = alpha / r, or alpha / sqrt(r) by rank-stabilised LoRA (arXiv 2312.03732), or 1
    W' = m V / |V|, V = W + s B A                                               with DoRA (arXiv 2402.09353)

A (r, in[, k, k]) is the file's down, B (out, r) its up; of a Tucker LoCon (arXiv 2309.14859) A and B are 1x1 and a
core C (r, r, k, k) lies between them; D and d are full differences of weight and bias. r is what the tensors say. m has
one number for each output, or in some of kohya's and LyCORIS' files one for each input.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn


class Change(NamedTuple):
    """What a file changes in one layer, None for parts that it does not have."""

    scale: float
    down: Tensor | None
    up: Tensor | None
    mid: Tensor | None
    magnitude: Tensor | None  # with as many axes as W, of length 1 where the norm runs
    weight: Tensor | None  # D
    bias: Tensor | None  # d


def difference(change: Change, weight: Tensor) -> Tensor | None:
    """W' - W (the shape of W, float32); None where the file changes the bias alone."""
    weight = weight.float()
    full = None if change.weight is None else change.weight.to(weight).reshape(weight.shape)
    if change.up is None:
        return full
    up, down = change.up.to(weight).flatten(1), change.down.to(weight)  # (out, r), (r, in, ...)
    if change.mid is not None:
        down = torch.einsum("mnkl,ni->mikl", change.mid.to(weight), down.flatten(1))  # C A: (r, in, k, k)
    delta = change.scale * (up @ down.flatten(1)).reshape(weight.shape)
    delta = delta if full is None else delta + full
    if change.magnitude is None:
        return delta
    v, m = weight + delta, change.magnitude.to(weight)
    axes = [axis for axis, length in enumerate(m.shape) if length == 1]
    return m * v / torch.linalg.vector_norm(v, dim=axes, keepdim=True) - weight


def change(parts: dict[str, Tensor], layer: nn.Module, scale: Callable[[int], float]) -> Change:
    """The tensors of one layer by role, checked against it. scale(rank) gives s where they hold no alpha."""
    weight, bias = layer.weight, getattr(layer, "bias", None)
    down, up, mid = (parts.get(role) for role in ("down", "up", "mid"))
    if (down is None) != (up is None) or up is None and not parts.keys() & {"weight", "bias"}:
        raise ValueError(f"has {', '.join(sorted(parts))} and lacks the rest")
    for role, expected in (("weight", weight), ("bias", bias)):
        if role in parts and (expected is None or flat(parts[role]) != flat(expected)):
            here = None if expected is None else list(expected.shape)
            raise ValueError(f"{role} {list(parts[role].shape)}, here {here}")
    s, alpha = 1.0, parts.get("alpha")
    if alpha is not None and alpha.numel() != 1:
        raise ValueError(f"alpha {list(alpha.shape)}, expected one number")
    if down is not None:
        check_shapes(down, up, mid, weight)
        s = scale(len(down)) if alpha is None else alpha.item() / len(down)
    return Change(s, down, up, mid, magnitude_of(parts, weight), parts.get("weight"), parts.get("bias"))


def check_shapes(down: Tensor, up: Tensor, mid: Tensor | None, weight: Tensor) -> None:
    """ValueError unless B A, or B C A, has the shape of W, where a 1x1 convolution and a Linear are the same."""
    factors = [factor for factor in (up, mid, down) if factor is not None]
    core = factors[-2] if mid is not None else down  # the one with the kernel
    if min(factor.dim() for factor in (*factors, weight)) > 1 and down.numel():
        chained = all(left.shape[1] == len(right) for left, right in zip(factors, factors[1:]))
        thin = all(factor is core or factor.shape[2:].numel() == 1 for factor in factors)
        whole = (len(up), down.shape[1], core.shape[2:].numel()) == (*weight.shape[:2], weight.shape[2:].numel())
        if chained and thin and whole and (mid is None or mid.dim() == weight.dim() == 4):
            return
    raise ValueError(f"{' x '.join(str(list(factor.shape)) for factor in factors)}, here {list(weight.shape)}")


def flat(tensor: Tensor) -> tuple[int, int]:
    """(outputs, numbers in all): equal for a 1x1 convolution and a Linear."""
    return tensor.shape[:1].numel(), tensor.numel()


def magnitude_of(parts: dict[str, Tensor], weight: Tensor) -> Tensor | None:
    """m with the axes of W. The shape of kohya's dora_scale, (out, 1, ...) or (1, in, ...), shows which norm it is."""
    ones = (1,) * (weight.dim() - 1)
    m = parts.get("magnitude", parts.get("dora_scale"))
    if m is None:
        return None
    if "up" not in parts:
        raise ValueError("has a DoRA magnitude and no LoRA")
    if m.numel() == len(weight) and ("magnitude" in parts or m.shape[:1] == weight.shape[:1]):
        return m.reshape(len(weight), *ones)
    if "magnitude" not in parts and m.numel() == weight.shape[1] and m.shape[:2] == (1, weight.shape[1]):
        return m.reshape(1, -1, *ones[1:])
    raise ValueError(f"DoRA magnitude {list(m.shape)}, here {list(weight.shape)}")
