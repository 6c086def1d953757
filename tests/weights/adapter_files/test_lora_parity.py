"""Adapters travel between this package, diffusers and peft, and the output stays the same."""

import json
import re

import pytest
import torch
from safetensors.torch import save_file

import adapters
import weights
from unet import TextConditioned
from weights.adapter_files.embeddings import add_embedding
from weights.adapter_files.lora_export import export_adapter
from weights.adapter_files.lora_import import apply_foreign
from weights.layouts.exchange import LAYOUTS, spread
from weights.layouts.kinds import size_of

diffusers = pytest.importorskip("diffusers")
transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

EVERYWHERE = "(to_|proj|conv[12]|shortcut|sample|ff)"  # attention, feed-forward, convolutions of 1x1, 3x3 and stride 2
MODULES = [
    "to_q",
    "to_k",
    "to_v",
    "to_out.0",
    "proj_in",
    "proj_out",
    "conv1",
    "conv_shortcut",
    "time_emb_proj",
    "downsamplers.0.conv",
    "ff.net.0.proj",
    "ff.net.2",
]


def ours(folder):
    sd = weights.load_sd(folder)
    return sd, TextConditioned(sd.unet, sd.text).eval()


def theirs(folder):
    return diffusers.StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)


def batch():
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 500, (2, 16), generator=generator)
    return torch.randn(2, 4, 4, 4, generator=generator), torch.tensor([3, 700]), ids


@torch.no_grad()
def difference(model, pipeline):
    """Greatest difference of text states and of the UNet's output."""
    x, t, ids = batch()
    states = pipeline.text_encoder(ids).last_hidden_state
    text = (model.text(ids) - states).abs().max().item()
    return text, (model.unet(x, t, states) - pipeline.unet(x, t, states).sample).abs().max().item()


@torch.no_grad()
def changed(model, folder):
    """Whether both parts differ from those in the folder."""
    x, t, ids = batch()
    _, plain = ours(folder)
    states = plain.text(ids)
    return not torch.allclose(states, model.text(ids), atol=1e-3) and not torch.allclose(
        plain.unet(x, t, states), model.unet(x, t, states), atol=1e-3
    )


