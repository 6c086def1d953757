"""Attend-and-Excite: maps against a direct computation, the loss against diffusers, its gradient against numbers."""

from functools import partial

import pytest
import torch
from torch.nn import functional as F

from sampling import Schedule, batched_cfg, sample_latents
from unet import TextConditioned, TextConfig, TextEncoder, Tokenizer, UNet, UNetConfig
from unet.attend import (
    MAX_REFINEMENTS,
    attend_and_excite,
    attention_loss,
    attention_maps,
    cross_attention_layers,
    max_attention_per_word,
    token_indices,
    update_latent,
)
from unet.sizes import UNETS as SIZES
from unet.text.prompt import chunks

LENGTH = 8  # of a chunk of the tiny text encoder
PROMPTS = ["a photo of a flawless pill", "a photo of a hazelnut with a hole"]


def tiny(channels=(8, 16), text=(True, False), heads=(2, 2)):
    """A text-to-image model whose every weight is random, in float64."""
    torch.manual_seed(0)
    unet = UNet(UNetConfig(channels=channels, text=text, heads=heads, layers=1, text_width=6, groups=2, input_size=4))
    for parameter in unet.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    encoder = TextEncoder(TextConfig(20, width=6, layers=1, heads=2, max_length=LENGTH))
    return TextConditioned(unet, encoder).double().eval()


def inputs(batch=1, tokens=LENGTH):
    generator = torch.Generator().manual_seed(1)
    z = torch.randn(batch, 4, 4, 4, generator=generator, dtype=torch.float64)
    return z, torch.randn(batch, tokens, 6, generator=generator, dtype=torch.float64)


def no_hook_is_left(model):
    return not any(layer._forward_hooks or layer._forward_pre_hooks for layer in model.modules())


# the maps


@pytest.mark.parametrize("shape", [{}, {"channels": (8,), "text": (True,), "heads": (2,)}])  # the second: middle too
def test_the_maps_are_the_attention_that_the_layers_compute(shape):
    model, (z, cond), t = tiny(**shape), inputs(batch=2), torch.tensor([500, 20])
    seen = []
    hooks = [
        layer.register_forward_pre_hook(lambda layer, args: seen.append((layer, *args)))
        for layer in cross_attention_layers(model.unet)[1]
    ]
    model(z, t, cond)
    for hook in hooks:
        hook.remove()
    each = []
    for layer, x, context in seen:
        for rows in range(2):  # heads 4 wide: the values 1 0 .. 0, 0 1 0 .. are mixed to the weights themselves
            q = (x @ layer.to_q.weight.T)[..., 4 * rows : 4 * rows + 4]
            k = (context @ layer.to_k.weight.T)[..., 4 * rows : 4 * rows + 4]
            each.append(F.scaled_dot_product_attention(q, k, torch.eye(LENGTH).double().expand(2, -1, -1)))
    assert len(seen) == (4 if shape else 3)
    maps = attention_maps(model, z, t, cond)
    torch.testing.assert_close(maps, torch.stack(each).mean(0).view(2, 4, 4, LENGTH))
    torch.testing.assert_close(maps.sum(-1), torch.ones(2, 4, 4).double())


def test_maps_are_float32_under_autocast():
    model, (z, cond) = tiny().float(), inputs()
    with torch.autocast("cpu", torch.bfloat16):
        maps = attention_maps(model, z.float(), torch.tensor([500]), cond.float())
    assert maps.dtype == torch.float32
    torch.testing.assert_close(maps.sum(-1), torch.ones(1, 4, 4))


@pytest.mark.parametrize(("name", "level", "layers"), [("SD-1", 2, 5), ("SD-2-v", 2, 5), ("UNet-T", 0, 3)])
def test_the_level_that_is_read(name, level, layers):
    with torch.device("meta"):
        unet = UNet(SIZES[name])
    found, attentions = cross_attention_layers(unet)
    assert (found, len(attentions)) == (level, layers)
    assert {layer.to_q.in_features for layer in attentions} == {SIZES[name].channels[level]}


