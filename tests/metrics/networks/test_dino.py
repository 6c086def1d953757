"""DINO and DINOv2 against transformers' models, from every layout; resized positions; training checkpoints."""

import numpy as np
import pytest
import torch

from metrics.networks import dino, registry
from metrics.networks.vit import ViT, ViTConfig, prepare
from weights.formats.files import read

SMALL = ViTConfig(width=384, layers=12, heads=6, patch=16, grid=14, hidden=1536)
SHAPE = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4)
V2 = SHAPE | dict(image_size=28, patch_size=14)


def randomised(model):
    """No tensor 0 or 1 everywhere, the layer scales among them."""
    torch.manual_seed(0)
    for parameter in model.eval().requires_grad_(False).parameters():
        parameter += 0.2 * torch.randn(parameter.shape)
    return model


@pytest.fixture
def theirs():
    """Makes transformers' model of a kind: "dino", "dinov2", "giant" (SwiGLU) or "registers"."""
    t = pytest.importorskip("transformers")
    makers = {
        "dino": lambda: t.ViTModel(
            t.ViTConfig(**SHAPE, intermediate_size=64, image_size=32, patch_size=16, layer_norm_eps=1e-6),
            add_pooling_layer=False,
        ),
        "dinov2": lambda: t.Dinov2Model(t.Dinov2Config(**V2)),
        "giant": lambda: t.Dinov2Model(t.Dinov2Config(**V2, use_swiglu_ffn=True)),
        "registers": lambda: t.Dinov2WithRegistersModel(t.Dinov2WithRegistersConfig(**V2, num_register_tokens=4)),
    }
    return lambda kind: randomised(makers[kind]())


def opened(path):
    tensors, metadata = read(path)
    return dino.build(dino.normalised(tensors), metadata, path)


def images(side, count=3):
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(1))


def original(network):
    """The tensors of our network as DINO's code calls them."""
    return {name.replace("patches.", "patch_embed.proj."): t.clone() for name, t in network.state_dict().items()}


@pytest.fixture
def wide():
    """A network of DINOv2 with two heads of 64, which is what files without a config have."""
    return randomised(ViT(ViTConfig(128, layers=3, heads=2, patch=14, grid=3, hidden=32, scaled=True)))


def test_the_published_numbers_of_tensors_and_parameters():
    with torch.device("meta"):
        network = ViT(SMALL)
    state = original(network)
    assert len(state) == 150 and sum(t.numel() for t in state.values()) == 21_665_664
    shapes = {
        "cls_token": (1, 1, 384),
        "pos_embed": (1, 197, 384),
        "patch_embed.proj.weight": (384, 3, 16, 16),
        "blocks.11.attn.qkv.weight": (1152, 384),
        "blocks.0.mlp.fc1.bias": (1536,),
        "norm.weight": (384,),
    }
    assert {name: tuple(state[name].shape) for name in shapes} == shapes


@pytest.mark.parametrize("kind, side", [("dino", 32), ("dinov2", 28), ("giant", 28), ("registers", 28)])
def test_parity_with_transformers(theirs, tmp_path, kind, side):
    model = theirs(kind)
    model.save_pretrained(tmp_path)
    ours, found = opened(tmp_path), model(images(side))
    expected = found.last_hidden_state[:, 0] if kind == "dino" else found.pooler_output
    assert expected.std() > 0.1 and (ours(images(side)) - expected).abs().max() < 2e-6
    assert ours.config.scaled == (kind != "dino") and ours.config.registers == 4 * (kind == "registers")
    assert (ours.config.activation == "swiglu") == (kind == "giant")


def test_positions_of_models_with_registers_are_resized_as_in_transformers(theirs, tmp_path):
    model = theirs("registers")
    model.save_pretrained(tmp_path)
    for side in (14, 56, 70):
        assert (opened(tmp_path)(images(side)) - model(images(side)).pooler_output).abs().max() < 2e-6


