"""LoRA files and embeddings of other tools: every spelling, the arithmetic, and what is refused; our own for others."""

import copy
import json

import pytest
import torch
from safetensors.torch import load_file, save_file

import adapters
import weights
from unet import TextConditioned
from unet.sizes import TEXT_ENCODERS as TOWERS
from unet.sizes import UNETS
from weights.adapter_files.embeddings import add_embedding, read_embedding
from weights.adapter_files.lora_export import LowRank, export_adapter, kohya_tensors
from weights.adapter_files.lora_import import apply_foreign, is_foreign, read_foreign, scale_of
from weights.adapter_files.lora_names import Place, of_text, of_unet, original, places, published
from weights.formats import safe
from weights.layouts.kinds import empty, size_of

BLOCK = "down_blocks.0.attentions.1.transformer_blocks.0.attn2"
OURS = "unet.down.0.attentions.1.transformer_blocks.0.attn2.to_out.0"


def whole(sd):
    """The fixture's own models, for tests that change nothing."""
    return TextConditioned(sd[0].unet, sd[0].text)


def joined(sd):
    return copy.deepcopy(whole(sd))


def rand(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) / 8


def applied(sd, tensors, folder, layer, strength=1.0, metadata=None):
    """(W, W') of a layer, before and after a file with these tensors, which shall change nothing else."""
    before, model = whole(sd), joined(sd)
    save_file(tensors, folder / "a.safetensors", metadata)
    assert apply_foreign(model, folder / "a.safetensors", strength) == 1
    old, new = before.state_dict(), model.state_dict()
    assert {name.rpartition(".")[0] for name in old if not torch.equal(old[name], new[name])} == {layer}
    return old[f"{layer}.weight"], new[f"{layer}.weight"]


@pytest.mark.parametrize(
    ("down", "up"),
    [
        (f"unet.{BLOCK}.to_out.0.lora_A.weight", f"unet.{BLOCK}.to_out.0.lora_B.weight"),
        (f"unet.{BLOCK}.to_out.0.lora.down.weight", f"unet.{BLOCK}.to_out.0.lora.up.weight"),
        (f"unet.{BLOCK}.processor.to_out_lora.down.weight", f"unet.{BLOCK}.processor.to_out_lora.up.weight"),
        (f"{BLOCK}.processor.to_out_lora.down.weight", f"{BLOCK}.processor.to_out_lora.up.weight"),
        (
            f"lora_unet_{BLOCK.replace('.', '_')}_to_out_0.lora_down.weight",
            f"lora_unet_{BLOCK.replace('.', '_')}_to_out_0.lora_up.weight",
        ),
        (
            "lora_unet_input_blocks_2_1_transformer_blocks_0_attn2_to_out_0.lora_down.weight",
            "lora_unet_input_blocks_2_1_transformer_blocks_0_attn2_to_out_0.lora_up.weight",
        ),
        (f"base_model.model.{BLOCK}.to_out.0.lora_A.weight", f"base_model.model.{BLOCK}.to_out.0.lora_B.weight"),
        (
            "diffusion_model.input_blocks.2.1.transformer_blocks.0.attn2.to_out.0.lora_down.weight",
            "diffusion_model.input_blocks.2.1.transformer_blocks.0.attn2.to_out.0.lora_up.weight",
        ),
    ],
)
def test_spellings_of_one_layer(tmp_path, sd1, down, up):
    a, b = rand(4, 32), rand(32, 4, seed=1)
    w, new = applied(sd1, {down: a, up: b}, tmp_path, OURS, strength=0.5)
    assert torch.allclose(new, w + 0.5 * b @ a, atol=1e-6)
    alpha = {down.split("lora")[0].removesuffix(".").removesuffix("_") + ".alpha": torch.tensor(1.0)}
    if not down.startswith("lora_"):
        w, new = applied(sd1, {down: a, up: b} | alpha, tmp_path, OURS)
        assert torch.allclose(new, w + b @ a / 4, atol=1e-6)


