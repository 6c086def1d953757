"""The state of a run: written and read back, and refused where it is damaged or another run's."""

import pytest
import torch
from torch import nn

from training.state import STATE, State, load_state, save_state


def stepped(seed: int, best: bool = False) -> State:
    """The state of a small run after two steps of AdamW."""
    torch.manual_seed(seed)
    parameters = dict(nn.Linear(3, 2).named_parameters())
    optimizer = torch.optim.AdamW(parameters.values(), lr=0.1)
    for _ in range(2):
        sum((p**2).sum() for p in parameters.values()).backward()
        optimizer.step()
    copies = {name: p.detach().clone() for name, p in parameters.items()}
    return State(parameters, {name: 2 * p for name, p in copies.items()}, copies if best else {}, optimizer)


def test_a_state_comes_back_whole(tmp_path):
    old, new = stepped(0), stepped(1)
    save_state(tmp_path, old, 7)
    assert load_state(tmp_path, new) == 7
    assert all(torch.equal(tensor, new.weights()[name]) for name, tensor in old.weights().items())
    for one, two in zip(old.parameters.values(), new.parameters.values()):
        ours, theirs = old.optimizer.state[one], new.optimizer.state[two]
        assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)
    before = (tmp_path / STATE).read_bytes()
    save_state(tmp_path, new, 7)
    assert (tmp_path / STATE).read_bytes() == before


def test_training_on_does_not_change_the_file(tmp_path):
    save_state(tmp_path, stepped(0), 2)
    before, state = (tmp_path / STATE).read_bytes(), stepped(1)
    load_state(tmp_path, state)
    state.optimizer.step()
    assert (tmp_path / STATE).read_bytes() == before


def test_the_state_of_another_run_is_refused(tmp_path):
    save_state(tmp_path, stepped(0), 2)
    with pytest.raises(ValueError, match="made by another run, 2 tensors missing and 0 not expected, first best/bias"):
        load_state(tmp_path, stepped(0, best=True))


def test_a_damaged_state_is_refused(tmp_path):
    with pytest.raises(ValueError, match="cannot resume"):
        load_state(tmp_path, stepped(0))
    save_state(tmp_path, stepped(0), 2)
    whole = (tmp_path / STATE).read_bytes()
    (tmp_path / STATE).write_bytes(whole[:-4])
    with pytest.raises(ValueError, match="cannot resume: .*state.safetensors: .*the download is incomplete"):
        load_state(tmp_path, stepped(0))