def test_other_shapes_than_square():
    model, (z, cond) = tiny(), inputs()
    assert attention_maps(model, torch.cat([z, z], 2), torch.tensor([500]), cond).shape == (1, 8, 4, LENGTH)


@pytest.mark.parametrize("width", [6, 5])  # the text states have 6 channels: 5 is an error
def test_no_hook_is_left_behind(width):
    model, (z, cond) = tiny(), inputs()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    run = partial(attention_loss, model, z, 500, cond[..., :width], [[3]])
    if width == 5:
        with pytest.raises(ValueError, match="cond must be text states"):
            run()
    else:
        run()
    assert no_hook_is_left(model)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


# the loss


def test_the_attention_per_word_is_that_of_diffusers():
    diffusers = pytest.importorskip("diffusers")
    theirs = diffusers.StableDiffusionAttendAndExcitePipeline
    maps = (2 * torch.randn(16, 16, 77, generator=torch.Generator().manual_seed(0))).softmax(-1) ** 1.5
    found = max_attention_per_word(maps, [[2], [5]], 77)
    expected = theirs._compute_max_attention_per_index(maps.clone(), [2, 5])
    torch.testing.assert_close(found, torch.stack(expected))
    assert 0.02 < found.min() < 0.98
    torch.testing.assert_close(1 - found.min(), theirs._compute_loss(expected))


def test_a_word_of_several_tokens_and_a_prompt_of_several_chunks():
    """Start and end of both chunks have no share, and the tokens of a word add up."""
    maps = torch.rand(4, 4, 2 * LENGTH, generator=torch.Generator().manual_seed(0)).double() / 20
    inner = [1, 2, 3, 4, 5, 6, 9, 10, 11, 12, 13, 14]
    share = (100 * maps[..., inner]).softmax(-1)
    word = share[..., inner.index(6)] + share[..., inner.index(9)]
    padded = F.pad(word[None, None], (1, 1, 1, 1), mode="reflect")[0, 0]
    smooth = torch.zeros(4, 4).double()
    for i in range(3):
        for j in range(3):
            smooth += 2.718281828459045 ** -((i - 1) ** 2 + (j - 1) ** 2) * padded[i : i + 4, j : j + 4]
    torch.testing.assert_close(
        max_attention_per_word(maps, [[6, 9]], LENGTH), smooth.max()[None] / (1 + 2 / 2.718281828459045) ** 2
    )


def test_the_gradient_is_the_numerical_one():
    model, (z, cond) = tiny(), inputs()
    of = partial(attention_loss, model, t=500, cond=cond, words=[[2], [5, 6]])
    assert torch.autograd.gradcheck(of, z.requires_grad_(), fast_mode=True)


# the update


def test_the_loss_falls_by_what_the_gradient_says():
    model, (z, cond) = tiny(), inputs()
    of = partial(attention_loss, model, t=500, cond=cond, words=[[2], [5]])
    after = update_latent(z, of, 1e-3, 0.0)
    slope = (z - after) / 1e-3
    assert slope.norm() > 1e-3 and not after.requires_grad
    assert ((of(z) - of(after)) / (1e-3 * slope.norm() ** 2)).item() == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize(
    ("alpha", "threshold", "end"),
    [
        (0.1, 0.0, 0.9),  # no threshold: one move
        (0.1, 0.35, 0.5),  # 1, .9, .8, .7 are above .65; .6 is not and moves once more
        (0.01, 0.9, 1 - 0.01 * (1 + MAX_REFINEMENTS)),  # never reached
    ],
)
def test_moves_repeat_up_to_the_threshold(alpha, threshold, end):
    z = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    assert update_latent(z, torch.sum, alpha, threshold).item() == pytest.approx(end) and z.item() == 1


