"""CLIP against transformers' CLIPModel, from every layout, both activations; Pillow's resizing; texts; other files."""

import json
import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from metrics.networks import clip, registry
from metrics.networks.vit import prepare
from unet import Tokenizer
from weights.formats.files import read

transformers = pytest.importorskip("transformers")
WORDS = Tokenizer.train(["a photo of a crack", "a photo of a screw"] * 3, 530)
END = len(WORDS) - 1
ENTRIES = {name: torch.tensor(28) for name in ("input_resolution", "context_length", "vocab_size")}


def make(act="quick_gelu", heads=1):
    """A small CLIPModel, no tensor of it 0 or 1 everywhere."""
    shape = dict(hidden_size=64, num_attention_heads=heads, num_hidden_layers=2, intermediate_size=256, hidden_act=act)
    config = transformers.CLIPConfig(
        text_config=shape | dict(vocab_size=END + 1, bos_token_id=END - 1, eos_token_id=END, pad_token_id=END),
        vision_config=shape | dict(image_size=28, patch_size=14),
        projection_dim=24,
    )
    torch.manual_seed(0)
    model = transformers.CLIPModel(config).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter += 0.1 * torch.randn(parameter.shape)
    return model


def images(count=3, side=20):
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(1)) * 2 - 1


def tokens():
    rows = torch.randint(END, (3, 77), generator=torch.Generator().manual_seed(2))
    for row, end in zip(rows, (5, 40, 76)):
        row[end:] = END
    return rows


def same(ours, theirs):
    pixels = prepare(images(), 28, 28, clip.MEAN, clip.STD)
    u, v = theirs.get_image_features(pixel_values=pixels), theirs.get_text_features(input_ids=tokens())
    u, v = (getattr(x, "pooler_output", x) for x in (u, v))  # before transformers 5 the tensor itself
    assert u.std() > 0.1 and v.std() > 0.1
    assert (ours.images(images()) - u).abs().max() < 2e-6 and (ours.texts(tokens()) - v).abs().max() < 2e-6
    assert ours.logit_scale == theirs.logit_scale


def as_openai(model):
    """Its tensors as OpenAI's code calls and shapes them."""
    state, found = model.state_dict(), {}
    inner = {
        "ln_1": "layer_norm1",
        "ln_2": "layer_norm2",
        "mlp.c_fc": "mlp.fc1",
        "mlp.c_proj": "mlp.fc2",
        "attn.out_proj": "self_attn.out_proj",
    }
    for ours, theirs in (("visual.transformer", "vision_model"), ("transformer", "text_model")):
        for i in range(2):
            source, target = f"{theirs}.encoder.layers.{i}", f"{ours}.resblocks.{i}"
            for part in ("weight", "bias"):
                found |= {f"{target}.{a}.{part}": state[f"{source}.{b}.{part}"] for a, b in inner.items()}
                found[f"{target}.attn.in_proj_{part}"] = torch.cat(
                    [state[f"{source}.self_attn.{x}_proj.{part}"] for x in "qkv"]
                )
    for ours, theirs in (
        ("visual.ln_pre", "vision_model.pre_layrnorm"),
        ("ln_final", "text_model.final_layer_norm"),
        ("visual.ln_post", "vision_model.post_layernorm"),
    ):
        found |= {f"{ours}.{part}": state[f"{theirs}.{part}"] for part in ("weight", "bias")}
    vision, text = "vision_model.embeddings", "text_model.embeddings"
    return found | {
        "visual.class_embedding": state[f"{vision}.class_embedding"],
        "visual.conv1.weight": state[f"{vision}.patch_embedding.weight"],
        "visual.positional_embedding": state[f"{vision}.position_embedding.weight"],
        "visual.proj": state["visual_projection.weight"].T.contiguous(),
        "token_embedding.weight": state[f"{text}.token_embedding.weight"],
        "positional_embedding": state[f"{text}.position_embedding.weight"],
        "text_projection": state["text_projection.weight"].T.contiguous(),
        "logit_scale": state["logit_scale"],
    }


def opened(path):
    return clip.build(*read(path), path)


@pytest.mark.parametrize("act, heads", [("quick_gelu", 1), ("gelu", 2)])
def test_a_folder_of_transformers(tmp_path, act, heads):
    model = make(act, heads)
    model.save_pretrained(tmp_path)
    same(opened(tmp_path), model)


def test_a_single_file_of_transformers(tmp_path):
    model = make()
    positions = {f"{tower}_model.embeddings.position_ids": torch.arange(5)[None] for tower in ("text", "vision")}
    torch.save(model.state_dict() | positions, tmp_path / "model.bin")
    same(opened(tmp_path / "model.bin"), model)


