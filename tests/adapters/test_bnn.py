"""Gaussian weights: published counts, the KL, the reparameterised gradient, what is drawn and when, whole runs."""

import copy
import json
import pickle

import pytest
import torch
from torch import nn
from torch.distributions import Normal, kl_divergence

import adapters
import sample
import train
import weights
from adapters.methods.bnn import SMALLEST, Gaussian, divergence
from dit import DiT
from tests.adapters.test_contract import attached, build, perturb, run
from tests.test_train import flags
from unet import UNet
from unet.sizes import UNETS as SIZES

FACTORS = [["lora:rank=2", "bnn:parts=lora"], ["oft:blocks=2", "bnn:parts=oft"]]


def gaussians(model: nn.Module) -> dict[str, nn.Module]:
    return {name: layer for name, layer in model.named_modules() if isinstance(layer, Gaussian)}


def linear(options="", size=(5, 3), dtype=torch.float64) -> nn.Linear:
    """A Gaussian Linear in training mode."""
    torch.manual_seed(0)
    return adapters.attach(nn.Linear(*size, dtype=dtype), f"bnn:targets={options}").train()


@pytest.mark.parametrize(
    ("specs", "layers", "sigmas"),
    [
        ("bnn", 96, 198_371_200),
        ("bnn:parts=norm", 109, 200_320),
        ("bnn:parts=crossattn", 64, 43_962_560),
        (["lora:rank=4", "bnn:parts=lora"], 128, 399_360),  # with the A of every layer 797,184
        (["oft:blocks=4", "bnn:parts=oft"], 128, 23_304_192),
    ],
)
def test_what_is_gaussian_in_stable_diffusion_1(specs, layers, sigmas):
    with torch.device("meta"):
        unet = adapters.attach(UNet(SIZES["SD-1"]), specs)
    found = [p.numel() for name, p in adapters.trainable_parameters(unet).items() if name.endswith("_sigma")]
    assert (len(gaussians(unet)), sum(found)) == (layers, sigmas)
    if specs == "bnn":  # mu trains beside sigma, and nothing else does
        assert adapters.counts(unet) == (2 * sigmas, 859_520_964 + sigmas)
        assert round(sigmas / 859_520_964, 4) == 0.2308


def test_what_is_gaussian_in_other_models():
    with torch.device("meta"):
        dit, unet = DiT.from_name("DiT-XL/2"), UNet(SIZES["SD-2"])
    adapters.attach(dit, "bnn")
    assert {name.split(".", 2)[-1] for name in gaussians(dit)} == {"attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"}
    assert len(gaussians(dit)) == 4 * 28
    adapters.attach(unet, "bnn")  # its projections around a transformer are Linears inside of the blocks
    assert len(gaussians(unet)) == 96 + 2 * 16


@pytest.mark.parametrize("forward, value", [(False, 8.49629), (True, 51.70872)])
def test_both_directions_of_the_kl(forward, value):
    q, p = (torch.tensor(0.1), torch.tensor(0.05)), (torch.tensor(0.3), torch.tensor(0.02))
    first, second = (q, p) if forward else (p, q)
    assert divergence(*first, *second).item() == pytest.approx(value, rel=1e-5)
    assert divergence(*first, *second).item() == pytest.approx(kl_divergence(Normal(*first), Normal(*second)).item())


@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_the_auxiliary_loss_is_the_kl_to_the_pretrained_weights(direction):
    layer = linear(f",kl=0.5,sigma=0.02,direction={direction}", dtype=torch.float32)
    start = {name: getattr(layer, name).detach().clone() for name in ("weight", "bias")}
    assert adapters.auxiliary_losses(layer)["kl"].item() == 0  # exactly
    perturb(layer, [layer.weight, layer.bias])
    with torch.no_grad():
        layer.bias_sigma[0] = 0.05
    total = 0
    for name, mean in start.items():
        q = Normal(getattr(layer, name), getattr(layer, f"{name}_sigma"))
        p = Normal(mean, torch.full_like(mean, 0.02))
        total += kl_divergence(*((q, p) if direction == "forward" else (p, q))).sum()
    assert adapters.auxiliary_losses(layer)["kl"].item() == pytest.approx(0.5 * total.item(), rel=1e-5)
    adapters.auxiliary_losses(layer)["kl"].backward()
    assert layer.weight.grad.any() and layer.bias_sigma.grad[0] != 0


