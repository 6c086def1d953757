"""Frozen weights stored in bfloat16 compute what autocast computes of float32 ones, to the bit, both ways."""

import copy
import mmap
import os
import re
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

import adapters
import weights
from config.training import Blocks
from dit import DiT, DiTConfig
from ops import recompute
from ops.device import Compute
from ops.machine.pages import file_maps, forget
from ops.recompute import CastTwice
from recipes.models import store
from recipes.models.store import for_training, store_frozen, through_super
from unet import TextConditioned
from weights.formats import safe

X = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
T, Y = torch.tensor([1, 900]), torch.tensor([0, 2])


def new_dit():
    torch.manual_seed(0)
    model = DiT(DiTConfig(depth=2, width=48, heads=4, patch=2, input_size=8, num_classes=3))
    for parameter in model.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter, std=0.05)
    return model


def learned(model, cond):
    """The output under autocast, and the gradient of what trains."""
    with torch.autocast("cpu", torch.bfloat16):
        out = model(X, T, cond)
    out.float().square().sum().backward()
    return out, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(
    "spec", ["bitfit", "norm", "lora:rank=2", "dora:rank=2", "oft", "difffit", "modulate:rank=2", "bottleneck:width=4"]
)
def test_the_numbers_of_a_dit_are_those_of_autocast(spec):
    model = adapters.attach(new_dit(), spec, torch.Generator().manual_seed(0))
    stored = store_frozen(copy.deepcopy(model), torch.bfloat16)
    trained = adapters.trainable_parameters(stored)
    assert trained.keys() == adapters.trainable_parameters(model).keys()
    assert all(parameter.dtype == torch.float32 for parameter in trained.values())
    lowered = {name for name, p in stored.named_parameters() if p.dtype == torch.bfloat16}
    assert "blocks.0.mlp.fc1.weight" in lowered and "pos_embed" not in lowered
    assert ("blocks.0.attn.qkv.weight" in lowered) == (not spec.startswith(("dora", "modulate")))
    (out, grads), (out_stored, grads_stored) = learned(model, Y), learned(stored, Y)
    assert torch.equal(out, out_stored) and grads.keys() == grads_stored.keys() == trained.keys()
    for name, grad in grads.items():
        torch.testing.assert_close(grads_stored[name], grad, atol=0, rtol=0, msg=name)


def test_the_numbers_of_a_stable_diffusion_are_those_of_autocast():
    sd = weights.load_sd("tiny-sd", dtype=torch.float32)
    model = adapters.attach(TextConditioned(sd.unet, sd.text), "unet.lora:rank=2", torch.Generator().manual_seed(0))
    stored = store_frozen(copy.deepcopy(model), torch.bfloat16)
    conv = next(m for m in stored.unet.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3))
    assert conv.weight.dtype == torch.bfloat16 and conv.weight.is_contiguous(memory_format=torch.channels_last)
    cond, shape = torch.tensor([[1, 2, 3], [4, 5, 6]]), (2, *model.latent_shape)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    outs = []
    for each in (model, stored):
        with torch.autocast("cpu", torch.bfloat16):
            outs.append(each(x, T, cond))
        outs[-1].float().sum().backward()
    assert torch.equal(*outs)
    for one, two in zip(*(adapters.trainable_parameters(each).values() for each in (model, stored))):
        assert torch.equal(one.grad, two.grad)


def test_float32_and_a_model_that_is_saved_whole_stay_as_they_are():
    model = adapters.attach(new_dit(), "lora:rank=2")
    before = {name: p.data_ptr() for name, p in model.named_parameters()}
    store_frozen(store_frozen(model, torch.float32), torch.bfloat16, ["unet.full", "text.lora:rank=2"])
    assert {name: p.data_ptr() for name, p in model.named_parameters()} == before


def test_gaussian_layers_are_read_by_their_own_forward():
    model = adapters.attach(new_dit(), "bnn")
    classes = {type(layer) for layer in model.modules() if "adapted" in vars(type(layer))}
    assert classes and not any(through_super(cls) for cls in classes)


@pytest.mark.skipif(not os.path.exists("/proc/self/smaps"), reason="the system does not tell its maps")
def test_no_parameter_keeps_the_map_of_the_file(tmp_path):
    """Trained biases that are pieces of the map would hold all of it."""
    path = tmp_path / "dit.safetensors"
    weights.save_model(new_dit(), path)
    model = adapters.attach(weights.load(path), "bitfit")
    assert str(path) in open("/proc/self/maps").read()
    store_frozen(model, torch.bfloat16)
    assert str(path) not in open("/proc/self/maps").read()