@pytest.mark.parametrize(
    ("down", "up"),
    [
        (
            "text_encoder.text_model.encoder.layers.2.self_attn.q_proj.lora_linear_layer.down.weight",
            "text_encoder.text_model.encoder.layers.2.self_attn.q_proj.lora_linear_layer.up.weight",
        ),
        (
            "text_encoder.encoder.layers.2.self_attn.q_proj.lora_A.weight",
            "text_encoder.encoder.layers.2.self_attn.q_proj.lora_B.weight",
        ),
        (
            "text_encoder.text_model.encoder.layers.2.self_attn.to_q_lora.down.weight",
            "text_encoder.text_model.encoder.layers.2.self_attn.to_q_lora.up.weight",
        ),
        (
            "lora_te_text_model_encoder_layers_2_self_attn_q_proj.lora_down.weight",
            "lora_te_text_model_encoder_layers_2_self_attn_q_proj.lora_up.weight",
        ),
        (
            "base_model.model.text_model.encoder.layers.2.self_attn.q_proj.lora_A.weight",
            "base_model.model.text_model.encoder.layers.2.self_attn.q_proj.lora_B.weight",
        ),
    ],
)
def test_spellings_in_the_text_tower(tmp_path, sd, down, up):
    a, b = rand(2, 32), rand(32, 2, seed=1)
    w, new = applied(sd, {down: a, up: b}, tmp_path, "text.layers.2.attn.to_q")
    assert torch.allclose(new, w + b @ a, atol=1e-6)


def test_convolution_and_linear_are_one(tmp_path, sd):
    """proj_in is a convolution in Stable Diffusion 1 and a Linear in 2; either may get the other's LoRA."""
    stem = "lora_unet_mid_block_attentions_0_proj_in"
    for ones in ((), (1, 1)):
        tensors = {
            f"{stem}.lora_down.weight": rand(4, 96, *ones),
            f"{stem}.lora_up.weight": rand(96, 4, *ones),
            f"{stem}.alpha": torch.tensor(2.0, dtype=torch.float16),
        }
        w, new = applied(sd, tensors, tmp_path, "unet.mid.attentions.0.proj_in")
        assert torch.allclose((new - w).flatten(1), 0.5 * rand(96, 4) @ rand(4, 96), atol=1e-6)


def test_locon_plain_and_tucker(tmp_path, sd1):
    stem, layer = "lora_unet_down_blocks_1_resnets_0_conv1", "unet.down.1.resnets.0.conv1"  # 32 -> 64, 3x3
    down, up, alpha = rand(4, 32, 3, 3), rand(64, 4, 1, 1, seed=1), torch.tensor(1.0)
    names = [f"{stem}.lora_down.weight", f"{stem}.lora_up.weight", f"{stem}.alpha", f"{stem}.lora_mid.weight"]
    w, new = applied(sd1, dict(zip(names, (down, up, alpha))), tmp_path, layer)
    x = rand(1, 32, 5, 5, seed=3)
    path = torch.conv2d(torch.conv2d(x, down, padding=1), up)
    assert torch.allclose(torch.conv2d(x, new - w, padding=1), path / 4, atol=1e-5)

    down, mid, up = rand(4, 32, 1, 1), rand(3, 4, 3, 3, seed=2), rand(64, 3, 1, 1, seed=1)
    w, new = applied(sd1, dict(zip(names, (down, up, alpha, mid))), tmp_path, layer)
    path = torch.conv2d(torch.conv2d(torch.conv2d(x, down), mid, padding=1), up)
    assert torch.allclose(torch.conv2d(x, new - w, padding=1), path / 4, atol=1e-5)