@pytest.mark.parametrize("act, entries", [("gelu", {}), ("quick_gelu", ENTRIES)], ids=["OpenCLIP", "OpenAI"])
def test_the_original_layout(tmp_path, act, entries):
    model = make(act)
    torch.save({"state_dict": {f"module.{k}": v for k, v in (as_openai(model) | entries).items()}}, tmp_path / "a.pt")
    same(opened(tmp_path / "a.pt"), model)


def test_another_activation_is_refused(tmp_path):
    make("relu").save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="expected the activation quick_gelu or gelu, found 'relu'"):
        opened(tmp_path)


class Scripted(nn.Module):
    """A module of any names, for TorchScript."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_openais_torchscript_in_half_precision(tmp_path):
    root, model = Scripted(), make()
    for parameter in model.parameters():
        parameter.copy_(parameter.half())
    for name, tensor in (as_openai(model) | ENTRIES).items():
        *path, last = name.split(".")
        place = root
        for part in path:
            if not hasattr(place, part):
                place.add_module(part, Scripted())
            place = getattr(place, part)
        place.register_buffer(last, tensor.half() if tensor.is_floating_point() else tensor)
    torch.jit.script(root).save(str(tmp_path / "ViT.pt"))
    same(opened(tmp_path / "ViT.pt"), model)


def test_the_rule_for_single_files_without_a_config():
    layouts = list(clip.SIGNS.values())
    assert clip.activation_of(None, {}, layouts[1], 1024) == "quick_gelu"  # OpenAI's ViT-L/14
    assert clip.activation_of(None, {}, layouts[1], 1280) == "gelu"  # OpenCLIP's ViT-H/14
    assert clip.activation_of({}, {}, layouts[1], 1280) == "quick_gelu"  # what transformers takes then


def test_images_are_resized_as_by_pillow():
    drawn = np.random.default_rng(0).integers(70, 186, (61, 61, 3), dtype=np.uint8)  # no overshoot beyond 0 .. 255
    x = torch.from_numpy(drawn).permute(2, 0, 1)[None] / 127.5 - 1
    for resize, crop in ((28, 28), (100, 80)):
        edge = (resize - crop) // 2
        theirs = Image.fromarray(drawn).resize((resize, resize), Image.Resampling.BICUBIC)
        theirs = np.asarray(theirs.crop((edge, edge, edge + crop, edge + crop))).astype(np.float32) / 255
        ours = prepare(x, resize, crop, clip.MEAN, clip.STD)[0].permute(1, 2, 0).numpy() * clip.STD + clip.MEAN
        assert ours.shape == (crop, crop, 3) and np.abs(ours - theirs).max() < 1.5 / 255  # Pillow rounds twice
    harsh = prepare((x * 9).clamp(-1, 1), 100, 100, (0, 0, 0), (1, 1, 1))
    assert harsh.min() == 0 and harsh.max() == 1


def test_a_network_of_images_and_texts(tmp_path):
    model = make()
    model.save_pretrained(tmp_path)
    network = registry.load_network(tmp_path)
    assert network.name == f"CLIP ViT-64/14 at 28 px, quick_gelu ({tmp_path.name})" and network.logits is None
    assert torch.equal(network.embed(images()), opened(tmp_path).images(images()))
    with pytest.raises(ValueError, match="texts need a tokenizer, vocab.json and merges.txt in"):
        network.texts(["a photo"])
    WORDS.save(tmp_path)
    words = ["a photo of a crack", "a screw"]
    expected = model.get_text_features(input_ids=WORDS.tokens(words))
    found, scale = registry.load_network(tmp_path).texts(words), registry.load_network(tmp_path).scale
    assert (found - getattr(expected, "pooler_output", expected)).abs().max() < 2e-6
    assert scale == pytest.approx(math.exp(model.logit_scale.item()))
    vocabulary = json.loads((tmp_path / "vocab.json").read_text())
    Tokenizer(vocabulary | {"extra": END + 1}, WORDS.merges).save(tmp_path)
    with pytest.raises(ValueError, match=f"a tokenizer of {END + 2} tokens, the text tower has {END + 1}"):
        registry.load_network(tmp_path).texts(words)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda t: {k: v for k, v in t.items() if k != "visual.proj"}, "expected visual.proj, which tells"),
        (
            lambda t: t | {"visual.proj": torch.zeros(3, 3, 3)},
            "2 of another shape .visual.proj expected .3, 64., found",
        ),
        (lambda t: t | {"visual.trunk.weight": torch.zeros(3)}, "1 unknown .visual.trunk.weight"),
        (lambda t: t | {"ln_final.bias": torch.full((64,), math.nan)}, "NaN or infinity in 1 tensors"),
        (lambda t: {"visual.layer1.0.conv1.weight": torch.zeros(1)}, "found CLIP with a ResNet as its image tower"),
    ],
)
def test_other_files_are_refused(tmp_path, change, message):
    torch.save(change(as_openai(make())), tmp_path / "a.pt")
    with pytest.raises(ValueError, match=f"a.pt: .*{message}"):
        registry.load_network(tmp_path / "a.pt")
