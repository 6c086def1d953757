"""draw: one latent per condition, each with noise of its own."""
from functools import partial

import pytest
import torch

from sampling import SAMPLERS, Schedule, bind, cfg, ddim, draw, sample_noise

SCHEDULE = Schedule.linear()
SHAPE = (4, 2, 2)
LABELS = torch.tensor([0, 1, 2, 0, 1])
NULL = 3


def model(x, t, y):
    return torch.tanh(x + y.view(-1, 1, 1, 1) + t.view(-1, 1, 1, 1) / 1000)


@pytest.mark.parametrize("sampler", [*SAMPLERS, partial(ddim, eta=1.0)])
@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_the_batch_size_changes_nothing(sampler, guidance):
    by_batch = partial(draw, model, SHAPE, LABELS, NULL, SCHEDULE, sampler, steps=4, guidance=guidance)
    whole, pairs, single = (by_batch(batch=batch) for batch in (16, 2, 1))
    assert whole.shape == (5, *SHAPE) and whole.dtype == torch.float32
    assert torch.equal(whole, pairs) and torch.equal(whole, single)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_list_may_be_drawn_in_parts(sampler):
    whole = draw(model, SHAPE, LABELS, NULL, SCHEDULE, sampler, steps=4, seed=5)
    tail = draw(model, SHAPE, LABELS[3:], NULL, SCHEDULE, sampler, steps=4, seed=5, first=3)
    assert torch.equal(whole[3:], tail)


def test_seed_and_index_make_the_noise():
    x = torch.empty(2, *SHAPE)
    a, again, other = sample_noise(0, [0, 1])(x), sample_noise(0, [0, 1])(x), sample_noise(1, [0, 1])(x)
    assert torch.equal(a, again)
    rows = [a[0], a[1], other[0], other[1]]
    assert not any(torch.equal(p, q) for i, p in enumerate(rows) for q in rows[:i])
    noise = sample_noise(0, [0])
    assert not torch.equal(noise(x[:1]), noise(x[:1]))     # a second step draws afresh
    big = sample_noise(0, range(8))(torch.empty(8, 4, 32, 32))
    assert big.mean().item() == pytest.approx(0, abs=0.02) and big.std().item() == pytest.approx(1, abs=0.02)


def test_draw_is_the_sampler_on_the_keyed_noise():
    noise = sample_noise(7, range(5))
    x = noise(torch.empty(5, *SHAPE))
    by_hand = ddim(cfg(model, LABELS, NULL, 2.0, 3), x, SCHEDULE, 4, noise)
    assert torch.equal(by_hand, draw(model, SHAPE, LABELS, NULL, SCHEDULE, steps=4, guidance=2.0, channels=3, seed=7))
    by_hand = ddim(bind(model, LABELS), x, SCHEDULE, [9, 500], noise)
    assert torch.equal(by_hand, draw(model, SHAPE, LABELS, None, SCHEDULE, steps=[9, 500], guidance=1.0, seed=7))


def test_no_guidance_does_not_double_the_batch():
    sizes = set()

    def counting(x, t, y):
        sizes.add(len(x))
        return model(x, t, y)

    draw(counting, SHAPE, LABELS, None, SCHEDULE, steps=2, guidance=1.0, batch=5)
    assert sizes == {5}


def test_each_sample_may_have_its_own_null():
    superclass = torch.tensor([3, 3, 4, 3, 3])
    mixed = draw(model, SHAPE, LABELS, superclass, SCHEDULE, steps=4, batch=2)
    plain = draw(model, SHAPE, LABELS, NULL, SCHEDULE, steps=4)
    assert [torch.equal(a, b) for a, b in zip(mixed, plain, strict=True)] == [True, True, False, True, True]


def test_text_conditions():
    def text_model(x, t, states):
        return model(x, t, states.mean((1, 2)))

    cond = LABELS.float().view(5, 1, 1).expand(5, 3, 2)
    latents = draw(text_model, SHAPE, cond, torch.full((1, 3, 2), float(NULL)), SCHEDULE, steps=4, batch=2)
    assert torch.equal(latents, draw(model, SHAPE, LABELS, NULL, SCHEDULE, steps=4))


def test_no_conditions_draw_nothing():
    assert draw(model, SHAPE, LABELS[:0], NULL, SCHEDULE, steps=2).shape == (0, *SHAPE)


def test_no_graph_is_kept():
    weight = torch.ones(1, requires_grad=True)
    assert not draw(lambda x, t, y: weight * model(x, t, y), SHAPE, LABELS, NULL, SCHEDULE, steps=2).requires_grad


def test_errors():
    with pytest.raises(ValueError, match=r"ddpm, ddim, dpm\+\+: got 'euler'"):
        draw(model, SHAPE, LABELS, NULL, SCHEDULE, "euler")
    with pytest.raises(ValueError, match="guidance 4.0 needs a null condition"):
        draw(model, SHAPE, LABELS, None, SCHEDULE)
    with pytest.raises(ValueError, match="at least 1 sample: got 0"):
        draw(model, SHAPE, LABELS, NULL, SCHEDULE, batch=0)
