"""Every backend of attention computes the same equation."""

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ops import attention
from ops.attention import BACKENDS, auto, grouped, reference, sdpa, set_backend

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


def test_grouped_agrees_over_several_groups_forward_and_backward():
    inputs = [x.requires_grad_() for x in random_qkv()]
    for mask in masks():  # two heads at a time, six in all
        outs = grouped(*inputs, mask, scores=2 * 5 * 7), reference(*inputs, mask)
        torch.testing.assert_close(*outs)
        torch.testing.assert_close(*[torch.autograd.grad(out.square().sum(), inputs) for out in outs])


@pytest.mark.parametrize("tokens", [64, 2049])
def test_bfloat16_on_cpu_is_close_to_float64(tokens):
    q, k, v = random_qkv(tokens=tokens, keys=tokens, batch=1, heads=1, dtype=torch.bfloat16)
    out = attention(q, k, v)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.double(), reference(q.double(), k.double(), v.double()), atol=0.02, rtol=0.02)


@pytest.mark.parametrize(
    ("dtype", "tokens", "backend"),
    [(torch.bfloat16, 64, grouped), (torch.bfloat16, 2049, sdpa), (torch.float32, 64, sdpa)],
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