def test_the_prior_is_in_no_file_and_stays_that_of_the_start():
    layer = linear(",kl=1")
    stored = copy.deepcopy(adapters.trainable_parameters(layer))
    assert stored.keys() == layer.state_dict().keys() == {"weight", "bias", "weight_sigma", "bias_sigma"}
    perturb(layer, [layer.weight])
    trained = layer.state_dict()
    resumed = linear(",kl=1")  # attached to the pretrained weights, and then the state is loaded
    resumed.load_state_dict(trained)
    for twin in (resumed, copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(twin.weight_prior, stored["weight"])
        assert adapters.auxiliary_losses(twin)["kl"] == adapters.auxiliary_losses(layer)["kl"] > 0
    assert linear().weight_prior is None and adapters.auxiliary_losses(linear())["kl"] == 0


def test_the_gradient_is_the_reparameterised_one():
    """For the loss |y|^2 / 2 of y = W x + b: dL/dW = y x^T, dL/db = y, and by sigma eps times that."""
    layer, x = linear(), torch.randn(5, dtype=torch.float64)
    torch.manual_seed(7)
    eps = {name: torch.randn_like(getattr(layer, name)) for name in ("weight", "bias")}
    y = (layer.weight + 0.01 * eps["weight"]) @ x + layer.bias + 0.01 * eps["bias"]
    torch.manual_seed(7)
    drawn = layer(x)
    drawn.square().sum().div(2).backward()
    torch.testing.assert_close(drawn, y)
    by_weight = torch.outer(y, x)
    torch.testing.assert_close(layer.weight.grad, by_weight)
    torch.testing.assert_close(layer.weight_sigma.grad, eps["weight"] * by_weight)
    torch.testing.assert_close(layer.bias.grad, y)
    torch.testing.assert_close(layer.bias_sigma.grad, eps["bias"] * y)


def test_drawn_weights_are_normal_and_one_draw_serves_a_batch():
    layer = linear(",sigma=0.3", size=(200, 100))
    with torch.no_grad():
        layer.bias_sigma.fill_(-1)  # read as SMALLEST
        y = layer(torch.cat([torch.eye(200), torch.eye(200)]).double())
    theta = y[:200] - layer.bias  # W^T
    assert torch.equal(y[:200], y[200:])
    eps = (theta - layer.weight.T) / 0.3
    # 20,000 numbers: the standard errors are 0.007, 0.005 and 0.0033
    assert abs(eps.mean()) < 0.03 and abs(eps.std() - 1) < 0.02
    assert (eps.abs() < 1).double().mean().item() == pytest.approx(0.6827, abs=0.014)
    with torch.no_grad():
        noise = (layer.theta("bias") - layer.bias) / SMALLEST
    assert 0.7 < noise.std() < 1.3


def test_every_forward_draws_anew_and_a_seed_repeats_it():
    layer, x = linear(), torch.randn(2, 5, dtype=torch.float64)
    drawn = []
    for seed in (3, 3, None):
        if seed:
            torch.manual_seed(seed)
        drawn.append(layer(x))
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[1], drawn[2])
    with pytest.raises(RuntimeError, match="shapes"):
        layer(x[:, :4])
    assert isinstance(layer.weight, nn.Parameter) and not {"weight", "bias"} & vars(layer).keys()


@pytest.mark.parametrize("backbone", ["dit", "sd"])
@pytest.mark.parametrize("specs", FACTORS, ids=["lora", "oft"])
def test_a_factor_of_another_method_is_drawn(specs, backbone):
    model, plain = attached(specs, backbone), attached(specs[0], backbone)
    assert torch.equal(run(model, backbone), run(build(backbone), backbone))
    assert not torch.equal(run(model.train(), backbone), run(model, backbone))
    layer = next(iter(gaussians(model).values()))
    x, noisy = torch.randn(3, layer.in_features), []
    for function in (layer, torch.compile(layer, backend="eager", fullgraph=True)):
        torch.manual_seed(0)
        noisy.append(function(x))
    assert torch.equal(*noisy)

    perturb(model)
    means = {name: tensor for name, tensor in model.state_dict().items() if not name.endswith("_sigma")}
    plain.load_state_dict(means)  # mu is a plain adapter
    expected = run(model.eval(), backbone)
    assert torch.equal(run(plain, backbone), expected)
    twin = pickle.loads(pickle.dumps(model))
    assert torch.equal(run(twin, backbone), expected)
    torch.testing.assert_close(run(adapters.merge(model), backbone), expected, atol=1e-5, rtol=1e-5)
    assert [type(m) for m in model.modules()] == [type(m) for m in build(backbone).modules()]


def test_of_lora_b_is_drawn_and_a_is_not():
    layer = adapters.attach(nn.Linear(6, 4, dtype=torch.float64), ["lora:rank=2,targets=", "bnn:parts=lora,kl=1"])
    x = torch.randn(3, 6, dtype=torch.float64)
    assert (
        adapters.trainable_parameters(layer).keys() == {"lora_down", "lora_up", "lora_up_sigma"}
        and not layer.lora_up_prior.any()
    )
    torch.manual_seed(1)
    up = 0.01 * torch.randn_like(layer.lora_up)
    torch.manual_seed(1)
    weight = layer.weight + up @ layer.lora_down
    torch.testing.assert_close(layer.train()(x), x @ weight.T + layer.bias)


