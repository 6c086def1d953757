"""SiT in files: the network of DiT, told from it by its idle channels, and REPA's, which counts the other way."""

import json
import warnings

import pytest
import torch

import adapters
import weights
from dit import ControlledDiT, DiT
from sampling import Flow, cfg, heun
from weights.convert import convert
from weights.formats import published, safe
from weights.layouts.objective import in_sits_convention

SIZE = dict(depth=2, width=48, heads=4, patch=2, input_size=8, num_classes=5)


def network(learn_sigma=True, idle=True, **fields):
    """A small DiT with random numbers everywhere but, if `idle`, in the second half of the output channels."""
    torch.manual_seed(0)
    model = DiT.from_name("DiT-S/2", **SIZE | {"learn_sigma": learn_sigma} | fields)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.2) if parameter.requires_grad else None
        if learn_sigma and idle:
            for parameter in (model.final_layer.linear.weight, model.final_layer.linear.bias):
                parameter.unflatten(0, (4, 8))[:, 4:] = 0
    return model.eval()


def saved(model, path, **more):
    """The file of a training code: plain tensors under the official names."""
    torch.save(model.state_dict() | more, path)
    return path


def sampled(model):
    """Two guided samples of a flow."""
    x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return heun(cfg(model, torch.tensor([0, 3]), model.null, 2.0), x, Flow(), 4)


def load(path, **options):
    return weights.load(path, heads=4, **options)


def test_the_published_small_model_is_one(tmp_path):
    """132 tensors, 32,963,360 values: 131,894,367 bytes from torch.save under this name with torch 2.13."""
    model = DiT.from_name("DiT-S/2")
    path = tmp_path / "SiT-S-2-256.pt"
    torch.save(dict(model.state_dict()), path)
    assert len(model.state_dict()) == 132 and sum(v.numel() for v in model.state_dict().values()) == 32_963_360
    assert path.stat().st_size == pytest.approx(131_894_367, abs=10_000)
    loaded = weights.load(path)  # told by its name, for nothing in it is trained
    assert loaded.objective == "flow" and loaded.config == model.config


def test_published_names_and_hashes():
    assert {f"SiT-{size}-2-256" for size in ("S", "B", "L", "XL")} <= published.FILES.keys()
    assert published.FILES["SiT-B-2-256"].endswith("nyu-visionx/SiT-collections/resolve/main/SiT-B-2-256.pt")
    assert published.SHA256["SiT-S-2-256"].startswith("a245dc63")


@pytest.mark.parametrize("idle, objective", [(True, "flow"), (False, "diffusion")])
def test_idle_channels_tell_a_flow(tmp_path, idle, objective):
    path = saved(network(idle=idle), tmp_path / "w.pt")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load(path).objective == objective
    assert load(path, objective="flow").objective == "flow"  # the caller knows better


def test_what_does_not_tell_is_said_and_asked(tmp_path):
    path = saved(network(learn_sigma=False), tmp_path / "w.pt")
    with pytest.warns(UserWarning, match="does not tell .* taken for a diffusion model; objective='flow'"):
        assert load(path).objective == "diffusion"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [load(path, objective=word).objective for word in ("flow", "diffusion")] == ["flow", "diffusion"]
    with pytest.raises(ValueError, match="objective must be one of diffusion, flow, found 'velocity'"):
        load(path, objective="velocity")
    with pytest.raises(ValueError, match="objective='flow' is for a DiT, found a VAE"):
        weights.load("tiny-vae", objective="flow")


def test_a_file_of_this_package_remembers_its_objective(tmp_path):
    model = load(saved(network(), tmp_path / "w.pt"))
    weights.save_model(model, tmp_path / "w.safetensors")
    assert load(tmp_path / "w.safetensors", objective="diffusion").objective == "flow"
    assert torch.equal(sampled(load(tmp_path / "w.safetensors")), sampled(model))
    assert weights.load("tiny-dit").objective == "diffusion"
    convert(tmp_path / "w.pt", tmp_path / "c.safetensors", "native", heads=4)
    assert load(tmp_path / "c.safetensors").objective == "flow"