def shaken(model, seed=0):
    """Random values in everything that trains."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))


@pytest.fixture(scope="module")
def trained(tiny_sd, tmp_path_factory):
    """(a model with LoRA in both parts, its adapter file)."""
    path = tmp_path_factory.mktemp("trained") / "adapter.safetensors"
    _, model = ours(tiny_sd)
    header = {"base": weights.fingerprint(model)}
    specs = [f"unet.lora:rank=2,alpha=6,targets={EVERYWHERE}", "text.lora:rank=3,targets=(to_|fc)"]
    adapters.attach(model, specs, torch.Generator().manual_seed(0))
    shaken(model)
    weights.save_adapter(path, model, header | {"adapter": specs})
    return model, path


@pytest.mark.parametrize("layout", ["kohya", "lora-diffusers"])
def test_they_load_our_lora(tmp_path, tiny_sd, trained, layout):
    model, path = trained
    export_adapter(path, tmp_path / "a.safetensors", layout)
    pipeline = theirs(tiny_sd)
    pipeline.load_lora_weights(tmp_path, weight_name="a.safetensors")
    assert max(difference(model, pipeline)) < 1e-5 and changed(model, tiny_sd)
    _, back = ours(tiny_sd)
    assert apply_foreign(back, tmp_path / "a.safetensors") == len(weights.load_adapter(path)[0]) // 2
    assert max(difference(back, pipeline)) < 1e-5


def test_they_load_our_dora(tmp_path, tiny_sd):
    _, model = ours(tiny_sd)
    header = {"base": weights.fingerprint(model), "config": {"model": str(tiny_sd)}}
    specs = [f"unet.dora:rank=2,alpha=6,targets={EVERYWHERE}", "text.dora:rank=3,targets=(to_|fc)"]
    adapters.attach(model, specs, torch.Generator().manual_seed(0))
    shaken(model)
    weights.save_adapter(tmp_path / "ours.safetensors", model, header | {"adapter": specs})
    export_adapter(tmp_path / "ours.safetensors", tmp_path / "a.safetensors", "lora-diffusers")
    pipeline = theirs(tiny_sd)
    pipeline.load_lora_weights(tmp_path, weight_name="a.safetensors")
    assert max(difference(model, pipeline)) < 1e-5 and changed(model, tiny_sd)


def kohya(part, name):
    stem = {"unet": "lora_unet_", "text_encoder": "lora_te_text_model_"}[part]
    stem += name.removeprefix("text_model.").replace(".", "_")
    return f"{stem}.lora_down.weight", f"{stem}.lora_up.weight"


def peft_names(part, name):
    return f"{part}.{name}.lora_A.weight", f"{part}.{name}.lora_B.weight"


def todays(part, name):
    stem = f"{part}.{name}.{'lora' if part == 'unet' else 'lora_linear_layer'}"
    return f"{stem}.down.weight", f"{stem}.up.weight"


def processors(part, name):
    """Of 2022, for attention alone."""
    pattern, new = {
        "unet": (r"\.to_(q|k|v|out)(\.0)?$", r".processor.to_\1_lora"),
        "text_encoder": (r"\.(q|k|v|out)_proj$", r".to_\1_lora"),
    }[part]
    stem, found = re.subn(pattern, new, f"{part}.{name}")
    return (f"{stem}.down.weight", f"{stem}.up.weight") if found else None


def factors(parts, spelled):
    """{name in a file: random A or B of rank 2} of every layer that the spelling has a name for, and those layers."""
    generator, tensors, reached = torch.Generator().manual_seed(0), {}, []
    for part, module in parts.items():
        for name, layer in module.named_modules():
            w, names = getattr(layer, "weight", None), spelled(part, name)
            if names and w is not None and w.dim() > 1 and re.search(r"to_|proj|conv\d|shortcut|downs|net\.|fc", name):
                down, up = names
                tensors[down] = torch.randn(2, *w.shape[1:], generator=generator) / 4
                tensors[up] = torch.randn(len(w), 2, *[1] * (w.dim() - 2), generator=generator) / 4
                reached.append(f"{part}.{name}.weight")
    return tensors, reached


@pytest.mark.parametrize(
    "spelled, alpha",
    [(kohya, 0.5), (kohya, None), (peft_names, None), (peft_names, "metadata"), (todays, None), (processors, None)],
)
def test_a_file_of_each_family_changes_every_weight_as_it_does_in_diffusers(tmp_path, tiny_sd, spelled, alpha):
    pipeline = theirs(tiny_sd)
    parts = {"unet": pipeline.unet, "text_encoder": pipeline.text_encoder}
    before = {f"{part}.{name}": w.clone() for part, model in parts.items() for name, w in model.state_dict().items()}
    tensors, reached = factors(parts, spelled)
    layers = [name.removesuffix(".weight").split(".", 1) for name in reached]
    note = {f"{part}.target_modules": [name for of, name in layers if of == part] for part in parts}
    note |= {f"{part}.{name}": value for part in parts for name, value in (("r", 2), ("lora_alpha", 8))}
    metadata = {"lora_adapter_metadata": json.dumps(note)} if alpha == "metadata" else None
    if alpha == 0.5:
        stems = {name.split(".")[0] for name in tensors}
        tensors |= {f"{stem}.alpha": torch.tensor(0.5) for stem in stems}
    save_file(tensors, tmp_path / "a.safetensors", metadata)
    pipeline.load_lora_weights(tmp_path, weight_name="a.safetensors")
    pipeline.fuse_lora()
    pipeline.unload_lora_weights()
    after = {f"{part}.{name}": w for part, model in parts.items() for name, w in model.state_dict().items()}
    assert {name for name in after if not torch.equal(after[name], before[name])} == set(reached)

    sd, model = ours(tiny_sd)
    assert apply_foreign(model, tmp_path / "a.safetensors") == len(reached)
    found = spread(sd.unet.state_dict(), LAYOUTS["unet-diffusers"], size_of(sd.unet.config))
    text = spread(sd.text.state_dict(), LAYOUTS["text-transformers-bare"], size_of(sd.text.config))
    found = {f"unet.{name}": w for name, w in found.items()} | {f"text_encoder.{name}": w for name, w in text.items()}
    for name, expected in after.items():
        assert (found[name.replace("text_encoder.text_model.", "text_encoder.")] - expected).abs().max() < 1e-6, name


@pytest.fixture(scope="module", params=["plain", "rslora", "patterns", "dora"])
def peft_trained(request, tiny_sd):
    """A pipeline whose two parts carry peft's LoRA, alpha unlike r."""
    options = {
        "plain": {},
        "rslora": {"use_rslora": True},
        "dora": {"use_dora": True},
        "patterns": {"rank_pattern": {"to_q": 3, "q_proj": 1}, "alpha_pattern": {r"attn1\.to_q": 5, "k_proj": 7}},
    }[request.param]
    pipeline = theirs(tiny_sd)
    pipeline.unet.add_adapter(peft.LoraConfig(r=2, lora_alpha=8, target_modules=MODULES, **options))
    words = ["q_proj", "k_proj", "out_proj", "fc1"]
    pipeline.text_encoder.add_adapter(peft.LoraConfig(r=2, lora_alpha=3, target_modules=words, **options))
    for model in (pipeline.unet, pipeline.text_encoder):
        shaken(model)
    return pipeline


