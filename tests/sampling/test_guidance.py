"""Guidance is a function from model and conditions to denoiser, in one doubled batch."""
import pytest
import torch

from sampling import bind, cfg

# 2C = 8 output channels per class; 3 is the null class, 4 and 5 are superclasses. Small integers keep sums exact.
ROWS = torch.randint(-8, 8, (6, 8), generator=torch.Generator().manual_seed(0)).float()
X, T = torch.arange(32.0).view(2, 4, 2, 2), torch.tensor([7, 900])
LABELS = torch.tensor([0, 2])


def model(x, t, y):
    return torch.cat([x, x + t.view(-1, 1, 1, 1)], dim=1) + ROWS[y, :, None, None]


def alone(y):
    return model(X, T, torch.as_tensor(y).expand(2))


def test_bind_is_the_conditional_model():
    assert torch.equal(bind(model, LABELS)(X, T), alone(LABELS))


def test_scale_one_is_conditional_for_any_channels():
    for channels in (None, 3):
        assert torch.equal(cfg(model, LABELS, 3, 1.0, channels)(X, T), alone(LABELS))


def test_scale_zero_with_three_channels_is_the_official_quirk():
    out = cfg(model, LABELS, 3, 0.0, channels=3)(X, T)
    assert torch.equal(out[:, :3], alone(3)[:, :3])
    assert torch.equal(out[:, 3:], alone(LABELS)[:, 3:])     # latent channel 3 and the variance half stay conditional


def test_scale_zero_with_all_channels_leaves_only_the_variance_conditional():
    out = cfg(model, LABELS, 3, 0.0)(X, T)
    assert torch.equal(out[:, :4], alone(3)[:, :4])
    assert torch.equal(out[:, 4:], alone(LABELS)[:, 4:])


def test_guidance_extrapolates():
    out = cfg(model, LABELS, 3, 4.0)(X, T)
    assert torch.equal(out[:, :4], (4 * alone(LABELS) - 3 * alone(3))[:, :4])


def test_superclass_guidance_is_the_same_function():
    superclass = torch.tensor([4, 5])
    for channels in (None, 3):
        guided = slice(0, channels or 4)
        sub, sup = (cfg(model, LABELS, superclass, scale, channels)(X, T)[:, guided] for scale in (1.0, 0.0))
        assert torch.equal(sub, alone(LABELS)[:, guided])
        assert torch.equal(sup, alone(superclass)[:, guided])


def test_one_call_with_the_batch_doubled():
    sizes = []

    def counting(x, t, y):
        sizes.append((len(x), len(t), len(y)))
        return model(x, t, y)

    cfg(counting, LABELS, 3, 4.0)(X, T)
    assert sizes == [(4, 4, 4)]


def test_text_conditions_take_one_null_state_for_all():
    def text_model(x, t, states):     # states (B, L, D)
        return x + states.mean((1, 2)).view(-1, 1, 1, 1)

    cond, null = torch.ones(2, 3, 4), torch.zeros(1, 3, 4)
    assert torch.equal(cfg(text_model, cond, null, 3.0)(X, T), X + 3)


def test_null_must_fit_the_conditions():
    with pytest.raises(ValueError, match=r"shape \(3,\) do not fit conditions of shape \(2,\)"):
        cfg(model, LABELS, torch.tensor([3, 3, 3]), 4.0)


@pytest.mark.parametrize("channels", [0, 5])
def test_channels_must_be_latent_channels(channels):
    with pytest.raises(ValueError, match=f"guidance on {channels} channels of latents that have 4"):
        cfg(model, LABELS, 3, 4.0, channels)(X, T)
