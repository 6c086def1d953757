"""sample_latents: one latent per sample, each with noise of its own, under the guidance of its condition."""

from functools import partial

import pytest
import torch

from sampling import SAMPLERS, Schedule, batched_cfg, cfg, conditional, ddim, sample_latents, sample_noise, sample_seeds

SCHEDULE = Schedule.linear()
SHAPE = (4, 2, 2)
LABELS = torch.tensor([0, 1, 2, 0, 1])
NULL = 3
ALL = range(5)


def model(x, t, y):
    return torch.tanh(x + y.view(-1, 1, 1, 1) + t.view(-1, 1, 1, 1) / 1000)


PLAIN = batched_cfg(model, LABELS, NULL, 4.0)


@pytest.mark.parametrize("sampler", [*SAMPLERS, partial(ddim, eta=1.0)])
@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_the_batch_size_changes_nothing(sampler, guidance):
    by_batch = partial(
        sample_latents, batched_cfg(model, LABELS, NULL, guidance), ALL, SHAPE, SCHEDULE, sampler, steps=4
    )
    whole, pairs, single = (by_batch(batch=batch) for batch in (16, 2, 1))
    assert whole.shape == (5, *SHAPE) and whole.dtype == torch.float32
    assert torch.equal(whole, pairs) and torch.equal(whole, single)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_list_may_be_drawn_in_parts(sampler):
    whole = sample_latents(PLAIN, ALL, SHAPE, SCHEDULE, sampler, steps=4, seed=5)
    tail = sample_latents(PLAIN, range(3, 5), SHAPE, SCHEDULE, sampler, steps=4, seed=5)
    assert torch.equal(whole[3:], tail)


def test_seed_and_index_make_the_noise():
    x = torch.empty(2, *SHAPE)
    a, again, other = sample_noise(0, [0, 1])(x), sample_noise(0, [0, 1])(x), sample_noise(1, [0, 1])(x)
    assert torch.equal(a, again)
    rows = [a[0], a[1], other[0], other[1]]
    assert not any(torch.equal(p, q) for i, p in enumerate(rows) for q in rows[:i])
    noise = sample_noise(0, [0])
    assert not torch.equal(noise(x[:1]), noise(x[:1]))  # a second step draws afresh
    big = sample_noise(0, range(8))(torch.empty(8, 4, 32, 32))
    assert big.mean().item() == pytest.approx(0, abs=0.02) and big.std().item() == pytest.approx(1, abs=0.02)


def test_it_is_the_sampler_on_the_noise_of_seed_and_number():
    noise = sample_noise(7, ALL)
    x = noise(torch.empty(5, *SHAPE))
    by_hand = ddim(cfg(model, LABELS, NULL, 2.0, 3), x, SCHEDULE, 4, noise)
    assert torch.equal(
        by_hand, sample_latents(batched_cfg(model, LABELS, NULL, 2.0, 3), ALL, SHAPE, SCHEDULE, steps=4, seed=7)
    )
    by_hand = ddim(conditional(model, LABELS), x, SCHEDULE, [9, 500], noise)
    unguided = batched_cfg(model, LABELS, None, 1.0)
    assert torch.equal(by_hand, sample_latents(unguided, ALL, SHAPE, SCHEDULE, steps=[9, 500], seed=7))


def test_no_guidance_does_not_double_the_batch():
    sizes = set()

    def counting(x, t, y):
        sizes.add(len(x))
        return model(x, t, y)

    sample_latents(batched_cfg(counting, LABELS, None, 1.0), ALL, SHAPE, SCHEDULE, steps=2, batch=5)
    assert sizes == {5}


def test_each_sample_may_have_its_own_null():
    superclass = torch.tensor([3, 3, 4, 3, 3])
    mixed = sample_latents(batched_cfg(model, LABELS, superclass, 4.0), ALL, SHAPE, SCHEDULE, steps=4, batch=2)
    plain = sample_latents(PLAIN, ALL, SHAPE, SCHEDULE, steps=4)
    assert [torch.equal(a, b) for a, b in zip(mixed, plain, strict=True)] == [True, True, False, True, True]


