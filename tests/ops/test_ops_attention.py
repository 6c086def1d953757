"""Every backend of attention computes the same equation."""

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ops import attention
from ops.attention import BACKENDS, HAS_AMX, auto, grouped, reference, sdpa, set_backend

ROOT = Path(__file__).parents[2]


def random_qkv(tokens=5, keys=7, batch=2, heads=3, width=8, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    shapes = [(batch, heads, tokens, width), (batch, heads, keys, width), (batch, heads, keys, width)]
    return [torch.randn(shape, generator=generator).to(dtype) for shape in shapes]


@pytest.fixture
def restored():
    """The backend of the process is auto again afterwards."""
    yield
    set_backend("auto")


def masks(tokens=5, keys=7, batch=2):
    some = torch.rand(batch, 1, tokens, keys, generator=torch.Generator().manual_seed(1)) > 0.5
    some[..., 0] = True  # every query may attend somewhere
    return [None, some, some[:, :, :1], some[0, 0]]


def test_reference_is_the_equation():
    q, k, v = torch.tensor([[[[2.0]]]]), torch.tensor([[[[1.0], [0.0]]]]), torch.tensor([[[[1.0], [0.0]]]])
    weight = math.exp(2) / (math.exp(2) + 1)  # scores 2 and 0, K = 1
    assert reference(q, k, v).item() == pytest.approx(weight)


def test_reference_divides_scores_by_the_root_of_the_head_width():
    q = k = torch.full((1, 1, 1, 4), 1.0)
    k = torch.cat([k, torch.zeros(1, 1, 1, 4)], dim=2)  # scores 4 / 2 and 0
    v = torch.tensor([[[[1.0], [0.0]]]])
    assert reference(q, k, v).item() == pytest.approx(math.exp(2) / (math.exp(2) + 1))


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("mask", masks(), ids=["no mask", "per query", "per key", "shared"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_all_backends_agree(backend, mask, causal, restored):
    set_backend(backend)
    q, k, v = random_qkv()
    torch.testing.assert_close(attention(q, k, v, mask, causal), reference(q, k, v, mask, causal), atol=1e-6, rtol=1e-5)


def test_causal_query_sees_only_its_past():
    q, k, v = random_qkv(tokens=6, keys=6)
    torch.testing.assert_close(reference(q, k, v, causal=True)[:, :, 0], v[:, :, 0])
    later = v.clone()
    later[:, :, 3:] = 0
    assert torch.equal(reference(q, k, v, causal=True)[:, :, :3], reference(q, k, later, causal=True)[:, :, :3])


@pytest.mark.parametrize("scores", [2 * 5 * 7, 5 * 7, 2 * 7, 1], ids=["two heads", "one", "two queries", "one query"])
@pytest.mark.parametrize("causal", [False, True])
def test_grouped_agrees_over_several_parts_forward_and_backward(scores, causal):
    inputs = [x.requires_grad_() for x in random_qkv()]  # six heads in all, five queries each
    for mask in masks():
        outs = grouped(*inputs, mask, causal, scores), reference(*inputs, mask, causal)
        torch.testing.assert_close(*outs)
        torch.testing.assert_close(*[torch.autograd.grad(out.square().sum(), inputs) for out in outs])


def test_the_gradients_of_many_parts_are_summed_in_float32():
    inputs = [x.requires_grad_() for x in random_qkv(tokens=512, keys=32, dtype=torch.bfloat16)]
    exact = [x.detach().double().requires_grad_() for x in inputs]
    for parts in (1, 512):
        found = torch.autograd.grad(grouped(*inputs, scores=512 * 32 // parts).float().square().sum(), inputs)
        for a, b in zip(found, torch.autograd.grad(reference(*exact).square().sum(), exact), strict=True):
            assert (a - b).norm() < 0.01 * b.norm()


def test_grouped_under_autocast_has_gradients_of_the_type_of_its_inputs():
    inputs = [x.requires_grad_() for x in random_qkv()]
    with torch.autocast("cpu", torch.bfloat16):
        out = grouped(*inputs, scores=2 * 7)
    found, expected = (torch.autograd.grad(y.float().square().sum(), inputs) for y in (out, reference(*inputs)))
    assert out.dtype == torch.bfloat16 and {x.dtype for x in found} == {torch.float32}
    torch.testing.assert_close(found, expected, atol=0.05, rtol=0.05)


@pytest.mark.parametrize("tokens", [64, 2049])
def test_bfloat16_on_cpu_is_close_to_float64(tokens):
    q, k, v = random_qkv(tokens=tokens, keys=tokens, batch=1, heads=1, dtype=torch.bfloat16)
    out = attention(q, k, v)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.double(), reference(q.double(), k.double(), v.double()), atol=0.02, rtol=0.02)


@pytest.mark.parametrize(
    ("dtype", "tokens", "backend"),
    [(torch.bfloat16, 64, grouped), (torch.bfloat16, 2049, sdpa if HAS_AMX else grouped), (torch.float32, 64, sdpa)],
)
def test_auto_chooses_by_dtype_and_length(dtype, tokens, backend):
    q, k, v = random_qkv(tokens=tokens, keys=tokens, batch=1, heads=1, dtype=dtype)
    assert torch.equal(attention(q, k, v), backend(q, k, v)) and torch.equal(auto(q, k, v), backend(q, k, v))


@pytest.mark.parametrize("name", BACKENDS)
def test_the_environment_sets_the_backend(name):
    code = f"import sys; import ops; a = sys.modules['ops.attention']; assert a._backend is a.BACKENDS['{name}']"
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | {"GRAFT_ATTENTION": name}, cwd=ROOT)


def test_the_backend_that_is_set_computes(restored):
    q, k, v = random_qkv(dtype=torch.bfloat16)
    for name in ("reference", "sdpa"):
        set_backend(name)
        assert torch.equal(attention(q, k, v), BACKENDS[name](q, k, v))
    with pytest.raises(ValueError, match="one of auto, reference, grouped, sdpa, fused, found 'flash'"):
        set_backend("flash")