def test_repa_counts_the_other_way_and_gives_the_same_samples(tmp_path):
    sit = network(learn_sigma=False)
    repa = network(learn_sigma=False)
    repa.load_state_dict(in_sits_convention(sit.state_dict()))
    x, y, s = torch.randn(3, 4, 8, 8), torch.tensor([0, 1, 5]), torch.tensor([0.1, 0.5, 0.9])
    torch.testing.assert_close(repa(x, s, y), -sit(x, 1 - s, y), atol=2e-5, rtol=1e-4)  # u of s, v of 1 - s
    heads = {f"projectors.0.{i}.{kind}": torch.randn(8, 8) for i in (0, 2, 4) for kind in ("weight", "bias")}
    path = tmp_path / "last.pt"
    torch.save({"model": {}, "ema": repa.state_dict() | heads, "opt": {}, "steps": 9}, path)
    loaded = load(path)
    assert loaded.objective == "flow" and not loaded.config.learn_sigma
    torch.testing.assert_close(sampled(loaded), sampled(sit), atol=1e-3, rtol=1e-3)
    with pytest.warns(UserWarning, match="does not tell"):
        convert(path, tmp_path / "out.pt", "dit-official", heads=4)  # SiT's code reads it
    assert torch.equal(sampled(load(tmp_path / "out.pt", objective="flow")), sampled(loaded))


def test_repas_other_networks_are_refused(tmp_path):
    odd = {"projectors.0.0.weight": torch.zeros(2), "blocks.0.attn.q_norm.weight": torch.zeros(12)}
    with pytest.raises(ValueError, match="1 unknown .blocks.0.attn.q_norm.weight"):
        load(saved(network(learn_sigma=False), tmp_path / "w.pt", **odd))


def test_an_adapter_goes_onto_a_base_of_its_own_objective(tmp_path):
    files = {}
    for name, idle in (("flow", True), ("diffusion", False)):
        path = saved(network(idle=idle), tmp_path / f"{name}.pt")
        for kind in ("lora", "control"):
            model = load(path) if kind == "lora" else ControlledDiT(load(path))
            header = {
                "base": weights.fingerprint(model),
                "adapter": ["lora:rank=2" if kind == "lora" else "control.full"],
            }
            adapters.attach(model, header["adapter"])
            with torch.no_grad():
                for parameter in adapters.trainable_parameters(model).values():
                    parameter.add_(0.1)
            files[name, kind] = tmp_path / f"{name}-{kind}.safetensors"
            weights.save_adapter(files[name, kind], model, header)
    for (name, kind), file in files.items():
        other = "diffusion" if name == "flow" else "flow"
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            put(kind, load(tmp_path / f"{name}.pt"), file)
        with pytest.raises(ValueError, match=f"trained on a {name} model, and this is a {other} model"):
            put(kind, load(tmp_path / f"{other}.pt"), file)


def put(kind, model, file):
    weights.with_control(model, file) if kind == "control" else weights.apply_adapters(model, [(str(file), 1.0)])


def test_the_fingerprint_of_a_diffusion_model_has_no_new_word():
    model = network()
    assert weights.fingerprint(model).keys() == {"model", "config", "structure", "content"}
    model.objective = "flow"
    assert weights.fingerprint(model)["objective"] == "flow"


def test_what_diffusers_would_sample_as_diffusion_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="DiTPipeline, as a diffusion model, and this is a flow"):
        convert(saved(network(), tmp_path / "w.pt"), tmp_path / "out", "dit-diffusers", heads=4)
    with pytest.raises(ValueError, match="an objective belongs to a DiT, found layout vae-compvis"):
        convert("tiny-vae", tmp_path / "out.pt", "vae-compvis", objective="flow")


@pytest.mark.parametrize("word", [1, "velocity"])
def test_a_header_with_another_objective_is_refused(tmp_path, word):
    path = tmp_path / "w.safetensors"
    weights.save_model(network(), path)
    tensors, metadata = safe.read(path)
    header = json.loads(metadata["graft"]) | {"objective": word}
    safe.write(tmp_path / "x.safetensors", tensors, {"graft": json.dumps(header)})
    with pytest.raises(ValueError, match="x.safetensors: .*objective in its header"):
        load(tmp_path / "x.safetensors")