@pytest.mark.parametrize("strength", [1.0, 0.3])
@pytest.mark.parametrize("per", ["output", "input"])
def test_kohya_dora_chooses_the_norm_by_shape(tmp_path, sd1, per, strength):
    stem, layer = "lora_unet_down_blocks_1_resnets_0_conv1", "unet.down.1.resnets.0.conv1"
    m = rand(64, 1, 1, 1, seed=2) if per == "output" else rand(1, 32, 1, 1, seed=2)
    down, up = rand(4, 32, 3, 3), rand(64, 4, 1, 1, seed=1)
    tensors = {f"{stem}.lora_down.weight": down, f"{stem}.lora_up.weight": up, f"{stem}.dora_scale": m}
    w, new = applied(sd1, tensors, tmp_path, layer, strength)
    v = w + torch.einsum("or,rikl->oikl", up[:, :, 0, 0], down)
    norm = v.pow(2).sum(dim=(1, 2, 3) if per == "output" else (0, 2, 3), keepdim=True).sqrt()
    assert torch.allclose(new, w + strength * (m * v / norm - w), atol=1e-6)


def test_a_square_layer_with_a_column_is_per_output(tmp_path, sd1):
    m, stem = rand(32, 1, seed=2), f"lora_unet_{BLOCK.replace('.', '_')}_to_out_0"
    tensors = {f"{stem}.lora_down.weight": rand(2, 32), f"{stem}.lora_up.weight": rand(32, 2), f"{stem}.dora_scale": m}
    w, new = applied(sd1, tensors, tmp_path, OURS)
    assert torch.allclose(new.norm(dim=1), m[:, 0].abs(), atol=1e-6)


def test_full_differences_of_weight_and_bias(tmp_path, sd1):
    tensors = {"lora_unet_conv_in.diff": rand(32, 4, 3, 3), "lora_unet_conv_in.diff_b": rand(32)}
    w, new = applied(sd1, tensors, tmp_path, "unet.conv_in", strength=2.0)
    assert torch.allclose(new, w + 2 * rand(32, 4, 3, 3), atol=1e-6)
    applied(sd1, {"lora_te_text_model_final_layer_norm.w_norm": rand(32)}, tmp_path, "text.final_norm")


def test_scale_from_the_header_of_diffusers(tmp_path, sd1):
    a, b = rand(2, 32), rand(32, 2, seed=1)
    tensors = {f"unet.{BLOCK}.to_out.0.lora_A.weight": a, f"unet.{BLOCK}.to_out.0.lora_B.weight": b}
    note = {"unet.r": 2, "unet.lora_alpha": 8, "text_encoder.lora_alpha": 1}
    w, new = applied(sd1, tensors, tmp_path, OURS, metadata={"lora_adapter_metadata": json.dumps(note)})
    assert torch.allclose(new, w + 4 * b @ a, atol=1e-6)


@pytest.mark.parametrize(
    ("note", "message"),
    [
        ({"unet.lora_alpha": "8"}, "lora_alpha of its config must be a number, found '8'"),
        ({"unet.lora_alpha": []}, "lora_alpha of its config must be a number"),
        ({"unet.lora_alpha": True}, "lora_alpha of its config must be a number"),
        ({"unet.lora_alpha": float("nan")}, "lora_alpha of its config must be a finite number"),
        ({"unet.alpha_pattern": [1]}, "alpha_pattern of its config must be an object"),
        ({"unet.alpha_pattern": {"a": "b"}}, r"alpha_pattern of its config\['a'\] must be a number"),
        ({"unet.alpha_pattern": {"(": 1}}, "no regular expression"),
        ({"unet.use_rslora": "no"}, "use_rslora of its config must be true or false"),
        ([1], "lora_adapter_metadata must be an object"),
    ],
)
def test_no_value_of_pefts_config_is_taken_on_faith(tmp_path, sd1, note, message):
    tensors = {f"unet.{BLOCK}.to_out.0.lora_A.weight": rand(2, 32), f"unet.{BLOCK}.to_out.0.lora_B.weight": rand(32, 2)}
    save_file(tensors, tmp_path / "a.safetensors", {"lora_adapter_metadata": json.dumps(note)})
    with pytest.raises(ValueError, match=message):
        apply_foreign(whole(sd1), tmp_path / "a.safetensors")


def lora_of(width, name="lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k", out=96):
    return {f"{name}.lora_down.weight": rand(4, width), f"{name}.lora_up.weight": rand(out, 4)}


