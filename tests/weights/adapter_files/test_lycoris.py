"""LoHa and LoKr files against their published formulas, and against LyCORIS where it is installed."""

import copy
import re

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import adapters
import weights
from unet import TextConditioned
from weights.adapter_files.lora_change import change, difference
from weights.adapter_files.lora_export import export_adapter
from weights.adapter_files.lora_import import apply_foreign, read_foreign
from weights.adapter_files.lora_names import places
from weights.formats import safe

MIDDLE = "lora_unet_mid_block_attentions_0"
LAYERS = {  # ours: its stem in kohya's and LyCORIS' files
    "unet.mid.attentions.0.transformer_blocks.0.attn2.to_k": f"{MIDDLE}_transformer_blocks_0_attn2_to_k",
    "unet.down.1.resnets.0.conv1": "lora_unet_down_blocks_1_resnets_0_conv1",
}
LINEAR, CONV = LAYERS  # 32 -> 96; 32 -> 64, 3x3


def rand(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) / 4


def joined(sd):
    return copy.deepcopy(TextConditioned(sd[0].unet, sd[0].text))


def changed(sd, tensors, folder, layer, strength=1.0):
    """W' - W of a layer after a file with these tensors, {role: tensor}."""
    model = joined(sd)
    before = model.get_submodule(layer).weight.clone()
    save_file({f"{LAYERS[layer]}.{role}": tensor for role, tensor in tensors.items()}, folder / "a.safetensors")
    assert apply_foreign(model, folder / "a.safetensors", strength) == 1
    return model.get_submodule(layer).weight - before


def test_loha_is_a_product_of_products_entry_by_entry(tmp_path, sd1):
    a1, b1, a2, b2 = rand(96, 4), rand(4, 32, seed=1), rand(96, 4, seed=2), rand(4, 32, seed=3)
    tensors = {"hada_w1_a": a1, "hada_w1_b": b1, "hada_w2_a": a2, "hada_w2_b": b2, "alpha": torch.tensor(1.0)}
    found = changed(sd1, tensors, tmp_path, LINEAR, strength=0.5)
    expected = torch.stack([sum(a1[o, r] * b1[r] for r in range(4)) * (a2[o] @ b2) for o in range(96)])
    torch.testing.assert_close(found, 0.5 / 4 * expected, atol=1e-6, rtol=1e-5)


