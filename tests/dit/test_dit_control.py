"""The control branch of DiT: its published count, its equation, no effect at the start, guidance, and its file."""

import re
from functools import partial

import pytest
import torch
from torch.nn.functional import linear

import adapters
import weights
from dit import ControlledDiT, DiT, DiTConfig, resize_classes
from sampling import cfg, conditional

TINY = DiTConfig(depth=4, width=32, heads=4, patch=2, input_size=4, num_classes=5)


def filled(model, seed=0):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name != "pos_embed":
                parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def base():
    return filled(DiT(TINY))


def controlled(copies=None):
    model = ControlledDiT(base(), copies)
    filled(model.control, seed=1)
    return model.eval()


def inputs(batch=2):
    generator = torch.Generator().manual_seed(2)
    x, hint = (torch.randn(batch, 4, 4, 4, generator=generator) for _ in range(2))
    return x, torch.arange(batch) * 400 + 17, torch.arange(batch) % 5, hint


# sizes


def test_the_published_count():
    """13 of DiT-XL/2's 28 blocks, and 14 Linears of 1152 by 1152."""
    with torch.device("meta"):
        model = adapters.attach(ControlledDiT(DiT.from_name("DiT-XL/2")), "control.full")
    assert adapters.counts(model) == (329_362_560, 675_129_632 + 329_362_560)
    assert len(model.control.blocks) == len(model.control.after) == 13


@pytest.mark.parametrize(("depth", "copies"), [(2, 1), (8, 4), (12, 6), (24, 12), (28, 13)])
def test_by_default_half_of_the_depth_is_copied(depth, copies):
    with torch.device("meta"):
        model = ControlledDiT(DiT(DiTConfig(depth=depth, width=8, heads=2, patch=2, input_size=4)))
    assert len(model.control.blocks) == copies


# the start


@torch.no_grad()
@pytest.mark.parametrize("copies", [1, 2, 3])
def test_a_new_one_changes_no_bit(copies):
    model, plain, (x, t, y, hint) = ControlledDiT(base(), copies), base(), inputs()
    expected = plain(x, t, y)
    assert torch.equal(model(x, t, y, hint), expected) and torch.equal(model(x, t, y), expected)
    assert (controlled(copies)(x, t, y, hint) - expected).abs().max() > 1e-2


def test_the_parts_of_the_base_keep_their_names_and_the_copies_are_their_own():
    plain = base().bfloat16().requires_grad_(False)
    plain.classes = list("abcde")  # as a file may tell
    model = ControlledDiT(plain)
    assert model.config is plain.config and model.classes == plain.classes
    names = model.state_dict().keys()
    assert {name for name in names if not name.startswith("control.")} == plain.state_dict().keys()
    assert model.blocks is plain.blocks and model.pos_embed is plain.pos_embed
    for copy, block in zip(model.control.blocks, plain.blocks):
        assert all(torch.equal(a, b) and a is not b for a, b in zip(copy.parameters(), block.parameters(), strict=True))
    assert [name for name, p in model.named_parameters() if p.requires_grad] == [
        name for name, _ in model.named_parameters() if name.startswith("control.")
    ]
    assert {p.dtype for p in model.control.parameters()} == {torch.bfloat16}
    assert model.latent_shape == plain.latent_shape and model.null == 5


def test_first_the_linears_after_the_copies_learn_then_everything():
    model = adapters.attach(ControlledDiT(base()), "control.full")
    batch = inputs()
    model(*batch).square().mean().backward()
    learns = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert learns == {f"control.after.{i}.{part}" for i in range(2) for part in ("weight", "bias")}
    filled(model.control)
    model(*batch).square().mean().backward()
    assert all(p.grad.any() for p in model.control.parameters())
    assert all(p.grad is None for name, p in model.named_parameters() if not name.startswith("control."))


# the equation


@torch.no_grad()
def test_the_equation_by_hand():
    """Depth 4 and 2 copies, written out."""
    model, (x, t, y, hint) = controlled(), inputs()
    branch, blocks = model.control, model.blocks
    state = branch.state_dict()
    c = model.t_embedder(t, x.dtype) + model.y_embedder(y)

    def patches(latent):
        return model.x_embedder(latent) + model.pos_embed

    x1 = blocks[0](patches(x), c)
    h0 = x1 + linear(patches(hint), state["before.weight"], state["before.bias"])
    h1 = branch.blocks[0](h0, c)
    x2 = blocks[1](x1 + linear(h1, state["after.0.weight"], state["after.0.bias"]), c)
    h2 = branch.blocks[1](h1, c)
    x3 = blocks[2](x2 + linear(h2, state["after.1.weight"], state["after.1.bias"]), c)
    tokens = model.final_layer(blocks[3](x3, c), c)  # (B, 4, 2 2 8)
    expected = tokens.view(2, 2, 2, 2, 2, 8).permute(0, 5, 1, 3, 2, 4).reshape(2, 8, 4, 4)
    torch.testing.assert_close(model(x, t, y, hint), expected, atol=1e-5, rtol=0)