@pytest.mark.parametrize(
    ("tensors", "metadata", "message"),
    [
        (lora_of(2048), {}, "4, 2048.*made for Stable Diffusion XL$"),
        (lora_of(1024), {"ss_base_model_version": "sd_v2_v"}, r"Stable Diffusion 2 \(sd_v2_v, say its metadata\)"),
        (lora_of(32) | lora_of(768, "lora_te1_text_model_encoder_layers_0_mlp_fc1"), {}, "XL, which has two"),
        (lora_of(768, "lora_te_text_model_encoder_layers_0_mlp_fc1", 3072), {}, "made for Stable Diffusion 1$"),
        (lora_of(32) | lora_of(32, "lora_unet_nowhere"), {}, "2 that belong to no layer of it .lora_unet_nowhere"),
        (lora_of(3072, "lora_unet_double_blocks_0_img_attn_qkv"), {}, "Flux"),
        ({"lora_unet_conv_in.lambda_layer": rand(1, 2)}, {}, "T-LoRA, whose rank follows the noise"),
        ({"lora_unet_conv_in.a1.weight": rand(2)}, {}, "GLoRA"),
        ({"lora_unet_conv_in.weight": rand(2), "lora_unet_conv_in.on_input": rand(1)}, {}, "IA3"),
        ({"lora_unet_conv_in.oft_blocks": rand(2)}, {}, "OFT"),
        ({"unet:0:up": rand(2)}, {}, "cloneofsimo"),
        ({"<word>": rand(2)}, {}, "expected a LoRA, found 1 unknown tensors"),
        ({"lora_unet_conv_in.lora_up.weight": rand(2)}, {}, "lacks the rest"),
        ({"lora_unet_conv_in.diff_b": torch.zeros(32)}, {}, "all 0; was it trained"),
        (lora_of(32), {"lora_adapter_metadata": "[]"}, "lora_adapter_metadata must be an object"),
    ],
)
def test_refusals_leave_the_model_as_it_was(tmp_path, sd1, tensors, metadata, message):
    model = whole(sd1)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    save_file(tensors, tmp_path / "a.safetensors", metadata)
    with pytest.raises(ValueError, match=message):
        apply_foreign(model, tmp_path / "a.safetensors")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_one_part_alone(tmp_path, sd1):
    save_file(lora_of(32), tmp_path / "unet.safetensors")
    assert [*read_foreign(tmp_path / "unet.safetensors", whole(sd1).unet)] == [
        "mid.attentions.0.transformer_blocks.0.attn2.to_k"
    ]
    save_file(lora_of(32, "lora_te_text_model_encoder_layers_0_mlp_fc1", 128), tmp_path / "text.safetensors")
    assert [*read_foreign(tmp_path / "text.safetensors", whole(sd1))] == ["text.layers.0.mlp.fc1"]
    with pytest.raises(ValueError, match="2 that belong to no layer"):
        read_foreign(tmp_path / "text.safetensors", whole(sd1).unet)
    with pytest.raises(ValueError, match="text.safetensors: an adapter file of another tool .*, found a TextEncoder"):
        read_foreign(tmp_path / "text.safetensors", whole(sd1).text)


def test_folders(tmp_path, sd1):
    with pytest.raises(ValueError, match="expected pytorch_lora_weights.safetensors.*an empty folder"):
        read_foreign(tmp_path, whole(sd1))
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LOHA"}')
    with pytest.raises(ValueError, match="peft's LOHA"):
        read_foreign(tmp_path, whole(sd1))


@pytest.fixture(scope="module")
def full_size():
    return TextConditioned(empty("unet", UNETS["SD-1"]), empty("text", TOWERS["CLIP-L"]))


