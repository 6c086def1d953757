"""OFT against its equation written with the whole matrix R, and against PEFT."""

import pytest
import torch
from torch import nn

import adapters


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def adapted(layer: nn.Module, options="blocks=4", std=0.3) -> nn.Sequential:
    model = adapters.attach(nn.Sequential(layer), f"oft:{options},targets=0")
    nn.init.normal_(layer.oft_m, std=std)
    return model


def whole(m: torch.Tensor, blocks: int) -> torch.Tensor:
    """R (in, in) in double, by the inverse."""
    s = (m.detach().double() - m.detach().double().mT) / 2
    one = torch.eye(s.shape[-1], dtype=torch.double)
    turns = [(one - each) @ torch.linalg.inv(one + each) for each in s]
    return torch.block_diag(*turns * (blocks if len(turns) == 1 else 1))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("options", ["blocks=4", "blocks=3,share=1", "blocks=1"])
def test_forward_and_merge_are_w_r_transposed(options, bias):
    layer, x = nn.Linear(12, 10, bias=bias), torch.randn(2, 5, 12)
    w, b = layer.weight.detach().double(), layer.bias.detach().double() if bias else 0
    model = adapted(layer, options)
    turned = w @ whole(layer.oft_m, layer.oft_blocks).T
    torch.testing.assert_close(model(x), (x.double() @ turned.T + b).float(), atol=1e-6, rtol=1e-5)
    assert len(layer.oft_m) == (1 if "share" in options else layer.oft_blocks)

    adapters.merge(model)
    torch.testing.assert_close(model[0].weight.detach(), turned.float(), atol=1e-6, rtol=1e-5)


def test_rows_keep_their_norms_and_angles():
    layer = nn.Linear(320, 24)
    model, before = adapted(layer, std=1.0), layer.weight.detach().double()
    r = layer.oft_rotations().detach()
    torch.testing.assert_close(r @ r.mT, torch.eye(80).expand(4, 80, 80), atol=3e-6, rtol=0)
    adapters.merge(model)
    after = layer.weight.detach().double()
    assert not torch.allclose(after, before, atol=0.01)
    torch.testing.assert_close(after @ after.T, before @ before.T, atol=3e-6, rtol=0)


