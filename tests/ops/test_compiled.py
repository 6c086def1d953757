"""Compiled blocks give what plain ones give, under the same names, whatever changes between two calls."""

import copy
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import adapters
import sample
import train
import weights
from adapters.core import disable_adapters, layer_classes
from data.images import decode
from dit import DiT, DiTConfig
from ops import compiled
from recipes.models.checkpoint import blocks_of, checkpoint_blocks
from tests.test_train import flags, killed_before
from unet import TextConditioned
from unet.attend import attention_maps
from unet.block import SpatialTransformer, TimeResBlock

X, T = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([1, 500, 900])
LABELS = torch.tensor([0, 2, 1])
CHILD = "import torch; from ops.compiled import compile_in_place; compile_in_place(torch.nn.Linear(1, 1), [])"


def new_dit(spec=""):
    torch.manual_seed(0)
    model = DiT(DiTConfig(depth=3, width=16, heads=2, patch=2, input_size=8, num_classes=3))
    return attached(model, spec) if spec else filled(model)


def attached(model, spec):
    """With an adapter that has learned something."""
    return filled(adapters.attach(model, spec, torch.Generator().manual_seed(0)))


def filled(model):
    """Without zeros, behind which nothing would show."""
    for parameter in model.parameters():
        if not parameter.any():
            nn.init.normal_(parameter.data, std=0.1)
    return model.train()


def learned(model, count=3):
    """The output, and the gradients of what trains."""
    torch.manual_seed(1)  # what Gaussian weights draw
    out = model(X[:count], T[:count], LABELS[:count])
    out.square().mean().backward()
    grads = {name: p.grad for name, p in adapters.trainable_parameters(model).items()}
    model.zero_grad()
    return out, grads


@pytest.fixture
def traced(monkeypatch):
    """torch.compile without the compiler: the same traces and guards, run by torch's own kernels."""
    whole = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda block, **options: whole(block, backend="aot_eager"))
    monkeypatch.setattr(compiled, "check_compiler", lambda device: None)
    torch.compiler.reset()


@pytest.fixture
def compiler():
    """A compiler that works, whatever was compiled before."""
    try:
        compiled.check_compiler(torch.device("cpu"))
    except ValueError as error:
        pytest.skip(str(error))
    torch.compiler.reset()


def test_one_block_is_compiled_for_all_and_agrees(compiler, capsys):
    plain = new_dit("bitfit")
    for block in plain.blocks:
        block.mlp.act = nn.Sequential(block.mlp.act, nn.Dropout(0.5))  # draws numbers
    model, before = copy.deepcopy(plain), plain.state_dict().keys()
    compiled.compile_in_place(model, blocks_of(model))
    first, compiled.WATCH.told = compiled.WATCH.total, -1.0
    for ours, theirs in zip(learned(model), learned(plain), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-4)
    assert compiled.WATCH.total > first and "compiled in " in capsys.readouterr().out
    assert model.state_dict().keys() == before and [*map(type, model.modules())] == [*map(type, plain.modules())]
    assert torch.equal(learned(copy.deepcopy(model))[0], learned(plain)[0])  # a copy is a plain one


@pytest.mark.parametrize(
    "build, condition",
    [
        (lambda: SpatialTransformer(16, 8, 2, 4, False, False), torch.randn(3, 5, 8)),
        (lambda: TimeResBlock(16, 24, 8, 4), torch.randn(3, 8)),
    ],
    ids=["transformer", "residual"],
)
def test_a_block_of_a_unet_agrees(compiler, build, condition):
    torch.manual_seed(0)
    plain = attached(build(), "bitfit")
    model, x = copy.deepcopy(plain), torch.randn(3, 16, 4, 4)
    compiled.compile_in_place(model, blocks_of(model))
    results = []
    for net in (model, plain):
        given = x.clone().requires_grad_()
        out = net(given, condition)
        out.square().mean().backward()
        results.append([out, given.grad, *(p.grad for p in adapters.trainable_parameters(net).values())])
    torch.testing.assert_close(*results, atol=1e-6, rtol=1e-4)


