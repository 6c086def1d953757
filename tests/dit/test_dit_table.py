"""A DiT of a few steps and labels computes what the whole one does, and refuses all others."""

import copy

import pytest
import torch

from dit import DiT, DiTConfig
from dit.table import tabulate, worthwhile
from sampling import Schedule, batched_cfg, sample_latents


def new_dit():
    torch.manual_seed(0)
    model = DiT(DiTConfig(depth=2, width=48, heads=4, patch=2, input_size=8, num_classes=3)).eval()
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.05)
    return model


def test_the_output_is_that_of_the_whole_model():
    whole = new_dit()
    few = tabulate(copy.deepcopy(whole), [900, 1, 500, 1], [3, 0])
    x, t, y = torch.randn(3, 4, 8, 8), torch.tensor([1, 900, 500]), torch.tensor([0, 3, 3])
    with torch.no_grad():
        torch.testing.assert_close(few(x, t, y), whole(x, t, y), atol=1e-5, rtol=1e-5)
        with torch.autocast("cpu", torch.bfloat16):
            torch.testing.assert_close(few(x, t, y), whole(x, t, y), atol=0.02, rtol=0.02)
    assert sum(p.numel() for p in few.parameters()) < 0.75 * sum(p.numel() for p in whole.parameters())


def test_a_sample_is_that_of_the_whole_model():
    whole, schedule = new_dit(), Schedule.linear()
    few = tabulate(copy.deepcopy(whole), schedule.timesteps(4), [1, whole.null])
    cond, images = torch.tensor([1, 1]), []
    for model in (whole, few):
        denoiser = batched_cfg(model, cond, model.null, 3.0)
        images.append(sample_latents(denoiser, range(2), (4, 8, 8), schedule, steps=4))
    torch.testing.assert_close(*images, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("t, y, found", [(2, 0, "found .2."), (1, 1, "found .1.")])
def test_another_step_or_label_is_refused(t, y, found):
    few = tabulate(new_dit(), [1, 500], [0, 3])
    with pytest.raises(ValueError, match=found):
        few(torch.randn(1, 4, 8, 8), torch.tensor([t]), torch.tensor([y]))


def test_it_is_worth_it_while_the_table_is_smaller_than_the_weights():
    model = new_dit()
    assert worthwhile(model, range(24), [0, 3]) and not worthwhile(model, range(25), [0, 3])
    assert not worthwhile(torch.nn.Linear(2, 2), [1], [0])
