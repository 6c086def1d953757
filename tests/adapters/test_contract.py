"""What every adapter promises, for each method in METHODS on a class-conditional and on a text-conditional backbone.

Merging gives plain layers where the method is linear in what it adapts; the methods of STAYS are left as they are.
"""

import copy
import inspect
import itertools
import pickle

import pytest
import torch
from einops import rearrange
from torch import nn

import adapters
from dit import DiT, DiTConfig
from unet import TextConditioned, TextConfig, TextEncoder, UNet, UNetConfig

X, T = torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(1)), torch.tensor([7, 700])
WORDS, WORD = 11, 5  # of the text tower's vocabulary, and the one that the learned token starts from
CONDITIONS = {"dit": torch.tensor([0, 3]), "sd": torch.tensor([[1, WORD, 2], [3, 3, WORD]])}

WITHOUT_MEANING = {
    ("classes", "sd"),
    ("crossattn", "dit"),
    (f"tokens:init={WORD}", "dit"),
    ("vpt", "sd"),
    ("vpt:form=shallow", "sd"),
}
STAYS = {"bottleneck", "bottleneck:form=sequential", "vpt", "vpt:form=shallow", "tlora"}
CHANGES_AT_START = {"vpt", "vpt:form=shallow"}  # the tokens of the image attend to the new ones, whatever these hold
CLASH = {"dora", "modulate"}  # both equations are about the plain W of a layer
NOISY = {"bnn", "bnn:parts=norm"}  # in training mode: they draw weights
OPTIONS = {"tokens": f"tokens:init={WORD}"}
SPECS = [
    *(OPTIONS.get(name, name) for name in adapters.METHODS),
    "bottleneck:form=sequential",
    "bnn:parts=norm",
    "vpt:form=shallow",
    "lokr:factor=2,rank=1",
]
CASES = [case for case in itertools.product(SPECS, CONDITIONS) if case not in WITHOUT_MEANING]
ONCE = {"lokr", "lokr:factor=2,rank=1"}  # two specs of one method on the same layers, which take it once
PAIRS = [
    (a, b, backbone)
    for a, backbone in CASES
    for b, other in CASES
    if a != b and backbone == other and {a, b} not in (CLASH, ONCE)
]


def build(backbone: str) -> nn.Module:
    """The same small model at every call, zero tensors perturbed as if pretrained: a new DiT has no gradient inside."""
    torch.manual_seed(0)
    config = DiTConfig(depth=2, width=16, heads=2, patch=2, input_size=4, num_classes=3)
    unet = UNetConfig(channels=(8, 16), text=(True, False), heads=(2, 2), layers=1, text_width=8, groups=2)
    text = TextConfig(WORDS, width=8, layers=2, heads=2, max_length=4)
    model = DiT(config) if backbone == "dit" else TextConditioned(UNet(unet), TextEncoder(text))
    perturb(model, [p for p in model.parameters() if not p.any()], std=0.3)
    return model.eval()


@torch.no_grad()
def perturb(model: nn.Module, parameters=None, std=0.1):
    """N(0, std) on the given parameters, on what trains by default: imitates a training run."""
    generator = torch.Generator().manual_seed(3)
    for p in adapters.trainable_parameters(model).values() if parameters is None else parameters:
        p.add_(std * torch.randn(p.shape, generator=generator))


def attached(specs, backbone: str) -> nn.Module:
    return adapters.attach(build(backbone), specs, torch.Generator().manual_seed(4))


def run(model: nn.Module, backbone: str) -> torch.Tensor:
    with torch.no_grad():
        return model(X, T, condition(model, backbone))


def condition(model: nn.Module, backbone: str) -> torch.Tensor:
    """Labels, or token ids: the learned token, where there is one, in the place of the word that it started from."""
    cond = CONDITIONS[backbone]
    table = model.text.token_embedding if backbone == "sd" else None
    learned = table is not None and table.num_embeddings > WORDS
    return torch.where(cond == WORD, WORDS, cond) if learned else cond