def test_loha_of_a_convolution_plain_and_by_tucker(tmp_path, sd1):
    plain = {f"hada_w{i}_a": rand(64, 3, seed=i) for i in (1, 2)} | {
        f"hada_w{i}_b": rand(3, 288, seed=i) for i in (3, 4)
    }
    plain = {name.replace("w3", "w1").replace("w4", "w2"): tensor for name, tensor in plain.items()}
    expected = (plain["hada_w1_a"] @ plain["hada_w1_b"]) * (plain["hada_w2_a"] @ plain["hada_w2_b"])
    found = changed(sd1, plain | {"alpha": torch.tensor(6.0)}, tmp_path, CONV)
    torch.testing.assert_close(found, 2 * expected.view(64, 32, 3, 3), atol=1e-6, rtol=1e-5)

    cores = [rand(3, 3, 3, 3, seed=5), rand(3, 3, 3, 3, seed=6)]
    a, b = [rand(3, 64, seed=7), rand(3, 64, seed=8)], [rand(3, 32, seed=9), rand(3, 32, seed=10)]
    tensors = {f"hada_w{i + 1}_{half}": of[i] for i in (0, 1) for half, of in (("a", a), ("b", b))}
    tensors |= {f"hada_t{i + 1}": core for i, core in enumerate(cores)}
    found = changed(sd1, tensors, tmp_path, CONV)
    halves = [torch.zeros(64, 32, 3, 3) for _ in cores]
    for half, core, left, right in zip(halves, cores, a, b):
        for m in range(3):
            for n in range(3):
                half += left[m][:, None, None, None] * right[n][None, :, None, None] * core[m, n]
    torch.testing.assert_close(found, halves[0] * halves[1], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("form", ["whole", "low rank", "both low rank"])
def test_lokr_is_a_kronecker_product(tmp_path, sd1, form):
    w1, w2 = rand(8, 4), rand(12, 8, seed=1)
    tensors, scale = {"lokr_w1": w1, "lokr_w2": w2, "alpha": torch.tensor(5.0)}, 1.0  # with no rank alpha means nothing
    if form != "whole":
        a, b = rand(12, 2, seed=2), rand(2, 8, seed=3)
        tensors, w2, scale = {"lokr_w1": w1, "lokr_w2_a": a, "lokr_w2_b": b, "alpha": torch.tensor(5.0)}, a @ b, 2.5
    if form == "both low rank":
        a, b = rand(8, 2, seed=4), rand(2, 4, seed=5)
        tensors, w1 = tensors | {"lokr_w1_a": a, "lokr_w1_b": b}, a @ b
        del tensors["lokr_w1"]
    found = changed(sd1, tensors, tmp_path, LINEAR)
    blocks = torch.cat([torch.cat([w1[o, i] * w2 for i in range(4)], dim=1) for o in range(8)])
    torch.testing.assert_close(found, scale * blocks, atol=1e-6, rtol=1e-5)


def test_lokr_of_a_convolution_whole_low_rank_and_by_tucker(tmp_path, sd1):
    w1, whole = rand(8, 4), rand(8, 8, 3, 3, seed=1)
    a, b, core = rand(2, 8, seed=2), rand(2, 8, seed=3), rand(2, 2, 3, 3, seed=4)
    flat = rand(2, 8 * 9, seed=5)
    forms = [
        ({"lokr_w2": whole}, whole),
        ({"lokr_w2_a": a.mT.contiguous(), "lokr_w2_b": flat}, (a.mT @ flat).view(8, 8, 3, 3)),
        ({"lokr_w2_a": a, "lokr_w2_b": b, "lokr_t2": core}, torch.einsum("mo,mnkl,ni->oikl", a, core, b)),
    ]
    for tensors, w2 in forms:
        found = changed(sd1, {"lokr_w1": w1} | tensors, tmp_path, CONV)
        expected = torch.einsum("ac,bdkl->abcdkl", w1, w2).reshape(64, 32, 3, 3)
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)


def test_a_magnitude_is_that_of_the_whole_sum(tmp_path, sd1):
    w1, w2, m = rand(8, 4), rand(12, 8, seed=1), 1 + rand(96, 1, seed=2)
    w = joined(sd1).get_submodule(LINEAR).weight.detach()
    found = changed(sd1, {"lokr_w1": w1, "lokr_w2": w2, "dora_scale": m}, tmp_path, LINEAR)
    torch.testing.assert_close((w + found).norm(dim=1), m[:, 0].abs(), atol=1e-5, rtol=1e-5)


def loha(out=96, width=32, rank=4):
    return {
        f"hada_w{i}_{half}": rand(*shape) for i in (1, 2) for half, shape in (("a", (out, rank)), ("b", (rank, width)))
    }


@pytest.mark.parametrize(
    "tensors, message",
    [
        (loha(width=2048), r"LoHa \[96, 2048\] of rank 4 .*made for Stable Diffusion XL$"),
        (
            {"lokr_w1": rand(8, 8), "lokr_w2": rand(12, 96)},
            r"LoKr \[8, 8\] x \[12, 96\], here \[96, 32\].*Diffusion 1$",
        ),
        ({"lokr_w1": rand(8, 8), "lokr_w2_a": rand(12, 2), "lokr_w2_b": rand(2, 128)}, "made for Stable Diffusion 2$"),
        ({"lokr_w1": rand(8, 4)}, "has lokr_w1, expected lokr_w2, or lokr_w2_a and lokr_w2_b"),
        (
            {"lokr_w1": rand(8, 4), "lokr_w2": rand(12, 8), "lokr_w2_a": rand(12, 2)},
            "expected lokr_w2, or lokr_w2_a and",
        ),
        ({"lokr_w1": rand(8, 4), "lokr_w2": rand(96)}, r"lokr_w2 is \[96\], which do not chain"),
        (
            {"lokr_w1": rand(8, 4), "lokr_w2_a": rand(12, 2), "lokr_w2_b": rand(3, 8)},
            r"\[12, 2\] x \[3, 8\], which do not",
        ),
        (
            {"lokr_w1": rand(8, 4), "lokr_w2": rand(12, 8), "lokr_t1": rand(2, 2)},
            "1 that belong to no layer of it .*lokr_t1",
        ),
        ({"hada_w1_a": rand(96, 4), "hada_w1_b": rand(4, 32)}, "expected hada_w2, or hada_w2_a and hada_w2_b"),
        (loha() | {"hada_w2_a": rand(96, 2), "hada_w2_b": rand(2, 32)}, r"of rank 4 o \[96, 32\] of rank 2"),
        (loha() | {"lokr_w1": rand(8, 4), "lokr_w2": rand(12, 8)}, "products of two kinds"),
        (loha() | {"alpha": rand(2)}, r"alpha \[2\], expected one number"),
    ],
)
def test_refused_in_one_sentence(tmp_path, sd1, tensors, message):
    save_file({f"{LAYERS[LINEAR]}.{role}": tensor for role, tensor in tensors.items()}, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match=message):
        read_foreign(tmp_path / "a.safetensors", joined(sd1))