def test_we_read_the_file_of_diffusers(tmp_path, tiny_sd, peft_trained):
    pipeline = peft_trained
    parts = {"unet": pipeline.unet, "text_encoder": pipeline.text_encoder}
    saved = {f"{part}_lora_layers": peft.get_peft_model_state_dict(model) for part, model in parts.items()}
    saved["unet_lora_layers"] = peft.get_peft_model_state_dict(pipeline.unet, adapter_name="default")
    notes = {f"{part}_lora_adapter_metadata": model.peft_config["default"].to_dict() for part, model in parts.items()}
    for note in notes.values():
        note["target_modules"] = sorted(note["target_modules"])
        note.pop("task_type"), note.pop("peft_type")
    diffusers.StableDiffusionPipeline.save_lora_weights(tmp_path, **saved, **notes)
    _, model = ours(tiny_sd)
    apply_foreign(model, tmp_path)
    assert max(difference(model, pipeline)) < 1e-5 and changed(model, tiny_sd)


def test_we_read_the_folders_of_peft(tmp_path, tiny_sd, peft_trained):
    pipeline = peft_trained
    for part, model in (("unet", pipeline.unet), ("text_encoder", pipeline.text_encoder)):
        config = model.peft_config["default"]
        config.save_pretrained(tmp_path / part)
        state = {f"base_model.model.{k}": v for k, v in peft.get_peft_model_state_dict(model).items()}
        torch.save(state, tmp_path / part / "adapter_model.bin")
    _, model = ours(tiny_sd)
    apply_foreign(model, tmp_path)
    assert max(difference(model, pipeline)) < 1e-5
    _, alone = ours(tiny_sd)
    apply_foreign(alone.unet, tmp_path / "unet")
    assert torch.equal(alone.unet.conv_out.weight, model.unet.conv_out.weight)


def test_a_whole_peft_model_written_by_peft(tmp_path, tiny_sd):
    _, model = ours(tiny_sd)
    unet = theirs(tiny_sd).unet
    config = peft.LoraConfig(r=4, lora_alpha=4, target_modules=["to_q", "conv1"], use_dora=True)
    wrapped = peft.get_peft_model(unet, config)
    shaken(wrapped)
    wrapped.save_pretrained(tmp_path)
    apply_foreign(model, tmp_path)
    x, t, ids = batch()
    with torch.no_grad():
        states = model.text(ids)
        assert (model.unet(x, t, states) - wrapped(x, t, states).sample).abs().max() < 1e-5