@torch.no_grad()
def test_strength():
    model, (x, t, y, hint) = controlled(), inputs()
    out = model(x, t, y, hint)
    assert torch.equal(model(x, t, y, hint, 0.0), model(x, t, y))
    assert torch.equal(model(x, t, y, hint, 1.0), out)
    twice = model(x, t, y, hint, 2.0)
    for layer in model.control.after:
        layer.weight.mul_(2), layer.bias.mul_(2)
    torch.testing.assert_close(model(x, t, y, hint), twice, atol=1e-5, rtol=1e-5)


# guidance


@torch.no_grad()
def test_guidance_keeps_the_hint_in_both_halves():
    model, (x, t, y, hint) = controlled(), inputs()
    steered, null = partial(model, hint=hint), torch.full_like(y, model.null)
    out = cfg(steered, y, model.null, 4.0, channels=3)(x, t)
    yes, no = conditional(steered, y)(x, t), conditional(steered, null)(x, t)
    expected = torch.cat([(no + 4.0 * (yes - no))[:, :3], yes[:, 3:]], 1)
    torch.testing.assert_close(out, expected, atol=2e-5, rtol=1e-5)
    assert (out - cfg(model, y, model.null, 4.0, channels=3)(x, t)).abs().max() > 1e-2
    official = model.forward_with_cfg(torch.cat([x, x]), torch.cat([t, t]), torch.cat([y, null]), 4.0, 3, hint)
    torch.testing.assert_close(official[:2], expected, atol=2e-5, rtol=1e-5)


@torch.no_grad()
def test_several_branches_add_up_each_with_its_strength():
    """Two alike at half are one; one at 0 is none, also where it has another number of copies."""
    x, t, y, hint = inputs()
    (one, half), other = (controlled(2) for _ in range(2)), controlled(3)
    expected = one(x, t, y, hint)
    both = half.with_others([controlled(2)], [0.5, 0.5])(x, t, y, torch.cat([hint, hint], 1))
    torch.testing.assert_close(both, expected, atol=2e-5, rtol=1e-4)
    none = one.with_others([other], [1.0, 0.0])(x, t, y, torch.cat([hint, -hint], 1))
    torch.testing.assert_close(none, expected, atol=2e-5, rtol=1e-4)
    more = one.with_others([other], [1.0, 0.7])
    assert (more(x, t, y, torch.cat([hint, -hint], 1)) - expected).abs().max() > 1e-2
    with pytest.raises(ValueError, match=r"x and hint must be \(2, 4, 4, 4\) and \(2, 8, 4, 4\), found"):
        more(x, t, y, hint)


# its file, and what it refuses


@torch.no_grad()
def test_what_is_saved_is_what_trains(tmp_path):
    """With classes of its own, and onto a base that has the old ones."""
    model = ControlledDiT(base())
    header = {
        "base": weights.fingerprint(model),
        "adapter": ["control.full", "classes"],
        "classes": ["good", "hole"],
        "sources": [[0], [3, 4]],
    }
    resize_classes(model, header["sources"])
    adapters.attach(model, header["adapter"])
    generator = torch.Generator().manual_seed(3)
    for parameter in adapters.trainable_parameters(model).values():
        parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    weights.save_adapter(tmp_path / "control.safetensors", model, header)
    held = weights.load_adapter(tmp_path / "control.safetensors")[0]
    assert {name.partition(".")[0] for name in held} == {"control", "y_embedder"}
    back = weights.apply_adapters(ControlledDiT(base()), [(tmp_path / "control.safetensors", 1.0)])
    x, t, _, hint = inputs()
    y = torch.tensor([0, 1])
    assert all(torch.equal(tensor, back.state_dict()[name]) for name, tensor in model.state_dict().items())
    assert back.state_dict().keys() == model.state_dict().keys() and back.classes == ["good", "hole"]
    # equal weights at another place in memory: some processors sum them in another order
    torch.testing.assert_close(back(x, t, y, hint), model(x, t, y, hint), rtol=1e-5, atol=1e-5)
    assert (back(x, t, y, hint) - back(x, t, y)).abs().max() > 1e-3


def test_it_is_no_plain_dit(tmp_path):
    with pytest.raises(ValueError, match="expected the 52 plain tensors of a ControlledDiT, found 26 others"):
        weights.save_model(ControlledDiT(base()), tmp_path / "w.safetensors")


@pytest.mark.parametrize("copies", [0, 4, -1])
def test_copies_that_cannot_be(copies):
    with pytest.raises(ValueError, match=rf"copies must lie in 1\.\.3 for a DiT of 4 blocks, found {copies}"):
        ControlledDiT(base(), copies)


def test_a_hint_or_an_x_that_does_not_fit():
    model, (x, t, y, hint) = controlled(), inputs()
    for wrong in (hint[:, :3], hint[..., :2], torch.cat([hint, hint, hint])):
        found = re.escape(f"found {tuple(x.shape)} and {tuple(wrong.shape)}")
        with pytest.raises(ValueError, match=rf"x and hint must be \(2, 4, 4, 4\) and \(2, 4, 4, 4\), {found}"):
            model(x, t, y, wrong)
    with pytest.raises(
        ValueError, match=r"x and hint must be \(2, 4, 4, 4\) and \(2, 4, 4, 4\), found \(2, 4, 2, 4\) and"
    ):
        model(x[:, :, :2], t, y, hint)