def stretched(row, count, scale):
    """Cubic convolution (Keys 1981, a = -0.75) of a (n, ...) at (i + 1/2) / scale - 1/2, edges repeated."""

    def weight(d):
        inner = (1.25 * d - 2.25) * d**2 + 1
        return np.where(d <= 1, inner, np.where(d < 2, -0.75 * (((d - 5) * d + 8) * d - 4), 0))

    out = []
    for i in range(count):
        place = (i + 0.5) / scale - 0.5
        near = np.floor(place) + np.arange(-1, 3)
        taken = row[near.clip(0, len(row) - 1).astype(int)]
        out.append(np.tensordot(weight(np.abs(place - near)), taken, 1))
    return np.stack(out)


@pytest.mark.parametrize("side", [2, 5])
def test_positions_without_registers_are_stretched_by_a_little_more(wide, side):
    table = wide.pos_embed[0, 1:].reshape(3, 3, 128).double().numpy()
    rows = stretched(table, side, (side + 0.1) / 3)
    both = stretched(rows.swapaxes(0, 1), side, (side + 0.1) / 3).swapaxes(0, 1)
    found = wide.positions(side)[0]
    assert torch.equal(found[0], wide.pos_embed[0, 0])
    assert np.abs(found[1:].reshape(side, side, 128).double().numpy() - both).max() < 1e-5
    assert wide.positions(3) is wide.pos_embed


def test_the_original_layout_and_what_training_wraps_around_it(wide, tmp_path):
    state = original(wide) | {"mask_token": torch.zeros(1, 128)}
    torch.save(state, tmp_path / "plain.pth")
    teacher = {f"module.backbone.{name}": tensor for name, tensor in original(wide).items()}
    heads = {"module.head.mlp.0.weight": torch.zeros(1), "module.head.last_layer.weight_g": torch.zeros(1)}
    student = {name: tensor + 1 for name, tensor in teacher.items()}
    torch.save({"student": student, "teacher": teacher | heads, "epoch": 3}, tmp_path / "dino.pth")
    chunked = {f"backbone.{name}".replace("blocks.", "blocks.0."): tensor for name, tensor in state.items()}
    chunked = {name.replace("0.2.", "1.2.") if ".blocks.0.2." in name else name: t for name, t in chunked.items()}
    assert "backbone.blocks.1.2.norm1.weight" in chunked and "backbone.blocks.0.1.norm1.weight" in chunked
    torch.save({"teacher": chunked | {"dino_head.mlp.0.weight": torch.zeros(1)}}, tmp_path / "dinov2.pth")
    for name in ("plain", "dino", "dinov2"):
        assert torch.equal(opened(tmp_path / f"{name}.pth")(images(42)), wide(images(42)))


def test_a_network_for_the_metrics(wide, tmp_path):
    torch.save(original(wide), tmp_path / "small.pth")
    network, x = registry.load_network(tmp_path / "small.pth"), images(20, 2).clamp(-1, 1)
    assert network.name == "DINOv2 ViT-128/14 (small.pth)" and network.logits is None
    pixels = prepare(x, 256, 224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert torch.equal(network.embed(x), wide(pixels)) and pixels.shape == (2, 3, 224, 224)
    assert dino.name_of(ViT(ViTConfig(64, 1, 1, 14, 2, 64, scaled=True, registers=4))).endswith("/14 with 4 registers")
    with torch.device("meta"):
        assert dino.name_of(ViT(SMALL)) == "DINO ViT-S/16"


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda s: s | {"head.weight": torch.zeros(10, 128)}, "1 unknown .head.weight"),  # a classifier
        (lambda s: s | {"pos_embed": torch.zeros(1, 9, 128)}, "pos_embed expected .1, 10, 128., found .1, 9, 128."),
        (lambda s: {k: t for k, t in s.items() if k != "blocks.1.ls2.gamma"}, "1 missing .blocks.1.ls2.gamma"),
        (lambda s: {k: t for k, t in s.items() if k != "cls_token"}, "found another transformer"),
    ],
)
def test_other_files_are_refused(wide, tmp_path, change, message):
    torch.save(change(original(wide)), tmp_path / "a.pth")
    with pytest.raises(ValueError, match=f"a.pth: .*{message}"):
        registry.load_network(tmp_path / "a.pth")