@pytest.fixture(scope="module")
def learned(tiny_sd, tmp_path_factory):
    """(pipeline with a learned word of two rows folded in, its adapter file)."""
    path = tmp_path_factory.mktemp("learned") / "adapter.safetensors"
    sd, model = ours(tiny_sd)
    header = {"base": weights.fingerprint(model), "tokens": {"<pill>": 2}}
    header["adapter"] = ["text.tokens:init=300,vectors=2"]
    sd.tokenizer.add("<pill>", 2)
    adapters.attach(model, header["adapter"])
    shaken(model)
    weights.save_adapter(path, model, header)
    adapters.merge(model)
    return sd, path


@pytest.mark.parametrize(("layout", "name"), [("learned-embeds", "a.safetensors"), ("a1111-embedding", "a.pt")])
def test_they_and_we_read_our_word(tmp_path, tiny_sd, learned, layout, name):
    sd, path = learned
    export_adapter(path, tmp_path / name, layout)
    pipeline = theirs(tiny_sd)
    pipeline.load_textual_inversion(tmp_path, weight_name=name)
    back, _ = ours(tiny_sd)
    assert add_embedding(back.tokenizer, back.text, tmp_path / name) == "<pill>"
    texts = ["a photo of a <pill>", "<pill> with a hole"]
    spelled = [pipeline.maybe_convert_prompt(text, pipeline.tokenizer) for text in texts]
    ids = pipeline.tokenizer(spelled, padding="max_length", return_tensors="pt").input_ids
    with torch.no_grad():
        states = pipeline.text_encoder(ids).last_hidden_state
        for one in (sd, back):
            assert torch.equal(one.tokenizer.tokens(texts), ids)
            assert (one.text(ids) - states).abs().max() < 1e-5


@pytest.mark.parametrize("rows", [torch.full((16,), 0.5), torch.arange(48.0).view(3, 16)])
@pytest.mark.parametrize("layout", ["diffusers", "a1111", "original code", "kohya"])
def test_a_word_means_the_same_to_both(tmp_path, tiny_sd, rows, layout):
    a1111 = {
        "string_to_token": {"*": 265},
        "string_to_param": {"*": rows[None] if rows.dim() == 1 else rows},
        "name": "<w>",
        "step": 7,
        "sd_checkpoint": None,
        "sd_checkpoint_name": None,
    }
    old = {
        "string_to_token": {"*": torch.tensor(265)},
        "name": "<w>",
        "string_to_param": torch.nn.ParameterDict(a1111["string_to_param"]),
    }
    contents = {"diffusers": {"<w>": rows}, "a1111": a1111, "original code": old, "kohya": {"emb_params": rows}}
    content = contents[layout]
    torch.save(content, tmp_path / "<w>.bin")  # kohya's file has no other name for it
    sd, _ = ours(tiny_sd)
    assert add_embedding(sd.tokenizer, sd.text, tmp_path / "<w>.bin") == "<w>"
    pipeline = theirs(tiny_sd)
    pipeline.load_textual_inversion(a1111 if layout == "original code" else content, token="<w>")
    assert torch.equal(sd.text.token_embedding.weight, pipeline.text_encoder.get_input_embeddings().weight)
    assert len(sd.tokenizer) == len(pipeline.tokenizer)


def test_half_precision(tmp_path, tiny_sd, trained):
    model, path = trained
    export_adapter(path, tmp_path / "half.safetensors", "kohya", torch.float16)
    pipeline = theirs(tiny_sd)
    pipeline.load_lora_weights(tmp_path, weight_name="half.safetensors")
    assert max(difference(model, pipeline)) < 1e-2