def test_one_step_is_the_papers_rule():
    model, (z, cond) = tiny(), inputs(batch=3)
    words, steps = [[[2]], [[3], [5]], [[4]]], list(range(10, 1001, 20))
    on_step = attend_and_excite(model, cond, words, steps)
    alphas = 20 * torch.linspace(1, 0.5, 50, dtype=torch.float64).sqrt()
    with torch.no_grad():
        for i in (5, 24):
            found = on_step(slice(0, 3))(z, steps[-1 - i])
            for row in range(3):
                with torch.enable_grad():
                    x = z[row : row + 1].clone().requires_grad_()
                    attention_loss(model, x, steps[-1 - i], cond[row : row + 1], words[row]).backward()
                torch.testing.assert_close(found[row], z[row] - alphas[i] * x.grad[0])
            assert torch.equal(on_step(slice(1, 3))(z[1:], steps[-1 - i]), found[1:])
        assert on_step(slice(0, 3))(z, steps[-1 - 25]) is z


def test_the_repeats_come_at_their_share_of_the_steps():
    """With 10 steps at 0, 2 and 4: there, and only there, a faint word is moved more than once."""
    model, (z, cond) = tiny(), inputs()
    steps = list(range(0, 1000, 100))
    counted = Counted(model)
    move = attend_and_excite(counted, cond, [[[2]]], steps)(slice(0, 1))
    runs = []
    for t in reversed(steps):
        counted.runs = 0
        move(z, t)
        runs.append(counted.runs)
    assert runs[1] == runs[3] == 1 and runs[5:] == [0] * 5 and runs[4] >= runs[2] >= runs[0] >= 1 and runs[4] > 1


class Counted:
    """A model that counts its runs."""

    def __init__(self, model):
        self.model, self.unet, self.text, self.runs = model, model.unet, model.text, 0

    def __call__(self, *args):
        self.runs += 1
        return self.model(*args)


def test_whole_images():
    """Moved latents end elsewhere; moved by nothing, they are the same bit for bit."""
    model, (_, cond) = tiny().float(), inputs()
    cond, schedule = cond.float(), Schedule.linear()
    by = partial(sample_latents, batched_cfg(model, cond, None, 1.0), range(1), (4, 4, 4), schedule, steps=4)
    plain, seen = by(), by(on_step=attend_and_excite(model, cond, [[[2]]], schedule.timesteps(4)))
    assert torch.equal(plain, by(on_step=lambda here: lambda x, t: x))
    assert not torch.allclose(plain, seen, atol=1e-3) and not seen.requires_grad


# the words


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(PROMPTS * 5, 560, length=LENGTH)


@pytest.mark.parametrize(
    ("word", "prompt", "occurrences"),
    [
        ("hole", "a (hole:1.3) in a hazelnut", 1),
        ("Hole", "hole BREAK a photo of a hole", 2),  # in the second chunk too
        ("flawless pill", "a flawless (pill)", 1),
        ("zebra", "a zebra and a zebra", 2),  # not a word of the vocabulary, so of several tokens
        ("<thing>", "a photo of a <thing>", 1),  # three vectors
    ],
)
def test_token_indices_hold_the_tokens_of_the_word(tokenizer, word, prompt, occurrences):
    tokenizer.added or tokenizer.add("<thing>", 3)
    flat = [i for chunk in chunks(prompt, tokenizer) for i in tokenizer.row([i for i, _ in chunk])]
    found = token_indices(word, prompt, tokenizer)
    assert [flat[i] for i in found] == tokenizer.encode(word) * occurrences and len(set(found)) == len(found)


@pytest.mark.parametrize(("word", "prompt"), [("crack", "a hole"), ("", "a hole"), ("nut", "a hazelqnut")])
def test_a_word_that_is_not_there(tokenizer, word, prompt):
    """Nor is it there as the end of a longer one."""
    with pytest.raises(ValueError, match=f"expected the word {word!r} in the prompt"):
        token_indices(word, prompt, tokenizer)


def test_the_loss_is_of_the_word_that_is_attended_to_least():
    """Alone each word has its loss, and together they have the larger one."""
    model, (z, cond) = tiny(), inputs()
    alone = [attention_loss(model, z, 500, cond, [[i]]).item() for i in (1, 2, 3)]
    assert attention_loss(model, z, 500, cond, [[1], [2], [3]]).item() == pytest.approx(max(alone))
    assert max(alone) > min(alone) + 1e-3
