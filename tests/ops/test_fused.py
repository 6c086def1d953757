"""The Triton kernels against the equation in float64: compiled where there is a GPU, else by Triton's interpreter."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from einops import rearrange

from ops.attention import reference

GPU = torch.cuda.is_available()
DEVICE = "cuda" if GPU else "cpu"
if not GPU:
    os.environ["TRITON_INTERPRET"] = "1"  # read when triton is imported
triton = pytest.importorskip("triton")
from ops import fused  # noqa: E402

# another test file (of diffusers, say) may have imported triton before, without the interpreter
TOO_LATE = not GPU and isinstance(triton.language.sum, triton.JITFunction)
here = pytest.mark.skipif(TOO_LATE, reason="runs in the process that test_the_rest_in_a_fresh_process starts")
TILES = (fused.Tile(16, 16, 4, 2),) * 2  # so small that few tokens make several


@pytest.mark.skipif(not TOO_LATE, reason="the interpreter is on already")
def test_the_rest_in_a_fresh_process():
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__]
    run = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert run.returncode == 0, run.stdout[-3000:]


def random_qkv(tokens, keys, width, dtype=torch.float32, batch=1, heads=1):
    generator = torch.Generator().manual_seed(0)
    shapes = [(batch, heads, tokens, width), (batch, heads, keys, width), (batch, heads, keys, width)]
    return [torch.randn(shape, generator=generator).to(DEVICE, dtype).requires_grad_() for shape in shapes]


def assert_exact(q, k, v, causal=False, tiles=TILES, atol=1e-5, rtol=1e-5):
    """Output and gradients against `reference` in float64; atol counts in the largest number of each."""
    exact = [x.detach().double().requires_grad_() for x in (q, k, v)]
    outs = fused.fused(q, k, v, causal, tiles), reference(*exact, causal=causal)
    weight = torch.randn(outs[0].shape, generator=torch.Generator().manual_seed(1)).to(q)
    found = [outs[0], *torch.autograd.grad(outs[0], (q, k, v), weight)]
    wanted = [outs[1], *torch.autograd.grad(outs[1], exact, weight.double())]
    for one, other in zip(found, wanted):
        assert one.dtype == q.dtype
        torch.testing.assert_close(one.double(), other, atol=atol * other.abs().max().item(), rtol=rtol)


@here
@pytest.mark.parametrize(
    ("tokens", "keys", "causal"),
    [
        (32, 32, False),  # whole tiles
        (37, 37, False),
        (20, 77, False),  # a text
        (37, 37, True),
        (20, 37, True),  # keys that nobody sees
        (37, 20, True),
    ],
)
def test_lengths_that_no_tile_divides(tokens, keys, causal):
    assert_exact(*random_qkv(tokens, keys, width=72), causal)


@here
@pytest.mark.parametrize("width", [8, 32, 40, 64, 80, 128, 160])
def test_head_widths(width):
    assert_exact(*random_qkv(20, 20, width))


@here
def test_float16_is_as_exact_as_float16():
    eps = torch.finfo(torch.float16).eps  # p, ds and the results are rounded to it
    assert_exact(*random_qkv(20, 37, width=40, dtype=torch.float16), atol=2 * eps, rtol=2 * eps)


@here
def test_the_tiles_that_it_chooses():
    assert_exact(*random_qkv(20, 20, width=40), tiles=None)


@here
def test_each_head_of_each_sample_where_a_fused_projection_left_it():
    qkv = torch.randn(2, 17, 3 * 2 * 40, generator=torch.Generator().manual_seed(0)).to(DEVICE).requires_grad_()
    q, k, v = rearrange(qkv, "b t (three n k) -> three b n t k", three=3, n=2)
    assert all(fused._readable(x) is x for x in (q, k, v))
    assert_exact(q, k, v)
    out = fused.fused(q, k, v, tiles=TILES)
    assert rearrange(out, "b n t k -> b t (n k)").data_ptr() == out.data_ptr()  # heads join without a copy


@here
def test_other_strides_are_copied():
    q, k, v = random_qkv(17, 17, width=40)
    columns = q.detach().transpose(2, 3).contiguous().transpose(2, 3).requires_grad_()
    gap = torch.cat([k.detach(), k.detach()], dim=3)[..., 18:58].requires_grad_()  # begins off 16 bytes
    odd = torch.cat([v.detach(), v.detach()[..., :1]], dim=3)[..., :40].requires_grad_()  # rows 41 apart
    assert_exact(columns, gap, odd)


@here
def test_large_scores_do_not_overflow():
    q, k, v = random_qkv(17, 20, width=32)
    big = (300 * q.detach()).requires_grad_()  # exp(300) is infinite in float32
    assert_exact(big, k, v, atol=1e-4)  # a score of 300 is known to 300 * 2^-24


@here
def test_frozen_keys_and_values_get_no_gradient():
    q, k, v = random_qkv(17, 20, width=32)
    wanted = torch.autograd.grad(reference(q, k, v).sum(), q)
    found = torch.autograd.grad(fused.fused(q, k.detach(), v.detach(), tiles=TILES).sum(), q)
    torch.testing.assert_close(found, wanted)


@here
def test_the_gradient_has_no_gradient():
    q, k, v = random_qkv(16, 16, width=16)
    (dq,) = torch.autograd.grad(fused.fused(q, k, v, tiles=TILES).square().sum(), q, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        dq.sum().backward()


@pytest.mark.parametrize(
    ("width", "parts"),
    [
        (8, (16, 0)),
        (24, (32, 0)),
        (32, (32, 0)),
        (40, (32, 16)),
        (64, (64, 0)),
        (72, (64, 16)),
        (80, (64, 16)),
        (112, (128, 0)),
        (128, (128, 0)),
        (160, (128, 32)),
    ],
)
def test_a_width_is_two_powers_of_two(width, parts):
    assert fused.parts(width) == parts


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((1, 1, 4, 168), torch.float32),
        ((1, 1, 4, 12), torch.float32),
        ((1, 1, 4, 16), torch.float64),
        ((1, 4, 16), torch.float32),
        ((1, 1, 0, 16), torch.float32),
    ],
)
def test_what_it_cannot_do_it_refuses(shape, dtype):
    x = torch.zeros(shape, dtype=dtype, device=DEVICE)
    assert not fused.available(x, x, x)
    with pytest.raises(ValueError, match="multiple of 8 up to 160; found .*" + str(dtype)[6:]):
        fused.fused(x, x, x)


def test_keys_of_another_batch_or_dtype_are_refused():
    q, k, v = random_qkv(4, 4, width=16)
    for other in (k.expand(2, -1, -1, -1), k.half()):
        with pytest.raises(ValueError, match="found"):
            fused.fused(q, other, other)


def test_it_is_available_on_a_gpu_alone():
    assert not fused.available(*(x.cpu() for x in random_qkv(4, 4, width=16)))


def test_the_package_imports_without_triton():
    code = "import sys, ops; assert 'triton' not in sys.modules and 'ops.fused' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


@pytest.mark.skipif(not GPU, reason="needs a GPU")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize(
    ("heads", "tokens", "keys", "width", "causal"),
    [
        (16, 256, 256, 72, False),  # DiT-XL/2 at 256 pixels
        (4, 1024, 1024, 72, False),
        (8, 1024, 1024, 40, False),  # Stable Diffusion
        (8, 1000, 77, 80, False),
        (8, 250, 250, 160, False),
        (12, 77, 77, 64, True),  # its text encoder
        (2, 300, 300, 128, True),
    ],
)
def test_at_full_size(heads, tokens, keys, width, causal, dtype):
    q, k, v = random_qkv(tokens, keys, width, dtype, batch=2, heads=heads)
    assert fused.available(q, k, v)
    eps = torch.finfo(dtype).eps
    assert_exact(q, k, v, causal, tiles=None, atol=max(2 * eps, 1e-5), rtol=max(2 * eps, 1e-5))