def resident(path) -> int:
    """Bytes in memory of the maps of a file."""
    maps = [part for part in re.split(r"\n(?=[0-9a-f]+-)", Path("/proc/self/smaps").read_text()) if str(path) in part]
    return sum(1024 * int(re.search(r"Rss: +(\d+) kB", part)[1]) for part in maps)


@pytest.mark.skipif(not os.path.exists("/proc/self/smaps"), reason="the system does not tell its maps")
def test_forgotten_pages_go_and_come_back_from_the_file(tmp_path):
    path, values = tmp_path / "a.safetensors", torch.randn(100, 10_000)
    safe.write(path, {"a": values, "b": torch.ones(3)}, {})
    mapped = safe.read(path)[0]
    own, maps = mapped["a"].clone(), file_maps()
    assert resident(path) > 0.9 * values.nbytes
    for tensor in (mapped["a"], mapped["b"], own):
        forget(tensor, maps)
    assert resident(path) < 0.1 * values.nbytes
    assert torch.equal(mapped["a"], values) and torch.equal(own, values)


@pytest.mark.skipif(not os.path.exists("/proc/self/maps"), reason="the system does not tell its maps")
def test_a_map_may_have_any_path(tmp_path):
    """The kernel escapes a newline alone: what Python takes for the end of a line, or no UTF-8, stands in the list."""
    before, held = len(file_maps()), []
    for name in (b"a\xe2\x80\xa8b", b"a\x1cb", b"a\rb", b"a\nb", b"\xe9", b"a b"):
        path = os.fsencode(tmp_path) + b"/" + name
        Path(os.fsdecode(path)).write_bytes(bytes(8192))
        with open(path, "rb") as file:
            held.append(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    maps = file_maps()
    assert len(maps) >= before + len(held) and maps == sorted(maps)


def test_maps_are_read_once_a_model(monkeypatch):
    """Not for each of its tensors: the list is long, and a model has thousands."""
    calls = []
    monkeypatch.setattr(store, "file_maps", lambda: calls.append(1) or [])
    store_frozen(new_dit(), torch.bfloat16)
    assert len(calls) == 1


@pytest.mark.parametrize("kind", ["dit", "unet"])
def test_what_trains_is_cast_twice_and_learns_the_same(kind, monkeypatch):
    """Of a weight that trains the backward pass finds no copy in bfloat16, and the gradients are those of autocast."""
    if kind == "dit":
        model, cond = new_dit(), Y
    else:
        sd = weights.load_sd("tiny-sd", dtype=torch.float32)
        model, cond = TextConditioned(sd.unet, sd.text), torch.tensor([[1, 2, 3], [4, 5, 6]])
    model = adapters.attach(model, "full")
    twice, compute = copy.deepcopy(model), Compute(torch.device("cpu"), "bf16")
    for_training(twice, compute, Blocks(), ["full"])
    layers = [layer for layer in twice.modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
    assert all(isinstance(layer, CastTwice) for layer in layers)
    shapes = {tuple(layer.weight.shape) for layer in layers} | {tuple(layer.weight.shape[::-1]) for layer in layers}
    kept = []

    class Seen(saved_tensors_hooks):
        def __init__(self, pack=lambda tensor: tensor, unpack=lambda tensor: tensor):
            def seen(tensor):
                packed = pack(tensor)
                if isinstance(packed, torch.Tensor) and packed.dtype == torch.bfloat16:
                    kept.append(tuple(packed.shape))
                return packed

            super().__init__(seen, unpack)

    monkeypatch.setattr(recompute, "saved_tensors_hooks", Seen)
    x, found = torch.randn(2, *model.latent_shape, generator=torch.Generator().manual_seed(0)), []
    for each in (model, twice):
        kept.clear()
        with torch.autocast("cpu", torch.bfloat16), Seen():
            out = each(x, T, cond)
        found.append((out, len(shapes.intersection(kept))))
        out.float().square().mean().backward()
    (out, count), (out_twice, count_twice) = found
    assert torch.equal(out, out_twice) and count > 3 > count_twice
    trained = adapters.trainable_parameters(twice)
    for name, parameter in adapters.trainable_parameters(model).items():
        if parameter.grad is not None:
            torch.testing.assert_close(trained[name].grad, parameter.grad, atol=0, rtol=0, msg=name)


def test_a_run_of_all_weights_saves_plain_ones():
    model = adapters.attach(new_dit(), "full")
    names = list(model.state_dict())
    for_training(model, Compute(torch.device("cpu"), "bf16"), Blocks(), ["full"])
    assert list(model.state_dict()) == names
    assert not any(isinstance(layer, CastTwice) for layer in adapters.merge(model).modules())
