"""out = softmax(q k^T / sqrt(K)) v as Triton kernels that never store the scores, forward and backward.

A tile of queries stays on the chip while the keys pass by, tile after tile. Each query keeps, over the keys seen so
far, the largest score m and two sums l and o, which shrink when m grows (Milakov and Gimelshein 2018, arXiv 1805.02867,
algorithm 3; with values, Rabe and Staats 2021, arXiv 2112.05682; in tiles, Dao 2023, arXiv 2307.08691, algorithm 1):

    m' = max(m, max_j s_j)     l' = l exp(m - m') + sum_j exp(s_j - m')     o' = o exp(m - m') + sum_j exp(s_j - m') v_j

and at the end out = o / l. From L = m + log l, which is kept, the backward pass computes p = exp(s - L) again (Dao
2023, algorithm 2), with delta = rowsum(do * out):

    dv = p^T do     dp = do v^T     ds = p * (dp - delta)     dq = ds k / sqrt(K)     dk = ds^T q / sqrt(K)

The chip's exponential is of base 2, exp(x) = 2^(x log2 e), so m and L are kept in bits.

Triton's tiles are powers of two wide, and K = 72 padded to 128 would be 44 % zeros. So q, k, v and o are tuples of one
or two parts here, 72 = 64 + 8, the 8 padded to 16, the least that `tl.dot` takes; the helpers at the end hide it.
Import this module only where there is a Triton.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

WIDEST = 160  # the heads of Stable Diffusion's last level
# for tuples as arguments
NEW_ENOUGH = [int(part) for part in triton.__version__.split(".")[:2]] >= [3, 3]
LOG2E = tl.constexpr(1.4426950408889634)


class Tile(NamedTuple):
    """How many rows stay on the chip and how many pass by at once, powers of two from 16 up; then Triton's options.

    Queries stay and keys pass, except for the gradients of k and v: there keys stay and queries pass.
    """

    stay: int
    passing: int
    num_warps: int
    num_stages: int


def fused(q: Tensor, k: Tensor, v: Tensor, causal: bool = False, tiles: tuple[Tile, Tile] | None = None) -> Tensor:
    """softmax(q k^T / sqrt(K)) v with q (B, N, T, K), k and v (B, N, S, K) -> (B, N, T, K), in memory (B, T, N, K).

    causal: query i sees keys 0 .. i. tiles: of the forward and the backward pass; None chooses by K and dtype.
    Inputs are read where they lie if K is contiguous and the other strides are multiples of 8, else copied.
    Sums are float32, and so are the products of float32, without TF32. The gradient has no gradient.
    Raises ValueError for other shapes, K over 160 or not a multiple of 8, and dtypes mixed or not of 16 or 32 bits.
    """
    if not _fits(q, k, v):
        found = ", ".join(f"{tuple(x.shape)} {str(x.dtype)[6:]}" for x in (q, k, v))
        raise ValueError(
            "fused attention takes q (B, N, T, K) and k, v (B, N, S, K), all float16, bfloat16 or float32, "
            f"with K a multiple of 8 up to {WIDEST}; found {found}"
        )
    return _Fused.apply(q, k, v, causal, tiles or choose(q.shape[3], q.element_size()))  # (B, N, T, K)


def available(q: Tensor, k: Tensor, v: Tensor) -> bool:
    """Whether `fused` can run on these: its shapes and dtypes, on an Ampere GPU or later, with Triton 3.3 or later."""
    runs = NEW_ENOUGH and q.is_cuda and torch.cuda.get_device_capability(q.device) >= (8, 0)
    return runs and _fits(q, k, v)


def _fits(q: Tensor, k: Tensor, v: Tensor) -> bool:
    return (
        q.dim() == k.dim() == 4
        and k.shape == v.shape == (*q.shape[:2], k.shape[2], q.shape[3])
        and q.dtype == k.dtype == v.dtype
        and q.dtype in (torch.float16, torch.bfloat16, torch.float32)
        and q.shape[3] <= WIDEST
        and q.shape[3] % 8 == 0
        and 0 not in (*q.shape, k.shape[2])
    )


def parts(width: int) -> tuple[int, int]:
    """Two powers of two, at least 16, that hold a head width together; the second is 0 where one does it alone."""
    one = max(16, triton.next_power_of_2(width))
    rest = max(16, triton.next_power_of_2(width - one // 2))
    return (one // 2, rest) if one // 2 + rest < one else (one, 0)


def choose(width: int, size: int) -> tuple[Tile, Tile]:
    """Tiles of the forward and the backward pass for a head width and the bytes of a number."""
    # not timed: in 16 bits they are the larger ones of which Triton 3.7 keeps everything in registers, for sm_90 at
    # every width and for sm_80 up to 128, and 64 rows per 4 warps is what the matrix unit of sm_90 asks for
    if size == 4:
        return Tile(32, 32, 8, 1), Tile(32, 32, 8, 1)
    if width > 80:
        return Tile(64, 32, 4, 2), Tile(64, 32, 8, 2)
    return Tile(64, 64, 4, 3), Tile(64, 32, 4, 2)


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q: Tensor, k: Tensor, v: Tensor, causal: bool, tiles: tuple[Tile, Tile]) -> Tensor:
        q, k, v = _readable(q), _readable(k), _readable(v)
        o, L = _empty(q), q.new_empty(q.shape[:3], dtype=torch.float32)  # (B, N, T, K), (B, N, T)
        _launch(_forward, [q, k, v, o], [L], causal, tiles[0])
        ctx.save_for_backward(q, k, v, o, L)
        ctx.causal, ctx.tile = causal, tiles[1]
        return o

    @staticmethod
    @once_differentiable
    def backward(ctx, do: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, o, L = ctx.saved_tensors
        do, dq, delta = _readable(do), _empty(q), torch.empty_like(L)
        _launch(_backward_queries, [q, k, v, o, do, dq], [L, delta], ctx.causal, ctx.tile)
        if not any(ctx.needs_input_grad[1:3]):  # k and v of a text, by frozen projections
            return dq, None, None, None, None
        dk, dv = _empty(k), _empty(v)
        _launch(_backward_keys, [q, k, v, do, dk, dv], [L, delta], ctx.causal, ctx.tile)
        return dq, dk, dv, None, None


def _readable(x: Tensor) -> Tensor:
    """x itself where the kernels can address it, rows in one piece and steps that are multiples of 8; else a copy."""
    even = all(length == 1 or step % 8 == 0 for length, step in zip(x.shape[:3], x.stride()))
    return x if even and x.stride(3) == 1 else x.contiguous()


def _empty(x: Tensor) -> Tensor:
    """New memory for x (B, N, T, K), laid out as (B, T, N, K): the heads join without a copy."""
    return x.new_empty([x.shape[i] for i in (0, 2, 1, 3)]).transpose(1, 2)


def _launch(kernel, heads: list[Tensor], rows: list[Tensor], causal: bool, tile: Tile) -> None:
    """`kernel` on `heads` (q, k, others, a result) and `rows` (B, N, T), a program for every tile of the result."""
    q, k, *_, result = heads
    batch, number, length, width = result.shape
    # strides in units of 8, so that the compiler sees multiples of 8 and moves 16 bytes at a time
    places = [(x, *(step // 8 for step in x.stride()[:3])) for x in heads]
    with torch.cuda.device_of(q):
        kernel[(batch * number * triton.cdiv(length, tile.stay),)](
            *places,
            *rows,
            number,
            q.shape[2],
            k.shape[2],
            width**-0.5,
            causal,
            width,
            *parts(width),
            tile.stay,
            tile.passing,
            num_warps=tile.num_warps,
            num_stages=tile.num_stages,
        )


@triton.jit
def _forward(
    q_at,
    k_at,
    v_at,
    o_at,
    L_at,
    N,
    T,
    S,
    scale,
    CAUSAL: tl.constexpr,
    K: tl.constexpr,
    K0: tl.constexpr,
    K1: tl.constexpr,
    STAY: tl.constexpr,
    PASS: tl.constexpr,
):
    b, n, first = _place(N, T, STAY)
    bits = scale * LOG2E
    queries = first + tl.arange(0, STAY)
    q = _load(q_at, b, n, queries, T, K, K0, K1)  # (queries, K)
    m = tl.full((STAY,), float("-inf"), tl.float32)
    l = tl.zeros((STAY,), tl.float32)  # noqa: E741
    o = _zeros(q)
    for start in range(0, _end(first + STAY, S, CAUSAL), PASS):
        keys = start + tl.arange(0, PASS)
        k = _load(k_at, b, n, keys, S, K, K0, K1)  # (keys, K)
        v = _load(v_at, b, n, keys, S, K, K0, K1)
        s = _inner(q, k)  # (queries, keys)
        if start + PASS > _end(first + 1, S, CAUSAL):  # some query does not see some key
            s = tl.where(_sees(queries[:, None], keys[None, :], S, CAUSAL), s, float("-inf"))
        larger = tl.maximum(m, tl.max(s, 1) * bits)
        p = tl.exp2(s * bits - larger[:, None])
        shrink = tl.exp2(m - larger)
        l = l * shrink + tl.sum(p, 1)  # noqa: E741
        o = _add_product(_times(o, shrink[:, None]), p, v)
        m = larger
    _store(o_at, b, n, queries, T, K, K0, K1, _times(o, 1 / l[:, None]))
    tl.store(L_at + (b * N + n) * T + queries, m + tl.log2(l), mask=queries < T)


@triton.jit
def _backward_queries(
    q_at,
    k_at,
    v_at,
    o_at,
    do_at,
    dq_at,
    L_at,
    delta_at,
    N,
    T,
    S,
    scale,
    CAUSAL: tl.constexpr,
    K: tl.constexpr,
    K0: tl.constexpr,
    K1: tl.constexpr,
    STAY: tl.constexpr,
    PASS: tl.constexpr,
):
    b, n, first = _place(N, T, STAY)
    bits = scale * LOG2E
    queries = first + tl.arange(0, STAY)
    q = _load(q_at, b, n, queries, T, K, K0, K1)  # (queries, K)
    do = _load(do_at, b, n, queries, T, K, K0, K1)
    delta = _row_sum(do, _load(o_at, b, n, queries, T, K, K0, K1))  # (queries,)
    L = tl.load(L_at + (b * N + n) * T + queries, mask=queries < T, other=0.0)
    tl.store(delta_at + (b * N + n) * T + queries, delta, mask=queries < T)
    dq = _zeros(q)
    for start in range(0, _end(first + STAY, S, CAUSAL), PASS):
        keys = start + tl.arange(0, PASS)
        k = _load(k_at, b, n, keys, S, K, K0, K1)  # (keys, K)
        v = _load(v_at, b, n, keys, S, K, K0, K1)
        p = tl.exp2(_inner(q, k) * bits - L[:, None])  # (queries, keys)
        if start + PASS > _end(first + 1, S, CAUSAL):
            p = tl.where(_sees(queries[:, None], keys[None, :], S, CAUSAL), p, 0.0)
        ds = p * (_inner(do, v) - delta[:, None])
        dq = _add_product(dq, ds, k)
    _store(dq_at, b, n, queries, T, K, K0, K1, _times(dq, scale))


@triton.jit
def _backward_keys(
    q_at,
    k_at,
    v_at,
    do_at,
    dk_at,
    dv_at,
    L_at,
    delta_at,
    N,
    T,
    S,
    scale,
    CAUSAL: tl.constexpr,
    K: tl.constexpr,
    K0: tl.constexpr,
    K1: tl.constexpr,
    STAY: tl.constexpr,
    PASS: tl.constexpr,
):
    b, n, first = _place(N, S, STAY)
    bits = scale * LOG2E
    keys = first + tl.arange(0, STAY)
    k = _load(k_at, b, n, keys, S, K, K0, K1)  # (keys, K)
    v = _load(v_at, b, n, keys, S, K, K0, K1)
    dk = _zeros(k)
    dv = _zeros(v)
    for start in range(first if CAUSAL else 0, T, PASS):
        queries = start + tl.arange(0, PASS)
        q = _load(q_at, b, n, queries, T, K, K0, K1)  # (queries, K)
        do = _load(do_at, b, n, queries, T, K, K0, K1)
        L = tl.load(L_at + (b * N + n) * T + queries, mask=queries < T, other=float("inf"))  # p = 0 past the end
        delta = tl.load(delta_at + (b * N + n) * T + queries, mask=queries < T, other=0.0)
        p = tl.exp2(_inner(k, q) * bits - L[None, :])  # (keys, queries), the transpose of p and ds above
        if CAUSAL:
            p = tl.where(_sees(queries[None, :], keys[:, None], S, CAUSAL), p, 0.0)
        dv = _add_product(dv, p, do)
        ds = p * (_inner(v, do) - delta[None, :])
        dk = _add_product(dk, ds, q)
    _store(dk_at, b, n, keys, S, K, K0, K1, _times(dk, scale))
    _store(dv_at, b, n, keys, S, K, K0, K1, dv)


@triton.jit
def _place(N, length, SIZE: tl.constexpr):
    """Sample, head and first row of this program's tile; 64 bits, for a batch may pass 2^31 numbers."""
    tiles = tl.cdiv(length, SIZE)
    head = (tl.program_id(0) // tiles).to(tl.int64)
    return head // N, head % N, tl.program_id(0) % tiles * SIZE


@triton.jit
def _end(queries, S, CAUSAL: tl.constexpr):
    """How many keys the last of so many queries sees."""
    if CAUSAL:
        return tl.minimum(queries, S)
    else:
        return S


@triton.jit
def _sees(queries, keys, S, CAUSAL: tl.constexpr):
    if CAUSAL:
        return (keys < S) & (keys <= queries)
    else:
        return keys < S


@triton.jit
def _part(at, b, n, rows, length, K: tl.constexpr, FROM: tl.constexpr, WIDTH: tl.constexpr):
    """Where WIDTH columns of these rows of head n lie, and which exist; at = (pointer, steps over B, N, T by 8)."""
    columns = FROM + tl.arange(0, WIDTH)
    head = at[0] + (b * at[1] + n * at[2]) * 8
    return head + rows[:, None] * (at[3] * 8) + columns[None, :], (rows[:, None] < length) & (columns[None, :] < K)


@triton.jit
def _load(at, b, n, rows, length, K: tl.constexpr, K0: tl.constexpr, K1: tl.constexpr):
    """Rows of head n of sample b, zeros where there are none: (rows, K0) and, if K1 is not 0, (rows, K1)."""
    where, exist = _part(at, b, n, rows, length, K, 0, K0)
    one = tl.load(where, mask=exist, other=0.0)
    if K1 == 0:
        return (one,)
    else:
        where, exist = _part(at, b, n, rows, length, K, K0, K1)
        return one, tl.load(where, mask=exist, other=0.0)


@triton.jit
def _store(at, b, n, rows, length, K: tl.constexpr, K0: tl.constexpr, K1: tl.constexpr, x):
    where, exist = _part(at, b, n, rows, length, K, 0, K0)
    tl.store(where, x[0].to(at[0].dtype.element_ty), mask=exist)
    if len(x) == 2:
        where, exist = _part(at, b, n, rows, length, K, K0, K1)
        tl.store(where, x[1].to(at[0].dtype.element_ty), mask=exist)


@triton.jit
def _zeros(x):
    """Sums to begin with, of the shape of x, float32."""
    if len(x) == 1:
        return (tl.zeros(x[0].shape, tl.float32),)
    else:
        return tl.zeros(x[0].shape, tl.float32), tl.zeros(x[1].shape, tl.float32)


@triton.jit
def _times(x, factor):
    """x * factor."""
    if len(x) == 1:
        return (x[0] * factor,)
    else:
        return x[0] * factor, x[1] * factor


@triton.jit
def _row_sum(x, y):
    """rowsum(x * y): (R, K), (R, K) -> (R,), float32."""
    total = tl.sum(x[0].to(tl.float32) * y[0].to(tl.float32), 1)
    if len(x) == 2:
        total += tl.sum(x[1].to(tl.float32) * y[1].to(tl.float32), 1)
    return total


@triton.jit
def _inner(x, y):
    """x y^T: (R, K), (C, K) -> (R, C), float32."""
    total = tl.dot(x[0], tl.trans(y[0]), input_precision="ieee")
    if len(x) == 2:
        total = tl.dot(x[1], tl.trans(y[1]), total, input_precision="ieee")
    return total


@triton.jit
def _add_product(total, a, x):
    """total + a x: (R, K), (R, C), (C, K) -> (R, K), float32; a is rounded to the dtype of x, as its products are."""
    a = a.to(x[0].dtype)
    one = tl.dot(a, x[0], total[0], input_precision="ieee")
    if len(x) == 1:
        return (one,)
    else:
        return one, tl.dot(a, x[1], total[1], input_precision="ieee")