def test_counts_at_full_size(full_size):
    """Values and tensors of rank 4 on Stable Diffusion 1.5: attention alone, and what kohya's scripts train."""
    adapters.attach(full_size, "unet.lora:rank=4")
    layers = [
        LowRank(*name.split(".", 1), layer.lora_down, layer.lora_up, layer.lora_scale)
        for name, layer in full_size.named_modules()
        if hasattr(layer, "lora_down")
    ]
    tensors = kohya_tensors(layers, None)
    values = [tensor for name, tensor in tensors.items() if not name.endswith(".alpha")]
    assert (len(values), sum(tensor.numel() for tensor in values)) == (256, 797_184)

    kinds = (torch.nn.Linear, torch.nn.Conv2d)
    sizes = {"lora_unet_": [], "lora_te_": []}
    for spelling, place in places(full_size).items():
        layer = full_size.get_submodule(place.name)
        prefix = next((prefix for prefix in sizes if spelling == prefix + place.published.replace(".", "_")), None)
        if prefix and isinstance(layer, kinds) and (".attentions." in place.name or prefix == "lora_te_"):
            sizes[prefix].append(4 * (len(layer.weight) + layer.weight.shape[1]))
    assert (len(sizes["lora_unet_"]), sum(sizes["lora_unet_"])) == (192, 1_695_744)
    assert (len(sizes["lora_te_"]), sum(sizes["lora_te_"])) == (72, 663_552)


def test_no_two_layers_share_a_spelling(full_size):
    spelled = 0
    for part, model in (("unet", full_size.unet), ("text", full_size.text)):
        for name, layer in model.named_modules():
            if getattr(layer, "weight", None) is not None:
                new = published(part, name)
                old = original(size_of(model.config), name) if part == "unet" else ""
                spelled += len(set(of_unet(new, old) if part == "unet" else of_text(part, new)))
    assert len(places(full_size)) == spelled > 2000


def saved(path, sd, specs, **header):
    """An adapter file with trained values, and the model that they were trained in."""
    model = joined(sd)
    header = {"base": weights.fingerprint(model), "adapter": specs} | header
    adapters.attach(model, specs, torch.Generator().manual_seed(0))
    with torch.no_grad():
        for i, parameter in enumerate(adapters.trainable_parameters(model).values()):
            parameter.copy_(rand(*parameter.shape, seed=i))
    weights.save_adapter(path, model, header)
    return model


@pytest.mark.parametrize("layout", ["kohya", "lora-diffusers"])
def test_our_lora_there_and_back(tmp_path, sd, layout):
    specs = ["unet.lora:rank=2,alpha=8,targets=attn1", "unet.lora:rank=3,alpha=1,targets=(conv|proj_)"]
    specs += ["text.lora:rank=4,alpha=6,stable=1,ratio=16"]
    trained = adapters.merge(saved(tmp_path / "a.safetensors", sd, specs))
    export_adapter(tmp_path / "a.safetensors", tmp_path / "b.safetensors", layout)
    assert is_foreign(tmp_path / "b.safetensors") and not is_foreign(tmp_path / "a.safetensors")
    back = joined(sd)
    apply_foreign(back, tmp_path / "b.safetensors")
    state = back.state_dict()
    assert all(torch.allclose(value, state[name], atol=1e-6) for name, value in trained.state_dict().items())


@pytest.mark.parametrize("layout", ["kohya", "lora-diffusers"])
def test_our_dora_there_and_back(tmp_path, sd, layout):
    """The files hold norms, and ours only their ratio to those of the base, which its header names."""
    weights.save_sd(sd[0], tmp_path / "base", "sd-diffusers")
    specs = ["unet.dora:rank=2,alpha=8,targets=attn1", "unet.dora:rank=3,alpha=1,targets=(conv|proj_)", "text.lora"]
    config = {"model": str(tmp_path / "base")}
    trained = adapters.merge(saved(tmp_path / "a.safetensors", sd, specs, config=config))
    export_adapter(tmp_path / "a.safetensors", tmp_path / "b.safetensors", layout)
    back = joined(sd)
    apply_foreign(back, tmp_path / "b.safetensors")
    state = back.state_dict()
    assert all(torch.allclose(value, state[name], atol=1e-6) for name, value in trained.state_dict().items())