def test_every_size_of_the_factors_is_checked_against_the_weight():
    """A transposed pair has the right number of entries and another shape."""
    layer = nn.Conv2d(6, 4, 3, bias=False)
    for w1, w2 in ((rand(2, 2), rand(2, 27)), (rand(2, 9), rand(2, 6)), (rand(4, 3), rand(1, 18))):
        fits = w1.shape[0] * w2.shape[0] == 4 and w1.shape[1] * w2.shape[1] == 54 and 6 % w1.shape[1] == 0
        if fits:
            difference(change({"lokr_w1": w1, "lokr_w2": w2}, layer, None), layer.weight)
            continue
        with pytest.raises(ValueError, match="LoKr"):
            change({"lokr_w1": w1, "lokr_w2": w2}, layer, None)


def made_by_lycoris(model, cls, every, options):
    """LyCORIS' modules over layers of the model, which from then on compute with them; the tensors of its file."""
    stems = {
        place.name: stem for stem, place in places(model).items() if stem.startswith("lora_") and "blocks_" in stem
    }
    tensors = {}
    for name, layer in list(model.named_modules()):
        if name not in stems or not re.search(every, name) or type(layer) not in (nn.Linear, nn.Conv2d):
            continue
        module = cls(stems[name], layer, 1.0, lora_dim=2, alpha=5.0, **options)
        for parameter in module.parameters():
            nn.init.normal_(parameter, std=0.5)
        tensors |= {f"{stems[name]}.{key}": value.detach().clone() for key, value in module.custom_state_dict().items()}
        module.apply_to()
    return tensors


@pytest.mark.parametrize(
    "algo, options",
    [
        ("loha", {}),
        ("loha", {"use_tucker": True}),
        ("loha", {"rs_lora": True}),
        ("loha", {"weight_decompose": True}),
        ("lokr", {"factor": 4}),
        ("lokr", {"factor": 4, "use_tucker": True}),
        ("lokr", {"factor": 8, "full_matrix": True}),
        ("lokr", {"decompose_both": True, "factor": 8}),
        ("lokr", {"factor": 4, "weight_decompose": True, "wd_on_out": False}),
        ("locon", {"use_tucker": True}),
    ],
)
@torch.no_grad()
def test_a_file_of_lycoris_gives_the_same_output(tmp_path, sd1, algo, options):
    """As it trains, and as other tools read it. LyCORIS' own merge of these files multiplies by alpha / r twice."""
    pytest.importorskip("lycoris")
    from lycoris.modules.locon import LoConModule
    from lycoris.modules.loha import LohaModule
    from lycoris.modules.lokr import LokrModule

    torch.manual_seed(0)
    theirs, ours = joined(sd1).eval(), joined(sd1).eval()
    cls = {"loha": LohaModule, "lokr": LokrModule, "locon": LoConModule}[algo]
    tensors = made_by_lycoris(theirs, cls, r"unet\S*(to_\w|proj|conv[12]|sample)|text\S*(to_q|fc1)", options)
    assert len({key.partition(".")[0] for key in tensors}) > 10
    save_file({key: value.contiguous() for key, value in tensors.items()}, tmp_path / "a.safetensors")
    apply_foreign(ours, tmp_path / "a.safetensors")
    x, t, ids = torch.randn(2, 4, 8, 8), torch.tensor([3, 700]), torch.randint(0, 500, (2, 16))
    before, expected = joined(sd1).eval()(x, t, ids), theirs(x, t, ids)
    assert (expected - before).abs().max() > 0.01
    torch.testing.assert_close(ours(x, t, ids), expected, atol=2e-5, rtol=1e-4)


