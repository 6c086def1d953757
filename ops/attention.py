"""Softmax attention, out = softmax(q k^T / sqrt(K)) v (Vaswani et al. 2017, eq. 1), by several backends.

Shapes of every function here: q (B, N, T, K), k and v (B, N, S, K) -> (B, N, T, K). `mask` is boolean, broadcastable
to (B, N, T, S), True where a query may attend, at least once per row. `causal` lets query i see keys 0 .. i; with a
mask too, both must allow.

set_backend(name), or the environment variable GRAFT_ATTENTION when the process starts, chooses the backend:

    auto        whichever measured faster for the device, dtype and lengths (docs/attention.md)
    reference   the equation as it stands
    grouped     the same in parts: a few heads, or some queries of one, at a time
    sdpa        torch's scaled_dot_product_attention
    fused       this package's own Triton kernels (ops/fused.py) on a GPU without a mask, elsewhere as auto

State of fused: its output and gradients equal the equation to the precision of the dtype, tested under Triton's
interpreter; it has not been timed on a GPU. So auto does not choose it.
"""

import os
from functools import cache
from importlib.util import find_spec

import torch
import torch.nn.functional as F
from torch import Tensor

# whether this processor multiplies matrices of bfloat16 by AMX
HAS_AMX = bool(getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)())


def reference(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, causal: bool = False) -> Tensor:
    """The equation as it stands; it keeps p (B, N, T, S) in memory."""
    return probabilities(q, k, _allowed(q, k, mask, causal)) @ v  # (B, N, T, K)


def probabilities(q: Tensor, k: Tensor, allowed: Tensor | None) -> Tensor:
    """p = softmax(q k^T / sqrt(K)): q (..., T, K), k (..., S, K) -> (..., T, S), 0 where `allowed` is False."""
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    scores = scores if allowed is None else scores.masked_fill(~allowed, float("-inf"))
    return scores.softmax(dim=-1)


def sdpa(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, causal: bool = False) -> Tensor:
    """By torch's scaled_dot_product_attention, which never stores the scores where a fused kernel exists."""
    if mask is not None and causal:  # torch accepts only one of the two
        mask, causal = _allowed(q, k, mask, causal), False
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)  # (B, N, T, K)


def grouped(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, causal: bool = False, scores: int = 2**21
) -> Tensor:
    """`reference` in parts of a few heads, or of some queries of one, so that at most so many scores exist at once.

    They are not kept: the backward pass computes them again.
    """
    # 2**20 and 2**21 (4 MiB of bfloat16) measured alike: larger parts fall out of the cache, smaller are more calls
    shape = (*q.shape[:-1], k.shape[-2])  # B, N, T, S
    allowed = _allowed(q, k, mask, causal)
    allowed = None if allowed is None else allowed.expand(shape).flatten(0, 1)
    wanted = torch.is_grad_enabled() and any(x.requires_grad for x in (q, k, v))
    attend = _InParts.apply if wanted and not torch.compiler.is_compiling() else in_parts
    return attend(*(x.flatten(0, 1) for x in (q, k, v)), allowed, scores).unflatten(0, shape[:2])  # (B, N, T, K)


def in_parts(q: Tensor, k: Tensor, v: Tensor, allowed: Tensor | None, scores: int) -> Tensor:
    """p v part by part; here and below the heads of all samples are one axis: q (G, T, K), k and v (G, S, K)."""
    out = [
        [probabilities(q[heads, rows], k[heads], _part(allowed, heads, rows)) @ v[heads] for rows in of_heads]
        for heads, of_heads in _parts(q, k, scores)
    ]
    return torch.cat([torch.cat(rows, 1) if len(rows) > 1 else rows[0] for rows in out])


class _InParts(torch.autograd.Function):
    """in_parts, and its gradients by the equations of attention's backward pass (Dao et al. 2022, appendix B.2):

    dv = p^T do,  dp = do v^T,  ds = p (dp - sum_S(p dp)),  dq = ds k / sqrt(K),  dk = ds^T q / sqrt(K)
    """

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx, q: Tensor, k: Tensor, v: Tensor, allowed: Tensor | None, scores: int
    ) -> Tensor:
        ctx.save_for_backward(q, k, v, allowed)
        ctx.scores = scores
        return in_parts(q, k, v, allowed, scores)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, do: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, allowed = ctx.saved_tensors
        scale = q.shape[-1] ** -0.5
        dq = torch.empty_like(q)
        # float32, for they are sums over the parts; (G, K, S), for torch is slow at p^T do and fast at do^T p
        dk, dv = (torch.zeros(x.mT.shape, dtype=torch.float32, device=x.device) for x in (k, v))
        for heads, of_heads in _parts(q, k, ctx.scores):
            for rows in of_heads:
                p = probabilities(q[heads, rows], k[heads], _part(allowed, heads, rows))
                do_part = do[heads, rows].to(p.dtype)
                dv[heads] += do_part.mT @ p
                ds = torch._softmax_backward_data(do_part @ v[heads].mT, p, -1, p.dtype)  # p (dp - sum_S(p dp))
                dq[heads, rows] = ds @ k[heads] * scale
                dk[heads] += (q[heads, rows] * scale).mT @ ds
        return dq, dk.mT.to(k.dtype), dv.mT.to(v.dtype), None, None


def auto(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, causal: bool = False) -> Tensor:
    """By hand for bfloat16 on a CPU without AMX, with AMX where a gradient is wanted of up to 2048 tokens; else `sdpa`.

    By hand is `grouped`, or `reference` where the scores are no more numbers than q and k: they are kept then, and the
    backward pass does not compute them again.
    """
    # Torch's CPU kernel multiplies bfloat16 fast by AMX instructions alone. In float32 it is the faster one.
    by_hand = q.device.type == "cpu" and q.dtype == torch.bfloat16
    if by_hand and HAS_AMX:
        wanted = torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad)
        by_hand = wanted and max(q.shape[-2], k.shape[-2]) <= 2048
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


def _allowed(q: Tensor, k: Tensor, mask: Tensor | None, causal: bool) -> Tensor | None:
    """Where a query may attend: mask and causal in one boolean tensor, broadcastable to (B, N, T, S)."""
    if not causal:
        return mask
    lower = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool, device=q.device).tril()  # (T, S)
    return lower if mask is None else mask & lower


def _parts(q: Tensor, k: Tensor, scores: int) -> list[tuple[slice, list[slice]]]:
    """[(heads, [queries, ...]), ...] with at most so many scores each, or those of one query."""
    count, length, keys = len(q), q.shape[1], k.shape[1]
    heads, rows = max(1, scores // (length * keys)), max(1, scores // keys)
    of_heads = [slice(i, i + rows) for i in range(0, length, rows)]
    return [(slice(i, i + heads), of_heads) for i in range(0, count, heads)]


def _part(allowed: Tensor | None, heads: slice, rows: slice) -> Tensor | None:
    return None if allowed is None else allowed[heads, rows]