@pytest.fixture
def whole_rearrange():
    """A call of rearrange is one node of the graph; else how it reads its pattern is traced anew at every call.

    These tests are about adapters; those of ops/compiled.py trace through it.
    """
    torch.compiler.allow_in_graph(rearrange)
    yield
    torch._dynamo.trace_rules._allowed_callable_ids.remove(id(rearrange))  # torch has no public way back


@pytest.mark.parametrize(("method", "backbone"), CASES)
def test_forward_signatures_are_unchanged(method, backbone):
    base, model = build(backbone), attached(method, backbone)
    assert inspect.signature(model.forward) == inspect.signature(base.forward)
    for plain, layer in zip(base.modules(), model.modules(), strict=True):
        kinds = [[p.kind for p in inspect.signature(m.forward).parameters.values()] for m in (plain, layer)]
        assert kinds[0] == kinds[1]


@pytest.mark.parametrize(("method", "backbone"), CASES)
def test_base_weights_load_before_and_after_attaching(method, backbone):
    base, model = build(backbone), attached(method, backbone)
    old, new = base.state_dict(), model.state_dict()
    assert all(new[name].shape == tensor.shape for name, tensor in old.items())

    perturb(base, base.parameters())
    report = model.load_state_dict(base.state_dict(), strict=False)
    assert report.unexpected_keys == []
    assert set(report.missing_keys) == set(new) - set(old)
    if method in CHANGES_AT_START:
        return
    with torch.no_grad():  # words of the base's vocabulary: what was learned beside it has not changed
        assert torch.equal(*(m(X, T, CONDITIONS[backbone]) for m in (model, base)))


@pytest.mark.parametrize(("method", "backbone"), CASES)
def test_requires_grad_marks_exactly_what_trains(method, backbone):
    model = attached(method, backbone).train()
    perturb(model)  # away from points such as B = 0, where the gradient of A is 0
    before = {name: p.clone() for name, p in model.named_parameters()}
    (model(X, T, condition(model, backbone)) - 1).square().mean().backward()
    torch.optim.SGD(model.parameters(), lr=1.0).step()
    changed = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    # the bias of a key adds the same to all scores of a query, and the softmax forgets it
    still = {name for name in adapters.trainable_parameters(model) if ".attn.to_k." in name and "bias" in name}
    assert changed <= set(adapters.trainable_parameters(model)) <= changed | still
    assert "pos_embed" not in changed


@pytest.mark.parametrize(("method", "backbone"), CASES)
def test_a_step_in_bfloat16_reaches_all_that_trains(method, backbone):
    """In the layout that goes with it, in which torch's GroupNorm crashes if nothing before it trains."""
    model = attached(method, backbone).train()
    perturb(model)
    with torch.autocast("cpu", torch.bfloat16):
        out = model(X, T, condition(model, backbone))
    (out.float() - 1).square().mean().backward()
    grads = {name: p.grad for name, p in adapters.trainable_parameters(model).items()}
    assert all(grad is not None and grad.isfinite().all() for grad in grads.values())
    assert any(grad.any() for grad in grads.values())


@pytest.mark.parametrize(("method", "backbone"), CASES)
def test_output_is_bit_identical_at_step_0(method, backbone):
    expected = run(build(backbone), backbone)
    model = attached(method, backbone)
    start = run(model, backbone)
    assert torch.equal(start, expected) != (method in CHANGES_AT_START)
    assert torch.equal(run(model.train(), backbone), start) != (method in NOISY)


@pytest.mark.parametrize(("method", "backbone"), [case for case in CASES if case[0] in NOISY])
def test_noise_is_in_training_mode_alone_and_compiles(method, backbone, whole_rearrange):
    model = attached(method, backbone).train()
    torch.compiler.reset()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    drawn = []
    for seed, draw in ((0, model), (0, compiled), (1, model)):
        torch.manual_seed(seed)
        drawn.append(run(draw, backbone))
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])
    assert torch.equal(run(model.eval(), backbone), run(build(backbone), backbone))


