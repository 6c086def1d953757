"""diffusers opens our Stable Diffusion and computes the same, we open its folders, and our single file is its own."""

import json
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

import weights
from sampling import Schedule
from weights.layouts.diffusers_json import text_json, unet_json
from weights.layouts.exchange import LAYOUTS, spread
from weights.layouts.kinds import empty, size_of
from weights.layouts.scheduler_json import from_json

diffusers = pytest.importorskip("diffusers")
transformers = pytest.importorskip("transformers")
single_file = pytest.importorskip("diffusers.loaders.single_file_utils")


def equal(tensors, expected):
    return tensors.keys() == expected.keys() and all(torch.equal(tensors[name], expected[name]) for name in expected)


@pytest.fixture(scope="module")
def folder(sd, tmp_path_factory):
    """Our pipeline in diffusers' layout, and what diffusers makes of it."""
    place = tmp_path_factory.mktemp("sd")
    weights.save_sd(sd[0], place, "sd-diffusers")
    theirs = diffusers.StableDiffusionPipeline.from_pretrained(place, safety_checker=None)
    return place, theirs


def test_they_open_our_folder_and_compute_the_same(sd, folder):
    ours, theirs = sd[0], folder[1]
    generator = torch.Generator().manual_seed(0)
    x, image = torch.randn(2, 4, 16, 16, generator=generator), torch.rand(1, 3, 32, 32, generator=generator) * 2 - 1
    texts, t = ["a photo of a crack", "something else"], torch.tensor([3, 700])
    ids = theirs.tokenizer(texts, padding="max_length", max_length=77, return_tensors="pt").input_ids
    with torch.no_grad():
        assert torch.equal(ours.tokenizer.tokens(texts), ids)
        states, expected = ours.text(ids), theirs.text_encoder(ids)
        assert (states - expected.last_hidden_state).abs().max() < 1e-5
        assert (states[range(2), ids.argmax(1)] - expected.pooler_output).abs().max() < 1e-5  # at the end token
        assert (ours.unet(x, t, states) - theirs.unet(x, t, states).sample).abs().max() < 1e-5
        mean = ours.vae.encode(image)[0]
        assert (mean - theirs.vae.encode(image).latent_dist.mean).abs().max() < 1e-5
        assert (ours.vae.decode(mean) - theirs.vae.decode(mean).sample).abs().max() < 1e-5


def test_they_read_our_schedule(sd, folder):
    scheduler = folder[1].scheduler
    assert scheduler.config.prediction_type == {"eps": "epsilon", "v": "v_prediction"}[sd[0].schedule.prediction]
    assert torch.allclose(scheduler.alphas_cumprod.double(), sd[0].schedule.alpha_bar, rtol=1e-4)
    assert folder[1].vae.config.scaling_factor == 0.18215


def save_theirs(theirs, folder, ours, **options):
    """diffusers' own files; its text encoder is written by hand where transformers no longer writes .bin."""
    theirs.unet.save_pretrained(folder / "unet", **options)
    theirs.vae.save_pretrained(folder / "vae", **options)
    theirs.tokenizer.save_pretrained(folder / "tokenizer")
    theirs.scheduler.save_pretrained(folder / "scheduler")
    theirs.text_encoder.save_pretrained(folder / "text_encoder", variant=options.get("variant"))
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline"}))


@pytest.mark.parametrize(
    "options",
    [
        {"safe_serialization": True},
        {"safe_serialization": True, "variant": "fp16"},
        {"safe_serialization": True, "max_shard_size": "500KB", "variant": "fp16"},
        {"safe_serialization": False},
    ],
)
def test_we_open_their_folder(tmp_path, sd1, options):
    weights.save_sd(sd1[0], tmp_path / "ours", "sd-diffusers")
    theirs = diffusers.StableDiffusionPipeline.from_pretrained(tmp_path / "ours", safety_checker=None)
    save_theirs(theirs, tmp_path / "theirs", sd1[0], **options)
    if not options["safe_serialization"]:
        text = tmp_path / "theirs" / "text_encoder"
        torch.save(load_file(text / "model.safetensors"), text / "pytorch_model.bin")
        (text / "model.safetensors").unlink()
    names = [path.name for path in (tmp_path / "theirs" / "unet").iterdir()]
    assert any(name.endswith(".safetensors" if options["safe_serialization"] else ".bin") for name in names)
    assert ("max_shard_size" in options) == any("-00002-of-" in name for name in names)
    found = weights.load_sd(tmp_path / "theirs", variant=options.get("variant"))
    for kind in ("unet", "text", "vae"):
        ours = getattr(sd1[0], kind)
        assert equal(getattr(found, kind).state_dict(), ours.state_dict())
        assert getattr(found, kind).config == ours.config
    assert found.schedule.prediction == "eps"
    assert found.tokenizer.tokens(["a screw"]).tolist() == sd1[0].tokenizer.tokens(["a screw"]).tolist()