def test_a_dora_on_the_unet_alone_and_its_norms(tmp_path, sd1):
    weights.save_sd(sd1[0], tmp_path / "base", "sd-diffusers")
    unet, path = copy.deepcopy(sd1[0].unet), tmp_path / "a.safetensors"
    header = {"base": weights.fingerprint(unet), "adapter": "dora", "config": {"model": str(tmp_path / "base")}}
    adapters.attach(unet, "dora").mid.attentions[0].transformer_blocks[0].attn1.to_q.dora_gain.data.fill_(1.5)
    weights.save_adapter(path, unet, header)
    export_adapter(path, tmp_path / "b.safetensors", "kohya")
    layer = sd1[0].unet.mid.attentions[0].transformer_blocks[0].attn1.to_q
    norms = load_file(tmp_path / "b.safetensors")[
        "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q.dora_scale"
    ]
    assert torch.allclose(norms, 1.5 * layer.weight.norm(dim=1, keepdim=True))


def test_a_dora_that_does_not_travel(tmp_path, sd1):
    path, target = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    for config in (None, {"model": "new:SD-T"}):
        saved(path, sd1, ["unet.dora"], config=config)
        with pytest.raises(ValueError, match="kohya holds norms of the base's weights for DoRA, found no base in its"):
            export_adapter(path, target, "kohya")
    saved(path, sd1, ["unet.dora", "unet.lora"])
    with pytest.raises(ValueError, match=r"kohya holds one LoRA or DoRA a layer, found \d+ other tensors"):
        export_adapter(path, target, "kohya")
    weights.save_sd(sd1[0], tmp_path / "base", "sd-diffusers")
    config = {"model": str(tmp_path / "base")}
    saved(path, sd1, ["unet.dora:targets=attn1", "unet.lora:targets=attn2"], config=config)
    with pytest.raises(ValueError, match="lora-diffusers holds LoRA or DoRA for a whole part, found both in one"):
        export_adapter(path, target, "lora-diffusers")
    assert not target.exists()


