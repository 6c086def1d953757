"""Guidance is a function from model and conditions to denoiser, in one batch with every condition once."""

from functools import partial

import pytest
import torch

from sampling import (
    Schedule,
    batched_cfg,
    cfg,
    composed,
    conditional,
    limited_interval,
    sample_latents,
    superclass_cfg,
    two_stage,
)
from sampling.guidance import broadcast_to

# 2C = 8 output channels per class; 3 is the null class, 4 and 5 are superclasses. Small integers keep sums exact.
ROWS = torch.randint(-8, 8, (6, 8), generator=torch.Generator().manual_seed(0)).float()
X, T = torch.arange(32.0).view(2, 4, 2, 2), torch.tensor([7, 900])
LABELS = torch.tensor([0, 2])


def model(x, t, y):
    return torch.cat([x, x + t.view(-1, 1, 1, 1)], dim=1) + ROWS[y, :, None, None]


def alone(y):
    return model(X, T, torch.as_tensor(y).expand(2))


def test_conditional_is_the_model_alone():
    assert torch.equal(conditional(model, LABELS)(X, T), alone(LABELS))


def test_scale_one_is_conditional_for_any_channels():
    for channels in (None, 3):
        assert torch.equal(cfg(model, LABELS, 3, 1.0, channels)(X, T), alone(LABELS))


def test_scale_zero_with_three_channels_is_the_official_quirk():
    out = cfg(model, LABELS, 3, 0.0, channels=3)(X, T)
    assert torch.equal(out[:, :3], alone(3)[:, :3])
    assert torch.equal(out[:, 3:], alone(LABELS)[:, 3:])  # latent channel 3 and the variance half stay conditional


def test_scale_zero_with_all_channels_leaves_only_the_variance_conditional():
    out = cfg(model, LABELS, 3, 0.0)(X, T)
    assert torch.equal(out[:, :4], alone(3)[:, :4])
    assert torch.equal(out[:, 4:], alone(LABELS)[:, 4:])


def test_guidance_extrapolates():
    out = cfg(model, LABELS, 3, 4.0)(X, T)
    assert torch.equal(out[:, :4], (4 * alone(LABELS) - 3 * alone(3))[:, :4])


def test_superclass_guidance_leads_from_the_superclass_to_the_class():
    superclass = torch.tensor([4, 5])
    for channels in (None, 3):
        guided = slice(0, channels or 4)
        sub, sup = (superclass_cfg(model, LABELS, superclass, scale, channels)(X, T)[:, guided] for scale in (1.0, 0.0))
        assert torch.equal(sub, alone(LABELS)[:, guided])
        assert torch.equal(sup, alone(superclass)[:, guided])


def counting(seen):
    """The model, noting the conditions of every call."""

    def counted(x, t, y):
        assert len(x) == len(t) == len(y)
        seen.append(y.tolist())
        return model(x, t, y)

    return counted


def test_one_call_with_the_batch_doubled():
    seen = []
    cfg(counting(seen), LABELS, 3, 4.0)(X, T)
    assert seen == [[0, 2, 3, 3]]


@pytest.mark.parametrize("weight", [2.0, -2.0])
def test_conditions_are_composed(weight):
    """Towards label and 4, and towards or (NOT) away from 1; what is not guided is the label's."""
    out = composed(model, [(LABELS, 4.0), (torch.tensor([4, 4]), 3.0), (1, weight)], null=3)(X, T)
    null = alone(3)
    expected = null + 4 * (alone(LABELS) - null) + 3 * (alone(4) - null) + weight * (alone(1) - null)
    assert torch.equal(out[:, :4], expected[:, :4]) and torch.equal(out[:, 4:], alone(LABELS)[:, 4:])


@pytest.mark.parametrize(
    ("scale", "others", "conditions"),
    [
        (4.0, [(4, 2.0), (1, -1.0)], [0, 2, 4, 4, 1, 1, 3, 3]),
        (4.0, [(4, 0.0)], [0, 2, 3, 3]),  # no weight: not computed
        (1.0, [(4, 0.0)], [0, 2]),  # the label alone
        (0.0, [(4, 2.0)], [0, 2, 4, 4, 3, 3]),  # the label's variance is still needed
        (4.0, [(4, -3.0)], [0, 2, 4, 4]),  # the weights add up to 1: no null
        (0.3, [(1, 0.1), (4, 0.6)], [0, 2, 1, 1, 4, 4]),
    ],
)
def test_every_condition_that_counts_is_seen_once(scale, others, conditions):
    seen = []
    composed(counting(seen), [(LABELS, scale), *others], null=3)(X, T)
    batched_cfg(counting(seen), LABELS, 3, scale, extra_conditions=others)(slice(0, 2))(X, T)
    assert seen == [conditions, conditions]