def test_a_large_m_is_as_if_it_lay_on_the_ball_and_a_small_one_is_free():
    """eps N^2 / sqrt(4) = 0.9 here, with blocks of N = 3."""
    layer, x = nn.Linear(12, 10), torch.randn(5, 12)
    model = adapted(layer, "blocks=4,eps=0.2")
    m = layer.oft_m.detach()
    m *= torch.tensor([0.1, 0.89, 0.91, 5.0])[:, None, None] / m.norm(dim=(1, 2), keepdim=True)
    kept, out = m.clone(), model(x)
    out.sum().backward()
    assert torch.equal(layer.oft_m, kept) and layer.oft_m.grad.isfinite().all()
    # what points out of the ball has no effect, and so no gradient
    outward = (layer.oft_m.grad * kept).sum((1, 2))
    assert outward[:2].abs().min() > 1e-4 and outward[2:].abs().max() < 1e-6

    m[2:] *= 0.9 / m[2:].norm(dim=(1, 2), keepdim=True)
    free = adapters.attach(nn.Sequential(nn.Linear(12, 10)), "oft:blocks=4,targets=0")
    free.load_state_dict(model.state_dict())
    torch.testing.assert_close(out, free(x), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(out, adapters.merge(model)(x), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("eps", [0.0, 1e-9])
def test_the_gradient_at_the_start_is_skew(eps):
    model = adapters.attach(nn.Sequential(nn.Linear(12, 10)), f"oft:targets=0,eps={eps}")
    model(torch.randn(3, 12)).square().sum().backward()
    gradient = model[0].oft_m.grad
    assert gradient.any() and torch.equal(gradient, -gradient.mT)


def test_the_adapter_has_the_layers_dtype_and_turns_in_float32():
    layer = nn.Linear(64, 64, bias=False).bfloat16()
    model = adapted(layer)
    exact = layer.weight.detach().double() @ whole(layer.oft_m, 4).T
    assert layer.oft_m.dtype == torch.bfloat16 and layer.oft_rotations().dtype == torch.float32
    assert model(torch.randn(3, 64, dtype=torch.bfloat16)).dtype == torch.bfloat16
    adapters.merge(model)
    # one rounding to bf16's 8 bits, none on the way
    torch.testing.assert_close(layer.weight.double(), exact, rtol=1.01 * 2**-8, atol=1e-6)


def test_over_lora_its_path_is_turned_too():
    layer, x = nn.Linear(12, 10), torch.randn(5, 12)
    w, b = layer.weight.detach().clone(), layer.bias.detach()
    model = adapters.attach(nn.Sequential(layer), ["lora:targets=0", "oft:targets=0"])
    for p in adapters.trainable_parameters(model).values():
        nn.init.normal_(p, std=0.3)
    low_rank, r = layer.lora_up.detach() @ layer.lora_down.detach(), whole(layer.oft_m, 4).float()
    torch.testing.assert_close(model(x), x @ r @ (w + low_rank).T + b, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(adapters.merge(model)[0].weight.detach(), (w + low_rank) @ r.T, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("blocks=5", "cannot rotate 1: its input is 6 wide, expected 5 equal blocks of at least 2"),
        ("blocks=6", "its input is 6 wide, expected 6 equal blocks"),
        ("blocks=0", "expected 0 equal blocks"),
        ("share=2", "needs share 0 or 1 and a finite eps >= 0, found share 2, eps 0.0"),
        ("eps=-1", "share 0, eps -1.0"),
        ("eps=nan", "'eps' must be at most 100,000, found 'nan'"),
        ("targets=conv", "adapter oft: matched no layer: pattern 'conv', the model has "),
    ],
)
def test_refused(options, message):
    model = nn.Sequential(nn.Linear(30, 6), nn.Linear(6, 3))
    with pytest.raises(ValueError, match=message):
        adapters.attach(model, f"oft:{options}" if "targets" in options else f"oft:targets=,{options}")
    assert type(model[0]) is nn.Linear


class Tiny(nn.Module):
    """Two projections with a nonlinearity between, named as in the text tower."""

    def __init__(self):
        super().__init__()
        self.attn = nn.ModuleDict({"to_q": nn.Linear(12, 8), "to_k": nn.Linear(8, 6, bias=False)})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.attn["to_k"](torch.tanh(self.attn["to_q"](x)))


PEFT = {  # our options: PEFT's, whose eps lacks the factor N^2
    "blocks=2": {"r": 2},
    "blocks=2,share=1": {"r": 2, "block_share": True},
    r"blocks=4,eps=0.05,targets=to_q$": {"r": 4, "coft": True, "eps": 0.05 * 3**2, "target_modules": r".*to_q"},
}


@pytest.mark.parametrize("options", PEFT)
def test_equals_peft(options):
    """PEFT trains the part of S above its diagonal. With M = S, a skew M, that is M's; the rest is common to both."""
    peft = pytest.importorskip("peft")
    ours, x = Tiny(), torch.randn(2, 5, 12)
    theirs = Tiny()
    theirs.load_state_dict(ours.state_dict())
    config = {"oft_block_size": 0, "use_cayley_neumann": False, "target_modules": r".*to_\w"} | PEFT[options]
    theirs = peft.get_peft_model(theirs, peft.OFTConfig(**config))
    adapters.attach(ours, f"oft:{options}")
    pairs = []
    for name, layer in ours.attn.items():
        if hasattr(layer, "oft_m"):
            above = theirs.base_model.model.attn[name].oft_R.default.weight
            nn.init.normal_(above, std=0.3)
            rows, columns = torch.triu_indices(*layer.oft_m.shape[1:], 1)
            with torch.no_grad():
                layer.oft_m[:, rows, columns] = above
                layer.oft_m[:, columns, rows] = -above
            pairs.append((above, layer.oft_m, rows, columns))

    out, expected = ours(x), theirs(x)  # this writes the projection into PEFT's parameter
    torch.testing.assert_close(out, expected, atol=1e-6, rtol=1e-5)
    for y in (out, expected):
        y.square().sum().backward()
    if "eps" not in options:  # there ours sees the projection, and theirs what follows it
        for above, m, rows, columns in pairs:
            ours_above = m.grad[:, rows, columns] - m.grad[:, columns, rows]
            torch.testing.assert_close(ours_above, above.grad, atol=1e-5, rtol=1e-5)

    merged = theirs.merge_and_unload()
    for name, layer in adapters.merge(ours).attn.items():
        torch.testing.assert_close(layer.weight, merged.attn[name].weight, atol=1e-6, rtol=1e-5)