def test_the_code_of_one_block_runs_all_and_that_of_two_batch_sizes_any(traced):
    model, stats = new_dit(), torch._dynamo.utils.counters["stats"]
    compiled.compile_in_place(model, blocks_of(model))
    before, graphs = stats["unique_graphs"], []
    with torch.no_grad():
        for count in (3, 3, 2, 4, 3):
            model(X[:1].expand(count, -1, -1, -1), T[:1].expand(count), LABELS[:1].expand(count))
            graphs.append(stats["unique_graphs"] - before)
    assert graphs == [1, 1, 2, 2, 2]


@pytest.mark.parametrize(
    "spec, twice", [("bnn", False), ("bnn", True), ("difffit", False), ("tlora:rank=2", True), ("vpt:tokens=2", True)]
)
def test_adapters_and_checkpoints_and_other_times(traced, spec, twice):
    plain = new_dit(spec)
    model = copy.deepcopy(plain)
    if twice:
        checkpoint_blocks(model)
    compiled.compile_in_place(model, blocks_of(model))
    for ours, theirs in zip(learned(model), learned(plain), strict=True):
        torch.testing.assert_close(ours, theirs)
    with torch.no_grad():
        for net in (model, plain):
            net.eval()
            for parameter in adapters.trainable_parameters(net).values():  # as an average takes their place
                parameter.data = parameter.data * 1.5
        for times in (T, T.flip(0)):
            torch.testing.assert_close(model(X, times, LABELS), plain(X, times, LABELS))


def test_a_teacher_within_its_student(traced):
    plain = new_dit().eval()
    model = copy.deepcopy(plain)
    classes = layer_classes(model)
    attached(model, "lora:rank=2").eval()
    compiled.compile_in_place(model, blocks_of(model))
    with torch.no_grad():
        student = model(X, T, LABELS)
        with disable_adapters(classes):
            torch.testing.assert_close(model(X, T, LABELS), plain(X, T, LABELS))
        assert torch.equal(model(X, T, LABELS), student) and not torch.allclose(student, plain(X, T, LABELS))


def test_a_unet_and_what_looks_at_its_attention(traced):
    sd = weights.load_sd("tiny-sd", dtype=torch.float32)
    plain = TextConditioned(sd.unet, sd.text)
    model = copy.deepcopy(plain)
    compiled.compile_in_place(model, blocks_of(model))
    z, t, cond = torch.randn(1, *model.latent_shape), torch.tensor([500]), torch.randn(1, 4, sd.text.config.width)
    with torch.no_grad():
        torch.testing.assert_close(model(z, t, cond), plain(z, t, cond))
        assert torch.equal(attention_maps(model, z, t, cond), attention_maps(plain, z, t, cond))


def test_a_resumed_run_may_switch_and_its_file_does_not_say(traced, tiny, tmp_path):
    plain, switched = (flags(tiny, tmp_path / name, "--adapter", "lora:rank=2") for name in ("plain", "switched"))
    train.main(plain)
    killed_before(4, [*switched, "--compile"])
    stored = tmp_path / "switched" / "config.toml"
    assert "compile = true\n" in stored.read_text()
    train.main(["--resume", "--out", str(stored.parent), "--compile=false"])
    assert "compile = false\n" in stored.read_text()
    (theirs, _), (ours, header) = (
        weights.load_adapter(tmp_path / name / "adapter.safetensors") for name in ("plain", "switched")
    )
    for key, tensor in theirs.items():
        torch.testing.assert_close(ours[key], tensor, atol=1e-4, rtol=1e-3)
    assert "compile" not in header["config"]


def test_samples_are_the_same_and_share_a_folder(traced, tiny, tmp_path):
    files = ["--model", str(tiny / "dit.safetensors"), "--vae", str(tiny / "vae.safetensors")]
    short = "--classes pill/good --count 1 --steps 3 --precision fp32 --out".split() + [str(tmp_path)]
    images = []
    for more in ([], ["--compile"]):  # into a folder with samples of other settings it would be refused
        sample.main([*files, *short, *more])
        (path,) = tmp_path.glob("*good*_000.png")
        images.append(decode(path).astype(int))
    assert abs(images[0] - images[1]).max() <= 1


def test_without_a_compiler_one_sentence_says_so(tmp_path):
    environment = os.environ | {"CXX": str(tmp_path / "nothing"), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    root = Path(compiled.__file__).parents[1]
    child = subprocess.run([sys.executable, "-c", CHILD], cwd=root, env=environment, capture_output=True, text=True)
    assert child.stderr.strip().splitlines()[-1].startswith("ValueError: --compile needs a C++ compiler that torch")
