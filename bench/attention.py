"""Milliseconds per call of the attention backends `reference`, `grouped` and `sdpa`: python -m bench.attention

They run in turn, round after round, in shapes that the package meets, so that a busy machine slows all alike; the
median counts. "train" is forward and backward. q, k and v are views of one fused projection, as in a DiT. On a GPU
with Triton a second table compares torch's kernels and `fused`.
"""

import time
from collections.abc import Callable
from functools import partial

import torch
from einops import rearrange
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from ops.attention import grouped, has_triton, reference, sdpa

SHAPES = [  # B, N, T, K
    (128, 6, 64, 32),  # training the package's own small DiT
    (2, 16, 256, 72),  # DiT-XL/2 at 256 pixels, one guided sample
    (2, 16, 1024, 72),  # DiT-XL/2 at 512 pixels
    (1, 8, 2048, 40),
    (1, 8, 4096, 40),  # Stable Diffusion's first level at 512 pixels
]

GPU_SHAPES = [  # B, N, T, S, K
    (8, 16, 256, 256, 72),  # DiT-XL/2 at 256 pixels
    (8, 16, 1024, 1024, 72),  # at 512 pixels
    (8, 8, 4096, 4096, 40),  # Stable Diffusion at 512 pixels, level by level
    (8, 8, 1024, 1024, 80),
    (8, 8, 256, 256, 160),
    (8, 8, 4096, 77, 40),  # and its text
    (8, 8, 1024, 77, 80),
    (8, 8, 256, 77, 160),
]
BACKENDS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.CUDNN_ATTENTION]


def forward(attend: Callable, qkv: Tensor, heads: int) -> Tensor:
    """qkv (B, T, 3 N K) -> (B, N, T, K)."""
    q, k, v = rearrange(qkv, "b t (three n k) -> three b n t k", three=3, n=heads)
    return attend(q, k, v)


def train(attend: Callable, qkv: Tensor, heads: int) -> Tensor:
    """The gradient of the output's sum with respect to qkv, (B, T, 3 N K)."""
    qkv = qkv.detach().requires_grad_()
    forward(attend, qkv, heads).sum().backward()
    return qkv.grad


def milliseconds(work: Callable, qkv: Tensor, heads: int, seconds: float) -> list[float]:
    """Median time of `work` by reference, grouped and sdpa, in turn for so many seconds; the first round is warm-up."""
    times = {reference: [], grouped: [], sdpa: []}
    end = float("inf")
    while time.perf_counter() < end:
        for attend, durations in times.items():
            start = time.perf_counter()
            work(attend, qkv, heads)
            if qkv.is_cuda:
                torch.cuda.synchronize()
            durations.append(1000 * (time.perf_counter() - start))
        end = min(end, time.perf_counter() + seconds)
    return [torch.tensor(each[1:] or each).median().item() for each in times.values()]


def once(attend: Callable, q: Tensor, k: Tensor, v: Tensor, do: Tensor | None) -> Tensor | tuple[Tensor, ...]:
    """The output (B, N, T, K), or with its gradient `do` those of q, k and v."""
    with torch.set_grad_enabled(do is not None):
        out = attend(q, k, v)
    return out if do is None else torch.autograd.grad(out, (q, k, v), do)


def on_gpu(shapes: list[tuple[int, int, int, int, int]] = GPU_SHAPES) -> None:
    """Prints microseconds per call of torch's kernels and `fused`, replayed from a CUDA graph without launch cost."""
    from triton.testing import do_bench_cudagraph

    from ops.fused import fused

    def by(backend: SDPBackend) -> Callable:
        def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            with sdpa_kernel(backend):
                return sdpa(q, k, v)

        return attend

    kernels = {backend.name.split("_")[0].lower(): by(backend) for backend in BACKENDS} | {"fused": fused}
    print(f"torch {torch.__version__}, {torch.cuda.get_device_name()}, bfloat16, us per call")
    print(f"{'B x N x T x S x K':>24} {'':7}" + "".join(f"{name:>10}" for name in kernels))
    for batch, heads, tokens, keys, width in shapes:
        rows = [torch.randn(batch, n, heads * width, device="cuda", dtype=torch.bfloat16) for n in (tokens, keys, keys)]
        q, k, v = (rearrange(x, "b t (n k) -> b n t k", n=heads).requires_grad_() for x in rows)
        for name in ("forward", "train"):
            line = f"{batch} x {heads} x {tokens} x {keys} x {width}"
            print(f"{line:>24} {name:7}", end="")
            for attend in kernels.values():
                do = torch.randn_like(q)

                work = partial(once, attend, q, k, v, do if name == "train" else None)
                try:
                    print(f"{1000 * do_bench_cudagraph(work, return_mode='median'):10.1f}", end="", flush=True)
                except RuntimeError:  # torch has no such kernel for these
                    print(f"{'-':>10}", end="", flush=True)
            print()


def main(shapes: list[tuple[int, int, int, int]] = SHAPES, seconds: float = 3) -> None:
    """Prints a line per dtype, shape and work: the three times in ms, and `grouped` as a share of `sdpa`."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    name = torch.cuda.get_device_name() if device == "cuda" else torch.backends.cpu.get_cpu_capability()
    print(f"torch {torch.__version__}, {device} ({name}), {torch.get_num_threads()} CPU threads, ms per call")
    print(f"{'dtype':8} {'B x N x T x K':>18} {'':7} reference  grouped     sdpa  grouped/sdpa")
    for dtype in (torch.float32, torch.bfloat16):
        for batch, heads, tokens, width in shapes:
            qkv = torch.randn(batch, tokens, 3 * heads * width, device=device).to(dtype)
            for work in (forward, train):
                one, two, three = milliseconds(work, qkv, heads, seconds)
                shape = f"{batch} x {heads} x {tokens} x {width}"
                times = f"{one:9.2f}{two:9.2f}{three:9.2f}{two / three:14.2f}"
                print(f"{str(dtype)[6:]:8} {shape:>18} {work.__name__:7} {times}", flush=True)


if __name__ == "__main__":
    main()
    if torch.cuda.is_available() and has_triton():
        on_gpu()