def smooth(x, t, y):
    """Another model, whose numbers are no integers."""
    return torch.sin(x * (1 + y.view(-1, 1, 1, 1)) + t.view(-1, 1, 1, 1) / 100)


SUPER = torch.tensor([4, 5])


@pytest.mark.parametrize("scale", [0.0, 0.3, 1.0, 1.7, 4.0])
def test_superclass_guidance_is_two_weights_and_no_null(scale):
    """Also to the last bit: s and 1 - s are cfg with the superclass as its null."""
    by_weights = composed(smooth, [(LABELS, scale), (SUPER, 1 - scale)], null=None)(X, T)
    assert torch.equal(by_weights, superclass_cfg(smooth, LABELS, SUPER, scale)(X, T))
    assert torch.equal(by_weights, cfg(smooth, LABELS, SUPER, scale)(X, T))
    listed = batched_cfg(smooth, LABELS, None, scale, superclass=SUPER)(slice(0, 2))
    assert torch.equal(by_weights, listed(X, T))
    if scale in (0, 1):
        assert torch.equal(by_weights, smooth(X, T, LABELS if scale else SUPER))


@pytest.mark.parametrize(("scale", "seen_by_model"), [(4.0, [0, 2, 4, 5]), (1.0, [0, 2])])
def test_superclass_guidance_evaluates_no_null(scale, seen_by_model):
    seen = []
    superclass_cfg(counting(seen), LABELS, SUPER, scale)(X, T)
    batched_cfg(counting(seen), LABELS, 3, scale, superclass=SUPER)(slice(0, 2))(X, T)
    assert seen == [seen_by_model, seen_by_model]


@pytest.mark.parametrize(("s1", "s2"), [(1.0, 4.0), (4.0, 4.0), (2.5, 4.0), (0.0, 2.0), (3.0, 1.0), (1.0, 1.0)])
def test_guidance_in_two_stages_and_its_special_cases(s1, s2):
    out = two_stage(smooth, LABELS, SUPER, 3, s2, s1)(X, T)
    assert torch.equal(out, composed(smooth, [(LABELS, s2), (SUPER, s1 - s2)], null=3)(X, T))
    listed = batched_cfg(smooth, LABELS, 3, s2, superclass=SUPER, superclass_scale=s1)(slice(0, 2))
    assert torch.equal(out, listed(X, T))
    null, sup, sub = (smooth(X, T, torch.as_tensor(y).expand(2)) for y in (3, SUPER, LABELS))
    torch.testing.assert_close(out, null + s1 * (sup - null) + s2 * (sub - sup), rtol=0, atol=5e-6)
    if s1 == 1:
        assert torch.equal(out, superclass_cfg(smooth, LABELS, SUPER, s2)(X, T))
    if s1 == s2:
        assert torch.equal(out, cfg(smooth, LABELS, 3, s2)(X, T))


def test_each_part_of_a_list_has_its_own_conditions():
    labels, superclass = torch.tensor([0, 1, 2, 0]), torch.tensor([4, 5, 4, 5])
    denoiser = batched_cfg(smooth, labels, 3, 4.0, extra_conditions=[(superclass, -1.0), (1, 2.0)])
    both = batched_cfg(smooth, labels, 3, 4.0, extra_conditions=[(1, 2.0)], superclass=superclass, superclass_scale=3.0)
    for here in (slice(0, 2), slice(2, 4)):
        own = composed(smooth, [(labels[here], 4.0), (superclass[here], -1.0), (1, 2.0)], null=3)
        assert torch.equal(denoiser(here)(X, T), own(X, T))
        own = composed(smooth, [(labels[here], 4.0), (1, 2.0), (superclass[here], -1.0)], null=3)
        assert torch.equal(both(here)(X, T), own(X, T))