def test_text_conditions():
    def text_model(x, t, states):
        return model(x, t, states.mean((1, 2)))

    cond = LABELS.float().view(5, 1, 1).expand(5, 3, 2)
    by_text = batched_cfg(text_model, cond, torch.full((1, 3, 2), float(NULL)), 4.0)
    latents = sample_latents(by_text, ALL, SHAPE, SCHEDULE, steps=4, batch=2)
    assert torch.equal(latents, sample_latents(PLAIN, ALL, SHAPE, SCHEDULE, steps=4))


def test_on_step_is_made_for_the_samples_of_a_batch():
    seen = []

    def on_step(here):
        seen.append((here.start, here.stop))
        return lambda x, t: x + LABELS[here].view(-1, 1, 1, 1)

    pairs, whole = (
        sample_latents(PLAIN, ALL, SHAPE, SCHEDULE, steps=4, batch=batch, on_step=on_step) for batch in (2, 5)
    )
    assert torch.equal(pairs, whole) and seen == [(0, 2), (2, 4), (4, 5), (0, 5)]
    plain = sample_latents(PLAIN, ALL, SHAPE, SCHEDULE, steps=4)
    assert [torch.equal(a, b) for a, b in zip(whole, plain)] == (LABELS == 0).tolist()


def test_no_samples_are_no_latents():
    assert sample_latents(PLAIN, range(0), SHAPE, SCHEDULE, steps=2).shape == (0, *SHAPE)


def test_no_graph_is_kept():
    weight = torch.ones(1, requires_grad=True)
    weighted = batched_cfg(lambda x, t, y: weight * model(x, t, y), LABELS, NULL, 4.0)
    assert not sample_latents(weighted, ALL, SHAPE, SCHEDULE, steps=2).requires_grad


def test_errors():
    with pytest.raises(ValueError, match=r"ddpm, ddim, dpm\+\+, heun, sde, lcm, found 'euler'"):
        sample_latents(PLAIN, ALL, SHAPE, SCHEDULE, "euler")
    with pytest.raises(ValueError, match="guidance 4.0 needs a null condition"):
        batched_cfg(model, LABELS, None, 4.0)
    with pytest.raises(ValueError, match="at least 1 sample, found 0"):
        sample_latents(PLAIN, ALL, SHAPE, SCHEDULE, batch=0)


def test_from_an_image_it_takes_the_cleanest_steps_and_starts_in_the_noise_of_their_last():
    """Of 5 steps strength 0.7 leaves int(3.5) = 3: 0, 10 and 40. The start is the image in the noise of step 40."""
    image, seen = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1)), []

    def denoiser(here):
        def denoise(x, t):
            seen.append((t[0].item(), x.clone()))
            return torch.zeros_like(x)

        return denoise

    sample_latents(denoiser, range(2), SHAPE, SCHEDULE, steps=[0, 10, 40, 500, 900], seed=3, image=image, strength=0.7)
    assert [t for t, _ in seen] == [40, 10, 0]
    noise = sample_noise(3, range(2))(torch.empty(2, *SHAPE))
    alpha_bar = SCHEDULE.alpha_bar[40].item()
    torch.testing.assert_close(seen[0][1], alpha_bar**0.5 * image + (1 - alpha_bar) ** 0.5 * noise)


def test_the_noise_of_a_class_does_not_depend_on_the_others():
    both, one = sample_seeds(3, ["crack", "hole", "crack", "hole"]), sample_seeds(3, ["hole", "hole"])
    assert len(set(both)) == 4 and [both[1], both[3]] == one and sample_seeds(4, ["hole"])[0] not in both
    draw = torch.empty(2, *SHAPE)
    assert torch.equal(sample_noise(both, [1, 3])(draw), sample_noise(one, [0, 1])(draw))
    assert not torch.equal(sample_noise(both, [0, 1])(draw)[0], sample_noise(both, [0, 1])(draw)[1])
