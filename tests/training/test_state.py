"""The state of a run: written and read back, kept twice, and refused where it is damaged or of another run."""

import errno
import json
import os
import shutil

import pytest
import torch
from torch import nn

from training import state as module
from training.state import PREVIOUS, STATE, State, check_room, load_state, save_state, saved_steps
from weights.formats import safe

MADE_OF = {
    "classes": {"names": ["1a", "1b"], "superclasses": "0"},
    "data": {"number of images": 4, "files": "f", "pixels": "p", "masks": "m", "labels": "l"},
    "base": {"model": "a", "autoencoder": "b", "init files": "c", "tokens": "d"},
}


def stepped(seed: int, best: bool = False, made_of: dict | None = None) -> State:
    """The state of a small run after two steps of AdamW."""
    torch.manual_seed(seed)
    parameters = dict(nn.Linear(3, 2).named_parameters())
    optimizer = torch.optim.AdamW(parameters.values(), lr=0.1)
    for _ in range(2):
        sum((p**2).sum() for p in parameters.values()).backward()
        optimizer.step()
    copies = {name: p.detach().clone() for name, p in parameters.items()}
    ema = {name: 2 * p for name, p in copies.items()}
    return State(parameters, ema, copies if best else {}, optimizer, MADE_OF if made_of is None else made_of)


def numbers(state: State) -> dict:
    """All that is in a state, as lists."""
    moments = {
        f"{name}/{key}": value.tolist()
        for name, p in state.parameters.items()
        for key, value in state.optimizer.state[p].items()
    }
    return {name: tensor.tolist() for name, tensor in state.weights().items()} | moments


def rewrite(path, change, checksum=False):
    """The file with its tensors and header changed, without a checksum or with that of what it holds now."""
    tensors, metadata = safe.read(path)
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    header = json.loads(metadata["graft"])
    change(tensors, header)
    header.pop("sha256", None)
    if checksum:
        header["sha256"] = module.digest(tensors, header)
    safe.write(path, tensors, {"graft": json.dumps(header)})


def test_a_state_comes_back_whole(tmp_path):
    old, new = stepped(0), stepped(1)
    save_state(tmp_path, old, 7)
    assert load_state(tmp_path, new) == 7 and numbers(new) == numbers(old)
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


def test_the_state_before_it_is_kept(tmp_path):
    for step in (2, 4, 6):
        save_state(tmp_path, stepped(step), step)
    assert saved_steps(tmp_path) == (6, 4)
    save_state(tmp_path, stepped(6), 6)
    assert {path.name for path in (tmp_path / "checkpoint").iterdir()} == {STATE.name, PREVIOUS.name}


DAMAGE = {
    "cut": lambda data: data[:-4],
    "cut in the header": lambda data: data[:40],
    "empty": lambda data: b"",
    "a flipped bit in the data": lambda data: data[:-9] + bytes([data[-9] ^ 4]) + data[-8:],
    "a flipped bit in the step": lambda data: data.replace(b'step\\": 4', b'step\\": 5'),
    "a flipped bit in the names": lambda data: data.replace(b"1a", b"1c"),
    "zeros": lambda data: bytes(len(data)),
    "no state": lambda data: b"this is no state",
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_state_is_passed_over_for_the_one_before_loudly(tmp_path, capsys, damage):
    save_state(tmp_path, stepped(2), 2)
    save_state(tmp_path, stepped(4), 4)
    whole = (tmp_path / STATE).read_bytes()
    damaged = DAMAGE[damage](whole)
    assert damaged != whole
    (tmp_path / STATE).write_bytes(damaged)
    new = stepped(0)
    assert load_state(tmp_path, new, 9) == 2 and numbers(new) == numbers(stepped(2))
    shown = capsys.readouterr().err
    assert shown.startswith("WARNING: ") and STATE.name in shown and "before it, after step 2" in shown
    (tmp_path / PREVIOUS).write_bytes(DAMAGE[damage]((tmp_path / PREVIOUS).read_bytes())[:-1])
    with pytest.raises(ValueError, match=f"cannot resume: .*{STATE.name}"):
        load_state(tmp_path, new, 9)
    assert numbers(new) == numbers(stepped(2))


def test_every_flipped_bit_is_noticed(tmp_path):
    save_state(tmp_path, stepped(2), 2)
    whole = bytearray((tmp_path / STATE).read_bytes())
    for place in range(0, len(whole), 29):
        flipped = whole.copy()
        flipped[place] ^= 1 << place % 8
        (tmp_path / STATE).write_bytes(flipped)
        with pytest.raises(ValueError):
            load_state(tmp_path, stepped(0), 9)


def test_a_lost_state_is_passed_over_for_the_one_before(tmp_path, capsys):
    for step in (2, 4):
        save_state(tmp_path, stepped(step), step)
    (tmp_path / STATE).unlink()
    assert load_state(tmp_path, stepped(0)) == 2 and "WARNING" in capsys.readouterr().err


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda t, h: t.pop("adam/bias/exp_avg"), "moments are not those of the parameters, first adam/bias/exp_avg"),
        (lambda t, h: [t.pop(n) for n in list(t) if n.startswith("adam/")], "moments are not those .* none at all"),
        (lambda t, h: t.update({"adam/odd/step": torch.zeros(())}), "moments are not those .* adam/odd/step"),
        (lambda t, h: t.update({"model/bias": torch.zeros(1)}), r"model/bias must be \[2, 'float32'\], found \[1, "),
        (lambda t, h: t.update({"ema/bias": torch.zeros(2).half()}), r"ema/bias must be .*found \[2, 'float16'\]"),
        (lambda t, h: t.update({"adam/bias/exp_avg": torch.zeros(1)}), "adam/bias/exp_avg must be"),
        (lambda t, h: h.update(step=10**6), "expected a state after 1 to 9 steps, found step 1000000"),
        (lambda t, h: h.update(step=-5), "after 1 to 9 steps, found step -5"),
        (lambda t, h: h.update(step="2"), "after a number of steps"),
        (lambda t, h: h.update(step=True), "after a number of steps"),
        (lambda t, h: h.clear(), "after a number of steps"),
    ],
)
@pytest.mark.parametrize("checksum", [False, True])
def test_what_does_not_fit_is_refused(tmp_path, change, words, checksum):
    save_state(tmp_path, stepped(0), 2)
    rewrite(tmp_path / STATE, change, checksum)
    new = stepped(1)
    with pytest.raises(ValueError, match=words):
        load_state(tmp_path, new, 9)
    assert numbers(new) == numbers(stepped(1))


