"""Softmax attention, out = softmax(q k^T / sqrt(K)) v (Vaswani et al. 2017, eq. 1), by several backends.

Shapes of every function here: q (B, N, T, K), k and v (B, N, S, K) -> (B, N, T, K). `mask` is boolean, broadcastable
to (B, N, T, S), True where a query may attend, at least once per row. `causal` lets query i see keys 0 .. i; with a
mask too, both must allow.

set_backend(name), or the environment variable GRAFT_ATTENTION when the process starts, chooses the backend:

    auto        whichever measured faster for the device, dtype and lengths (python -m bench.attention)
    reference   the equation as it stands
    grouped     the same, a few heads at a time
    sdpa        torch's scaled_dot_product_attention
    fused       this package's own Triton kernels (ops/fused.py) on a GPU without a mask, elsewhere as auto

State of fused: its output and gradients equal the equation to the precision of the dtype, tested under Triton's
interpreter; it has not been timed on a GPU. So auto does not choose it.
"""

import os
from functools import cache, partial
from importlib.util import find_spec

import torch
import torch.nn.functional as F
from torch import Tensor

from ops.recompute import recomputed

# whether this processor multiplies matrices of bfloat16 by AMX
HAS_AMX = bool(getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)())


def reference(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, causal: bool = False) -> Tensor:
    """The equation in four lines; it keeps the (T, S) scores in memory."""
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)  # (B, N, T, S)
    allowed = _allowed(scores, mask, causal)
    scores = scores if allowed is None else scores.masked_fill(~allowed, float("-inf"))
    return scores.softmax(dim=-1) @ v  # (B, N, T, K)


def sdpa(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, causal: bool = False) -> Tensor:
    """By torch's scaled_dot_product_attention, which never stores the scores where a fused kernel exists."""
    if mask is not None and causal:  # torch accepts only one of the two
        mask, causal = _allowed(q.new_empty(q.shape[-2], k.shape[-2]), mask, causal), False
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)  # (B, N, T, K)


def grouped(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, causal: bool = False, scores: int = 2**22
) -> Tensor:
    """`reference`, a few heads at a time, so that at most so many scores exist at once (or one head's).

    The scores are not kept: the backward pass computes them again.
    """
    # very large results are fresh pages from the system on every call, which cost as much as the arithmetic;
    # limits below 2**22 (8 MiB of bfloat16) gained little and make more calls
    shape = (*q.shape[:-1], k.shape[-2])  # B, N, T, S
    heads = max(1, scores // (shape[2] * shape[3]))
    parts = [x.flatten(0, 1).split(heads) for x in (q, k, v)]  # each (heads, T or S, K)
    masks = [None] * len(parts[0]) if mask is None else mask.expand(shape).flatten(0, 1).split(heads)
    out = [recomputed(partial(reference, mask=m, causal=causal), *qkv) for *qkv, m in zip(*parts, masks, strict=True)]
    return torch.cat(out).unflatten(0, shape[:2])  # (B, N, T, K)


def auto(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, causal: bool = False) -> Tensor:
    """By hand for up to 2048 tokens of bfloat16 on a CPU, if it has no AMX or a gradient is wanted; else `sdpa`.

    By hand is `grouped`, or `reference` where the scores are no more numbers than q and k: they are kept then, and the
    backward pass, which does not compute them again, takes half of the time.
    """
    # Torch's CPU kernel multiplies bfloat16 fast by AMX instructions alone, and is slow in every backward pass. On one
    # thread of an AMD EPYC (Zen 5, no AMX), in bfloat16 from 64 to 2048 tokens, `grouped` takes 0.59 to 0.74 of its
    # forward time and 0.16 to 0.64 of its training time; on an Intel Xeon with AMX 1.14 to 1.93 and 0.13 to 0.77.
    # In float32 `sdpa` is the faster one at every length measured.
    by_hand = q.device.type == "cpu" and q.dtype == torch.bfloat16 and max(q.shape[-2], k.shape[-2]) <= 2048
    if by_hand and HAS_AMX:
        by_hand = torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad)
    if not by_hand:
        return sdpa(q, k, v, mask, causal)
    few = k.shape[-2] <= 2 * k.shape[-1]  # S <= 2 K
    return (reference if few else grouped)(q, k, v, mask, causal)


def fused(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, causal: bool = False) -> Tensor:
    """The Triton kernels for what they can compute (see ops.fused.available), else `auto`."""
    if not torch.compiler.is_compiling() and q.is_cuda and mask is None and has_triton():
        from ops import fused as kernels  # imports Triton, which not every machine has

        if kernels.available(q, k, v):
            return kernels.fused(q, k, v, causal)  # (B, N, T, K)
    return auto(q, k, v, mask, causal)


BACKENDS = {"auto": auto, "reference": reference, "grouped": grouped, "sdpa": sdpa, "fused": fused}
_backend = auto


def set_backend(name: str) -> None:
    """The backend of `attention` for the whole process, a name in BACKENDS. Raises ValueError for another."""
    global _backend
    if name not in BACKENDS:
        raise ValueError(f"the attention backend must be one of {', '.join(BACKENDS)}, found {name!r}")
    _backend = BACKENDS[name]


set_backend(os.environ.get("GRAFT_ATTENTION") or "auto")


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, causal: bool = False) -> Tensor:
    """softmax(q k^T / sqrt(K)) v by the backend of `set_backend`."""
    return _backend(q, k, v, mask, causal)


@cache
def has_triton() -> bool:
    """Whether Triton is installed; torch brings it along for CUDA on Linux."""
    return find_spec("triton") is not None


def _allowed(scores: Tensor, mask: Tensor | None, causal: bool) -> Tensor | None:
    """Where a query may attend: mask and causal in one boolean tensor, broadcastable to (B, N, T, S)."""
    if not causal:
        return mask
    lower = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()  # (T, S)
    return lower if mask is None else mask & lower