SPECS = [r"unet.lokr:factor=4,targets=attn1", r"unet.lokr:factor=4,rank=2,alpha=3,targets=(conv|proj_|ff)", "text.lora"]


def trained(path, model, specs):
    """The model with these methods and random values, and their adapter file."""
    header = {"base": weights.fingerprint(model), "adapter": specs}
    adapters.attach(model, specs, torch.Generator().manual_seed(0))
    with torch.no_grad():
        for i, parameter in enumerate(adapters.trainable_parameters(model).values()):
            parameter.copy_(rand(*parameter.shape, seed=i))
    weights.save_adapter(path, model, header)
    return model


def test_our_lokr_there_and_back_in_lycoris_names(tmp_path, sd):
    expected = adapters.merge(trained(tmp_path / "a.safetensors", joined(sd), SPECS)).state_dict()
    export_adapter(tmp_path / "a.safetensors", tmp_path / "b.safetensors", "kohya")
    names = {name.rpartition(".")[2] for name in load_file(tmp_path / "b.safetensors")}
    assert names == {"lokr_w1", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "alpha", "weight"}
    back = joined(sd)
    apply_foreign(back, tmp_path / "b.safetensors")
    for name, value in back.state_dict().items():
        torch.testing.assert_close(value, expected[name], atol=1e-6, rtol=1e-5)
    with pytest.raises(ValueError, match="lora-diffusers holds LoRA and DoRA, and a LoKr is written by --layout kohya"):
        export_adapter(tmp_path / "a.safetensors", tmp_path / "b.safetensors", "lora-diffusers")


def test_the_header_of_our_lokr_names_its_algorithm(tmp_path, sd1):
    trained(tmp_path / "a.safetensors", joined(sd1), SPECS[:1])
    export_adapter(tmp_path / "a.safetensors", tmp_path / "b.safetensors", "kohya")
    header = safe.read_metadata(tmp_path / "b.safetensors")
    assert (header["ss_network_module"], header["ss_network_args"]) == ("lycoris.kohya", '{"algo": "lokr"}')


def test_lycoris_reads_our_lokr(tmp_path, sd1):
    """Its own classes, from the tensors of the file alone, compute what the trained layers do."""
    pytest.importorskip("lycoris")
    from lycoris.modules.lokr import LokrModule

    model, base = trained(tmp_path / "a.safetensors", joined(sd1), SPECS[:2]), joined(sd1)
    export_adapter(tmp_path / "a.safetensors", tmp_path / "b.safetensors", "kohya")
    tensors, stems = load_file(tmp_path / "b.safetensors"), {stem: place.name for stem, place in places(base).items()}
    adapters.merge(model)
    found = {key.partition(".")[0] for key in tensors}
    assert len(found) > 10
    for stem in found:
        layer = base.get_submodule(stems[stem])
        parts = {role: tensors.get(f"{stem}.{role}") for role in LokrModule.weight_list}
        with torch.no_grad():
            module = LokrModule.make_module_from_state_dict(stem, layer, *parts.values())
            delta = model.get_submodule(stems[stem]).weight - layer.weight
            torch.testing.assert_close(module.get_weight(layer.weight.shape), delta, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("spec", SPECS[:2])
def test_half_a_strength_is_half_of_the_change(tmp_path, sd1, spec):
    merged = adapters.merge(trained(tmp_path / "a.safetensors", joined(sd1), [spec])).state_dict()
    half = weights.apply_adapters(joined(sd1), [(str(tmp_path / "a.safetensors"), 0.5)]).state_dict()
    for name, value in joined(sd1).state_dict().items():
        torch.testing.assert_close(half[name], (value + merged[name]) / 2, atol=1e-6, rtol=1e-5)