@pytest.mark.parametrize("name", ["PNDM", "DDIM", "EulerDiscrete", "DPMSolverMultistep"])
@pytest.mark.parametrize("law", ["linear", "scaled_linear", "squaredcos_cap_v2"])
def test_their_schedulers(tmp_path, name, law):
    settings = dict(beta_schedule=law, beta_start=0.001, beta_end=0.02, prediction_type="v_prediction")
    theirs = getattr(diffusers, f"{name}Scheduler")(**settings)
    theirs.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "scheduler_config.json").read_text()) | {"clip_sample": False}
    found = from_json(config, "w")
    assert found.prediction == "v"
    assert torch.allclose(found.alpha_bar, theirs.alphas_cumprod.double(), rtol=2e-4)


def test_they_read_our_single_file(tmp_path, sd, folder):
    """By the functions that from_single_file calls; the whole of it looks for configs on the network."""
    weights.save_sd(sd[0], tmp_path / "sd.safetensors", "sd-compvis")
    tensors, theirs = load_file(tmp_path / "sd.safetensors"), folder[1]
    found = single_file.convert_ldm_unet_checkpoint(dict(tensors), dict(theirs.unet.config))
    assert equal(found, theirs.unet.state_dict())
    found = single_file.convert_ldm_vae_checkpoint(dict(tensors), dict(theirs.vae.config))
    found = {name: tensor.reshape(theirs.vae.state_dict()[name].shape) for name, tensor in found.items()}
    assert equal(found, theirs.vae.state_dict())
    expected = spread(sd[0].text.state_dict(), LAYOUTS["text-transformers"], 3)
    if "cond_stage_model.model.ln_final.weight" in tensors:
        model = SimpleNamespace(config=SimpleNamespace(hidden_size=32))
        found = single_file.convert_open_clip_checkpoint(model, tensors)
        unused = {name for name in found if ".layers.3." in name or name in ("text_projection.weight", "logit_scale")}
        found = {name: tensor for name, tensor in found.items() if name not in unused}
    else:
        found = single_file.convert_ldm_clip_checkpoint(tensors)
        assert torch.equal(found.pop("text_model.embeddings.position_ids"), torch.arange(77)[None])
    assert equal(found, expected)


def test_their_models_open_our_single_file(tmp_path, sd, folder):
    weights.save_sd(sd[0], tmp_path / "sd.safetensors", "sd-compvis")
    for kind, their_class in (("unet", diffusers.UNet2DConditionModel), ("vae", diffusers.AutoencoderKL)):
        theirs = their_class.from_single_file(
            str(tmp_path / "sd.safetensors"), config=str(folder[0] / kind), local_files_only=True
        )
        assert equal(theirs.state_dict(), getattr(folder[1], kind).state_dict())


def test_their_attention_of_2022(tmp_path, sd1):
    """The VAE of the first repositories: query, key, value, proj_attn, and no scaling_factor in its config."""
    weights.save_sd(sd1[0], tmp_path, "sd-diffusers")
    vae = tmp_path / "vae"
    words = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    tensors = load_file(vae / "diffusion_pytorch_model.safetensors")
    for ours, theirs in words.items():
        tensors = {name.replace(f".{ours}.", f".{theirs}."): tensor for name, tensor in tensors.items()}
    save_file(tensors, vae / "diffusion_pytorch_model.safetensors")
    config = json.loads((vae / "config.json").read_text())
    del config["scaling_factor"]
    (vae / "config.json").write_text(json.dumps(config))
    found = weights.load_sd(tmp_path).vae
    assert equal(found.state_dict(), sd1[0].vae.state_dict())
    assert found.config.scaling_factor == 0.18215


@pytest.mark.parametrize("size", ["SD-1", "SD-2", "SD-inpaint"])
def test_full_size_names_of_the_unet_are_theirs(size):
    from unet.sizes import UNETS as SIZES

    config = SIZES[size]
    with torch.device("meta"):
        theirs = diffusers.UNet2DConditionModel(**{k: v for k, v in unet_json(config).items() if k[0] != "_"})
    ours = spread(empty("unet", config).state_dict(), LAYOUTS["unet-diffusers"], size_of(config))
    assert {name: t.shape for name, t in ours.items()} == {name: t.shape for name, t in theirs.state_dict().items()}


@pytest.mark.parametrize("size", ["CLIP-L", "OpenCLIP-H"])
def test_full_size_names_of_the_text_tower_are_theirs(size):
    from unet.sizes import TEXT_ENCODERS as SIZES

    with torch.device("meta"):
        theirs = transformers.CLIPTextModel(transformers.CLIPTextConfig(**text_json(SIZES[size])))
    ours = spread(empty("text", SIZES[size]).state_dict(), LAYOUTS["text-transformers-bare"], SIZES[size].layers)
    names = {name.removeprefix("text_model."): tensor.shape for name, tensor in theirs.state_dict().items()}
    names.pop("embeddings.position_ids", None)
    assert {name: tensor.shape for name, tensor in ours.items()} == names


def test_a_chain_of_its_own_survives(tmp_path, sd1):
    """Betas that follow no law go through diffusers as they are."""
    own = Schedule.cosine(prediction="v")
    weights.save_sd(sd1[0]._replace(schedule=own), tmp_path, "sd-diffusers")
    scheduler = diffusers.DDIMScheduler.from_pretrained(tmp_path / "scheduler")
    assert torch.allclose(scheduler.alphas_cumprod.double(), own.alpha_bar, rtol=2e-4)
    assert torch.allclose(weights.load_sd(tmp_path).schedule.alpha_bar, own.alpha_bar, rtol=1e-9)