def test_a_state_of_an_earlier_version_is_read(tmp_path):
    save_state(tmp_path, stepped(0), 2)
    rewrite(tmp_path / STATE, lambda tensors, header: header.pop("made_of"))
    assert load_state(tmp_path, stepped(1)) == 2


@pytest.mark.parametrize(
    "kind, what, value, words, allowed",
    [
        ("classes", "names", ["0first", "1a"], "other classes: its names changed .1a, 1b then, 0first, 1a now", False),
        ("classes", "superclasses", "1", "other classes: its superclasses changed; start another run", False),
        ("data", "number of images", 5, "other data: its number of images changed .4 then, 5 now", True),
        ("data", "files", "x", "other data: its files changed; --allow-change data", True),
        ("data", "pixels", "x", "other data: its pixels changed", True),
        ("data", "masks", "x", "other data: its masks changed", True),
        ("data", "labels", "x", "other data: its labels changed", True),
        ("base", "model", "x", "other base: its model changed; start another run", False),
        ("base", "autoencoder", "x", "other base: its autoencoder changed", False),
        ("base", "init files", "x", "other base: its init files changed", False),
        ("base", "tokens", "x", "other base: its tokens changed", False),
    ],
)
def test_what_the_run_is_made_of_must_be_the_same(tmp_path, kind, what, value, words, allowed):
    save_state(tmp_path, stepped(0), 2)
    other = stepped(1, made_of=MADE_OF | {kind: MADE_OF[kind] | {what: value}})
    with pytest.raises(ValueError, match=words):
        load_state(tmp_path, other)
    if allowed:
        assert load_state(tmp_path, other, allowed=["data"]) == 2
    else:
        with pytest.raises(ValueError, match=words):
            load_state(tmp_path, other, allowed=["data"])


def room(monkeypatch, free):
    usage = shutil.disk_usage
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: usage(path)._replace(free=free))


def test_without_room_nothing_is_written_and_file_and_bytes_are_named(tmp_path, monkeypatch):
    save_state(tmp_path, stepped(0), 2)
    before = (tmp_path / STATE).read_bytes()
    room(monkeypatch, 1000)
    with pytest.raises(OSError, match=r"no room for .*state.safetensors: it needs [\d,]+ bytes .* 1,000 free") as error:
        save_state(tmp_path, stepped(1), 4)
    assert error.value.errno == errno.ENOSPC and (tmp_path / STATE).read_bytes() == before
    with pytest.raises(ValueError, match=r"two checkpoints and the result need [\d,]+ bytes more, .* 1,000 free"):
        check_room(tmp_path, stepped(0))


def test_before_the_disk_is_full_the_older_state_goes(tmp_path, monkeypatch, capsys):
    for step in (2, 4):
        save_state(tmp_path, stepped(step), step)
    monkeypatch.setattr(module, "keep", lambda path, previous: None)  # the two are different files
    usage, whole = shutil.disk_usage, module.HEADER + 400
    free = lambda path: usage(path)._replace(free=whole if not (tmp_path / PREVIOUS).exists() else 10)  # noqa: E731
    monkeypatch.setattr(module.shutil, "disk_usage", free)
    save_state(tmp_path, stepped(6), 6)
    assert saved_steps(tmp_path) == (6, None) and "removed" in capsys.readouterr().err


def test_a_disk_without_hard_links_keeps_a_copy(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "link", lambda *names: (_ for _ in ()).throw(OSError(errno.EPERM, "no links")))
    for step in (2, 4):
        save_state(tmp_path, stepped(step), step)
    assert saved_steps(tmp_path) == (4, 2)