def test_what_kohya_files_say_of_themselves(tmp_path, sd1):
    specs = ["unet.lora:rank=4,alpha=2,targets=attn1", "unet.lora:rank=3,targets=resnets.*conv1"]
    saved(tmp_path / "a.safetensors", sd1, specs)
    export_adapter(tmp_path / "a.safetensors", tmp_path / "b.safetensors", "kohya", torch.float16)
    tensors, metadata = safe.read(tmp_path / "b.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float16}
    assert tensors["lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q.alpha"] == 2
    assert (metadata["ss_network_dim"], metadata["ss_network_alpha"]) == ("4", "2")
    assert json.loads(metadata["ss_network_args"]) == {"conv_dim": "3", "conv_alpha": "3"}
    assert metadata["ss_network_module"] == "networks.lora"
    assert "ss_base_model_version" not in metadata  # 32 is the width of no Stable Diffusion


def test_only_lora_and_words_travel(tmp_path, sd1, tiny_dit):
    path = tmp_path / "a.safetensors"
    saved(path, sd1, ["unet.lora", "text.bitfit"])
    with pytest.raises(ValueError, match="kohya holds one LoRA or DoRA a layer, found .* trained by unet.lora, text"):
        export_adapter(path, tmp_path / "b.safetensors", "kohya")
    with pytest.raises(ValueError, match="learned word, found none"), pytest.warns(UserWarning, match="other tensors"):
        export_adapter(path, tmp_path / "b.safetensors", "learned-embeds")
    saved(path, sd1, ["unet.lora", "text.tokens:vectors=2"], tokens={"<w>": 2})
    with pytest.warns(UserWarning, match="kohya does not hold the learned <w>"):
        export_adapter(path, tmp_path / "b.safetensors", "kohya")
    with pytest.raises(ValueError, match="file name ending in .pt"), pytest.warns(UserWarning):
        export_adapter(path, tmp_path / "b.safetensors", "a1111-embedding")
    adapters.attach(tiny_dit, "lora")
    weights.save_adapter(path, tiny_dit, {"adapter": "lora", "base": weights.fingerprint(tiny_dit)})
    with pytest.raises(ValueError, match="for a Stable Diffusion, found an adapter of a DiT"):
        export_adapter(path, tmp_path / "b.safetensors", "kohya")


def test_our_word_there_and_back(tmp_path, sd1):
    model = saved(tmp_path / "a.safetensors", sd1, ["text.tokens:vectors=2"], tokens={"<w>": 2})
    export_adapter(tmp_path / "a.safetensors", tmp_path / "b.safetensors", "learned-embeds")
    assert [*load_file(tmp_path / "b.safetensors")] == ["<w>"]
    export_adapter(tmp_path / "a.safetensors", tmp_path / "b.pt", "a1111-embedding")
    for name in ("b.safetensors", "b.pt"):
        token, (rows,) = read_embedding(tmp_path / name)
        assert token == "<w>" and torch.equal(rows, model.text.token_embedding.token_rows)


@pytest.mark.parametrize(
    ("content", "given", "token"),
    [
        ({"<cat>": rand(32)}, None, "<cat>"),
        ({"<cat>": rand(32)}, "<dog>", "<dog>"),
        ({"*": rand(3, 32)}, None, "cat"),
        ({"emb_params": rand(3, 32)}, None, "cat"),
        (rand(1, 32), None, "cat"),
        ({"string_to_param": {"*": rand(3, 32)}, "name": "tom"}, None, "tom"),
        ({"string_to_param": torch.nn.ParameterDict({"*": rand(3, 32)})}, None, "cat"),
    ],
)
def test_tokens_of_embeddings(tmp_path, sd1, content, given, token):
    torch.save(content, tmp_path / "cat.pt")
    found, (rows,) = read_embedding(tmp_path / "cat.pt", given)
    assert found == token and rows.shape[1] == 32 and not rows.requires_grad
    words, tower = copy.deepcopy(sd1[0].tokenizer), copy.deepcopy(sd1[0].text)
    before = len(words)
    assert add_embedding(words, tower, tmp_path / "cat.pt", given) == token
    assert words.encode(token) == list(range(before, before + len(rows)))
    assert torch.equal(tower.token_embedding.weight[before:], rows)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"<w>": rand(1024)}, "1024 wide, of Stable Diffusion 2, expected one for this text encoder, 32 wide"),
        (
            {"clip_l": rand(2, 768), "clip_g": rand(2, 1280)},
            "an embedding 768 and 1280 wide, of Stable Diffusion XL, expected one for this text encoder",
        ),
        ({"<a>": rand(32), "<b>": rand(32)}, "expected one word and its rows, found 2 unknown tensors"),
        ({"<a>": rand(2, 32, 1)}, r"expected rows .n, D., found '<a>' \[2, 32, 1\]"),
        ({"photo": rand(32)}, "already: take another name"),
        ([rand(32)], "found a list"),
        ({"string_to_param": 3}, "found a int"),
    ],
)
def test_embeddings_that_do_not_fit(tmp_path, sd1, content, message):
    torch.save(content, tmp_path / "w.pt")
    words, tower = copy.deepcopy(sd1[0].tokenizer), copy.deepcopy(sd1[0].text)
    with pytest.raises(ValueError, match=message):
        add_embedding(words, tower, tmp_path / "w.pt")
    assert len(words) == len(tower.token_embedding.weight)


def test_the_scale_by_a_config_of_peft():
    """alpha / r, alpha / sqrt(r) where it is rank-stabilised; 8 where the config says no alpha; 1 without a config."""
    place = Place("mid.attn", "unet", "mid_block.attn")
    for config, scale in (
        ({"lora_alpha": 6}, 1.5),
        ({"lora_alpha": 6, "use_rslora": True}, 3.0),
        ({"r": 4}, 2.0),
        ({"lora_alpha": 6, "alpha_pattern": {"attn": 2.0}}, 0.5),
        ({"lora_alpha": 6, "alpha_pattern": {"tn": 2.0}}, 1.5),
    ):
        assert scale_of({"unet": config}, place, 4) == scale
    assert scale_of({"text": {"lora_alpha": 6}}, place, 4) == 1