def test_of_oft_every_draw_is_a_rotation():
    layer = adapters.attach(nn.Linear(6, 6, bias=False), ["oft:blocks=2,targets=", "bnn:parts=oft,sigma=0.5"]).train()
    drawn = layer(torch.eye(6)).T  # W R^T
    assert not torch.allclose(drawn, layer.weight, atol=1e-2)
    torch.testing.assert_close(drawn @ drawn.T, layer.weight @ layer.weight.T, atol=1e-5, rtol=1e-5)


def test_an_adapter_file_holds_sigma_and_goes_on_as_mean_or_to_be_sampled(tmp_path):
    specs = ["lora:rank=2", "bnn:parts=norm,kl=0.1"]
    base, model = build("dit"), attached(specs, "dit")
    perturb(model)
    path, header = tmp_path / "a.safetensors", {"adapter": specs, "base": weights.fingerprint(base)}
    weights.save_adapter(path, model, header)
    assert weights.load_adapter(path)[0].keys() == adapters.trainable_parameters(model).keys()
    mean = weights.apply_adapters(build("dit"), [(path, 1.0)])
    torch.testing.assert_close(run(mean, "dit"), run(model, "dit"), atol=1e-5, rtol=1e-5)
    assert not gaussians(mean)

    drawn = weights.apply_adapters(build("dit"), [(path, 1.0)], sampled=True)
    assert gaussians(drawn).keys() == gaussians(model).keys() and adapters.adapter_parameters(drawn) == {
        f"{name}.{kind}_sigma" for name in gaussians(model) for kind in ("weight", "bias")
    }  # LoRA is merged
    assert not drawn.training and not torch.equal(run(drawn, "dit"), run(drawn, "dit"))
    with pytest.raises(ValueError, match="blocks.0.norm1 has Gaussian weights already: weight, bias"):
        weights.apply_adapters(build("dit"), [(path, 1.0), (path, 1.0)], sampled=True)
    with pytest.raises(ValueError, match="none of this model's weights is Gaussian"):
        adapters.sampled(mean)


@pytest.mark.parametrize(
    ("specs", "message"),
    [
        ("bnn:parts=conv", "parts is one of linear, norm, .* and direction forward or reverse, found 'conv' and 'for"),
        ("bnn:direction=back", "found 'linear' and 'back'"),
        ("bnn:sigma=0", "needs a finite sigma >= 1e-07 and a finite kl >= 0, found sigma 0.0"),
        ("bnn:sigma=nan", "'sigma' must be at most 100,000, found 'nan'"),
        ("bnn:kl=-1", "kl -1.0"),
        ("bnn:targets=nothing", "matched no layer: pattern 'nothing'"),
        ("bnn:parts=crossattn", "matched no layer"),
        ("bnn:parts=lora", "parts=lora draws what lora has added: attach lora before it"),
        (["bnn", "bnn:targets=fc1"], "blocks.0.mlp.fc1 has Gaussian weights already: weight, bias"),
    ],
)
def test_bnn_refuses(specs, message):
    with pytest.raises(ValueError, match=message):
        attached(specs, "dit")


def test_a_run_learns_with_the_kl_and_resumes_to_the_byte(tiny, tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    common = ["--adapter", "bnn:kl=0.01", "--steps", "4", "--save-every", "1"]
    train.main(flags(tiny, whole, *common))
    lines = [json.loads(line) for line in (whole / "log.jsonl").read_text().splitlines()]
    lines = [line for line in lines if "loss" in line]
    assert lines[0]["kl"] == 0 and lines[1]["kl"] > 0
    for line in lines:
        assert line["loss"] == pytest.approx(line["mse"] + line["bits"] + line["kl"], rel=1e-5)

    one_step = train.one_step

    def killed(options, settings, step, *rest):
        if step == 2:
            raise KeyboardInterrupt
        return one_step(options, settings, step, *rest)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(train, "one_step", killed)
        train.main(flags(tiny, broken, *common))
    train.main(["--resume", "--out", str(broken)])
    assert (whole / "adapter.safetensors").read_bytes() == (broken / "adapter.safetensors").read_bytes()

    drawn = {}
    for name, more in {"mean": [], "a": ["sampled"], "b": ["sampled"], "c": ["sampled", "--seed", "1"]}.items():
        out = tmp_path / name
        sample.main(
            [
                "--run",
                str(whole),
                "--classes",
                "0",
                "--count",
                "1",
                "--steps",
                "2",
                "--precision",
                "fp32",
                "--out",
                str(out),
                *(["--weights", *more] if more else []),
            ]
        )
        drawn[name] = (out / "grid.png").read_bytes()
    assert drawn["a"] == drawn["b"] and len(set(drawn.values())) == 3
    with pytest.raises(ValueError, match="--weights must be one of mean, sampled, found 'drawn'"):
        sample.main(["--run", str(whole), "--weights", "drawn", "--out", str(tmp_path / "none")])