def test_samples_of_a_composition_are_those_of_the_product_of_densities():
    """Of N(m, s^2) with one narrow s: the product p_0 prod (p_i / p_0)^w_i is around m_0 + sum w_i (m_i - m_0)."""
    schedule, means = Schedule.linear(), torch.tensor([0.5, -1.0, 2.0, 0.25])  # 3 is the null class

    def gaussian(x, t, y):
        alpha, sigma = schedule.alpha_sigma(t, x)
        return (x - alpha * means[y].view(-1, 1, 1, 1)) * sigma / (1e-6 * alpha**2 + sigma**2)

    denoiser = batched_cfg(gaussian, torch.zeros(2).long(), 3, 1.5, extra_conditions=[(1, 0.5), (2, -0.75)])
    drawn = sample_latents(denoiser, range(2), (4, 2, 2), schedule, steps=50)
    expected = 0.25 + 1.5 * (0.5 - 0.25) + 0.5 * (-1.0 - 0.25) - 0.75 * (2.0 - 0.25)
    torch.testing.assert_close(drawn, torch.full_like(drawn, expected), rtol=0, atol=0.02)


def test_guidance_in_an_interval_spares_the_doubled_batch_outside():
    seen = []
    counted = counting(seen)
    denoise = limited_interval(100, 500, cfg(counted, LABELS, 3, 4.0), conditional(counted, LABELS))
    for step in (99, 100, 300, 500, 501):
        t = torch.tensor([step, step])
        inside = cfg(model, LABELS, 3, 4.0)(X, t)
        assert torch.equal(denoise(X, t), inside if 100 <= step <= 500 else model(X, t, LABELS))
    assert [len(y) for y in seen] == [2, 4, 4, 4, 2]


def test_text_conditions_take_one_null_state_for_all():
    def text_model(x, t, states):  # states (B, L, D)
        return x + states.mean((1, 2)).view(-1, 1, 1, 1)

    cond, null = torch.ones(2, 3, 4), torch.zeros(1, 3, 4)
    assert torch.equal(cfg(text_model, cond, null, 3.0)(X, T), X + 3)


def test_all_conditions_must_fit_the_first():
    three = torch.tensor([3, 3, 3])
    message = r"shape \(3,\) do not fit conditions of shape \(2,\)"
    for null, others in ((three, ()), (3, [(three, 2.0)])):
        with pytest.raises(ValueError, match=message):
            composed(model, [(LABELS, 4.0), *others], null)
    with pytest.raises(ValueError, match=message):
        cfg(model, LABELS, three, 4.0)


def test_a_null_is_needed_unless_the_weights_add_up_to_one():
    with pytest.raises(ValueError, match="guidance 4.0 needs a null condition; without one use guidance 1"):
        batched_cfg(model, LABELS, None, 4.0, extra_conditions=[(4, -2.0)])
    with pytest.raises(ValueError, match="guidance 4.0 needs a null condition; without one use guidance 1"):
        cfg(model, LABELS, None, 4.0)


@pytest.mark.parametrize("channels", [0, 5])
def test_channels_must_be_latent_channels(channels):
    with pytest.raises(ValueError, match=f"guidance on {channels} channels of latents that have 4"):
        cfg(model, LABELS, 3, 4.0, channels)(X, T)
    with pytest.raises(ValueError, match=f"guidance on {channels} channels of latents that have 4"):
        composed(model, [(LABELS, 4.0), (1, 2.0)], 3, channels)(X, T)


def test_each_part_of_a_list_has_its_own_null_and_hint():
    labels, null, hint = torch.tensor([0, 1, 2, 0]), torch.tensor([3, 4, 5, 6]), torch.arange(4.0).view(4, 1, 1, 1)

    def hinted(x, t, y, hint):
        return smooth(x, t, y) + hint.repeat(len(x) // len(hint), 1, 1, 1)

    denoiser = batched_cfg(hinted, labels, null, 4.0, hint=hint)
    for here in (slice(0, 2), slice(2, 4)):
        own = cfg(partial(hinted, hint=hint[here]), labels[here], null[here], 4.0)
        assert torch.equal(denoiser(here)(X, T), own(X, T))


def test_a_shorter_row_goes_on_as_the_condition_does():
    """Of Stable Diffusion XL: the sizes of an image end the row of its text, and its null has the same."""
    cond = torch.arange(10.0).view(2, 5)
    for null in (torch.zeros(3), torch.zeros(1, 3), torch.zeros(2, 3)):
        assert broadcast_to(null, cond).tolist() == [[0, 0, 0, 3, 4], [0, 0, 0, 8, 9]]
    assert broadcast_to(torch.zeros(1, 5), cond).tolist() == [[0] * 5] * 2
    with pytest.raises(ValueError, match="do not fit conditions"):
        broadcast_to(torch.zeros(3, 5), cond)
