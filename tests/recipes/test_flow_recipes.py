"""Runs of a flow: what train.py makes of one, what its files say, and what is refused in one sentence."""

import json

import pytest
import torch

import sample
import train
import weights
from weights.formats import safe

FAST = [
    *("--steps", "2", "--batch", "4", "--sample-steps", "2", "--sample-every", "2", "--count", "2"),
    *("--cache=", "--flips", "none", "--rotations", "0", "--device", "cpu"),
]
DATA = ["--data", "generated:hazelnut/few/2", "--val", "generated:hazelnut/val/2"]


@pytest.fixture(scope="module")
def flow(tmp_path_factory):
    """tiny-dit as a flow, its velocity untrained."""
    path = tmp_path_factory.mktemp("flow") / "flow.safetensors"
    model = weights.load("tiny-dit", dtype=torch.float32)
    model.objective = "flow"
    weights.save_model(model, path, card={"classes": model.classes, "parents": model.parents})
    return str(path)


def told(path):
    """What the header of a file of this package says."""
    return json.loads(safe.read_metadata(path)["graft"])


def test_a_fine_tune_of_a_flow_is_one_to_the_end(flow, tmp_path):
    out = tmp_path / "run"
    settings = [
        "--times",
        "logit-normal",
        "--time-shift",
        "2",
        "--keep",
        "best",
        "--superclass",
        "0.1",
        "--min-snr",
        "5",
    ]
    train.main(["--model", flow, *FAST, *DATA, *settings, "--measure", "1", "--out", str(out)])
    header = told(out / "adapter.safetensors")
    assert header["base"]["objective"] == "flow" and header["config"]["times"] == "logit-normal"
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert any("val" in line for line in lines) and any("feature_similarity" in line for line in lines)
    assert all("bits" not in line for line in lines)  # no variational term
    for sampler in ("ddim", "heun", "sde"):
        options = ["--sampler", sampler, "--steps", "3", "--count", "1", "--classes", "crack", "--interval", "0,0.7"]
        sample.main(["--run", str(out), *options, "--device", "cpu", "--out", str(tmp_path / sampler)])
    start = ["--image", str(out / "grid.png"), "--strength", "0.5", "--steps", "4", "--count", "1"]
    sample.main(["--run", str(out), *start, "--classes", "crack", "--device", "cpu", "--out", str(tmp_path / "start")])
    with pytest.raises(ValueError, match="interval must be LOW,HIGH with 0 <= LOW <= HIGH <= 1.0"):
        sample.main(["--run", str(out), "--interval", "0,700", "--out", str(tmp_path / "x")])
    with pytest.raises(ValueError, match="trained on a flow model, and this is a diffusion model"):
        sample.main(["--adapter", str(out / "adapter.safetensors"), "--out", str(tmp_path / "x")])


def test_a_new_model_and_a_diffusion_model_become_flows_where_everything_trains(tmp_path):
    for name, model in (("new", ["--model", "new:DiT-T/2", "--size", "64"]), ("old", ["--model", "tiny-dit"])):
        out = tmp_path / name
        flags = ["--objective", "flow", "--adapter", "full", "--measure", "0", "--out", str(out)]
        train.main([*model, *flags, *FAST, *DATA])
        made = weights.load(out / "model.safetensors", dtype=torch.float32)
        assert made.objective == "flow" and told(out / "model.safetensors")["objective"] == "flow"
        C = made.config.in_channels
        assert not made.final_layer.linear.weight.unflatten(0, (-1, 2 * C))[:, C:].any()  # SiT's sign
    with pytest.raises(ValueError, match="tiny-dit is a diffusion model, .* everything must train: --adapter full"):
        train.main(["--objective", "flow", *FAST, *DATA, "--out", str(tmp_path / "no")])


def test_an_adapter_of_a_diffusion_model_says_nothing_new(tmp_path):
    train.main([*FAST, *DATA, "--measure", "0", "--out", str(tmp_path / "run")])
    header = told(tmp_path / "run" / "adapter.safetensors")
    assert "objective" not in header["base"] and not {"objective", "times", "time_shift"} & header["config"].keys()


def test_a_control_net_of_a_flow_samples(flow, tmp_path):
    out, data = tmp_path / "run", ["--data", "generated:bottle/base/2"]
    train.main(["--recipe", "control", "--model", flow, *FAST, *data, "--out", str(out)])
    assert told(out / "control.safetensors")["base"]["objective"] == "flow"


@pytest.mark.parametrize(
    "flags, words",
    [
        (["--time-shift", "2"], "--time-shift is for flows, and tiny-dit is a diffusion model"),
        (["--times", "logit-normal"], "--times is for flows"),
        (
            ["--model", "FLOW", "--noise-schedule", "progressive"],
            "progressive is for diffusion models, and .* is a flow",
        ),
        (["--model", "FLOW", "--objective", "diffusion"], "is a flow model, and --objective diffusion makes another"),
        (["--recipe", "consistency", "--model", "FLOW"], "consistency distils diffusion models, and .* is a flow"),
    ],
)
def test_what_makes_no_sense_is_one_sentence(flow, tmp_path, flags, words):
    flags = [flow if word == "FLOW" else word for word in flags]
    data = ["--data", "generated:bottle/base/1"] if "consistency" in flags else DATA
    with pytest.raises(ValueError, match=words):
        train.main([*flags, *data, "--cache=", "--device", "cpu", "--out", str(tmp_path / "run")])