@pytest.mark.parametrize(("method", "backbone"), CASES)
def test_merge_keeps_the_output_and_gives_plain_layers_where_defined(method, backbone):
    base, model = build(backbone), attached(method, backbone)
    perturb(model)
    expected, unmerged = run(model, backbone), copy.deepcopy(model)
    assert not torch.allclose(expected, run(base, backbone), atol=1e-3)

    assert adapters.merge(model) is model
    torch.testing.assert_close(run(model, backbone), expected, atol=1e-5, rtol=1e-5)
    as_before = unmerged if method in STAYS else base
    assert [type(m) for m in model.modules()] == [type(m) for m in as_before.modules()]
    left = set(model.state_dict()) - set(as_before.state_dict())
    assert all(isinstance(model.get_submodule(name.rpartition(".")[0]), nn.LayerNorm) for name in left)
    assert adapters.adapter_parameters(model) == (
        set(adapters.trainable_parameters(unmerged)) if method in STAYS else set()
    )


@pytest.mark.parametrize("by", ["deepcopy", "pickle"])
@pytest.mark.parametrize(("method", "backbone"), CASES)
def test_a_copy_is_the_same_and_independent(method, backbone, by):
    model = attached(method, backbone)
    perturb(model)
    twin = copy.deepcopy(model) if by == "deepcopy" else pickle.loads(pickle.dumps(model))
    expected = run(model, backbone)
    assert torch.equal(run(twin, backbone), expected)
    assert [type(m) for m in twin.modules()] == [type(m) for m in model.modules()]
    assert adapters.trainable_parameters(twin).keys() == adapters.trainable_parameters(model).keys()

    perturb(twin)
    assert not torch.equal(run(twin, backbone), expected)
    assert torch.equal(run(model, backbone), expected)


@pytest.mark.parametrize(("method", "backbone"), CASES)
def test_it_compiles_without_a_graph_break(method, backbone, whole_rearrange):
    model = attached(method, backbone)
    perturb(model)
    torch.compiler.reset()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    torch.testing.assert_close(run(compiled, backbone), run(model, backbone))


@pytest.mark.parametrize(("method", "backbone"), CASES)
def test_what_trains_is_the_whole_adapter(method, backbone):
    model = attached(method, backbone)
    perturb(model)
    stored = adapters.trainable_parameters(model)
    fresh = attached(method, backbone)
    assert fresh.load_state_dict(stored, strict=False).unexpected_keys == []
    assert torch.equal(run(fresh, backbone), run(model, backbone))


@pytest.mark.parametrize(("first", "second", "backbone"), PAIRS)
def test_two_methods_compose(first, second, backbone):
    model = attached([first, second], backbone)
    alone = [method for method in (first, second) if method in CHANGES_AT_START]
    start = attached(alone, backbone) if alone else build(backbone)
    start.load_state_dict({name: p for name, p in model.named_parameters() if "prompts" in name}, strict=False)
    assert torch.equal(run(model, backbone), run(start, backbone))
    both = attached(first, backbone), attached(second, backbone)
    assert set(adapters.trainable_parameters(model)) >= set().union(
        *(adapters.trainable_parameters(one) for one in both)
    )

    perturb(model)
    expected = run(model, backbone)
    torch.testing.assert_close(run(adapters.merge(model), backbone), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("backbone", CONDITIONS)
@pytest.mark.parametrize("specs", list(itertools.permutations(sorted(CLASH))))
def test_two_methods_about_plain_weights_take_no_layer_together(specs, backbone):
    with pytest.raises(ValueError, match=r"\w+ and \w+ both need the plain weights of \w+Linear"):
        attached(list(specs), backbone)


@pytest.mark.parametrize("backbone", CONDITIONS)
@pytest.mark.parametrize("specs", list(itertools.permutations(sorted(ONCE))))
def test_a_layer_takes_a_method_once(specs, backbone):
    with pytest.raises(ValueError, match=r"already carries \w*LoKr, and takes it once: merge the first"):
        attached(list(specs), backbone)


@pytest.mark.parametrize(("method", "backbone"), sorted(WITHOUT_MEANING))
def test_a_method_without_meaning_says_so(method, backbone):
    with pytest.raises(ValueError, match=rf"adapter {method.split(':')[0]}: .* this \w+ has none"):
        attached(method, backbone)
