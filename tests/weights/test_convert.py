"""The converter: any layout to any other, its command line, and what it refuses."""

import json
from dataclasses import replace

import pytest
import torch

import weights
from border import read_json
from dit import DiT
from weights.convert import convert, export, export_pipeline, main


def equal(a, b):
    theirs = b.state_dict()
    return all(torch.equal(v, theirs[k]) for k, v in a.state_dict().items())


@pytest.mark.parametrize(
    ("layout", "name"),
    [("native", "w.safetensors"), ("dit-official", "w.pt"), ("dit-official", "w.safetensors"), ("dit-diffusers", "w")],
)
def test_dit_there_and_back(tmp_path, tiny_dit, layout, name):
    weights.save_model(tiny_dit, tmp_path / "source", card={"classes": [str(i) for i in range(10)]})
    convert(tmp_path / "source", tmp_path / name, layout)
    known = {"heads": 4, "num_classes": 10} if layout == "dit-official" else {}
    convert(tmp_path / name, tmp_path / "back.safetensors", "native", **known)
    back = weights.load(tmp_path / "back.safetensors")
    assert equal(back, tiny_dit)
    assert back.config == tiny_dit.config
    assert back.classes == (None if layout == "dit-official" else [str(i) for i in range(10)])


@pytest.mark.parametrize(
    ("layout", "name"), [("vae-compvis", "w.ckpt"), ("vae-diffusers", "w"), ("vae-diffusers-old", "w")]
)
def test_vae_from_a_pipeline(tmp_path, tiny_dit, tiny_vae, layout, name):
    export_pipeline(tiny_dit, tmp_path / "source", vae=tiny_vae)
    convert(tmp_path / "source", tmp_path / name, layout)
    assert equal(weights.load(tmp_path / name, groups=8), tiny_vae)


def test_command_line(tmp_path, tiny_dit, tiny_vae, capsys):
    weights.save_model(tiny_vae, tmp_path / "vae.safetensors")
    torch.save({"model": DiT(tiny_dit.config).state_dict(), "ema": tiny_dit.state_dict()}, tmp_path / "w.pt")
    with pytest.raises(SystemExit):
        main([str(tmp_path / "w.pt"), str(tmp_path / "a"), "--layout", "dit-diffusers"])
    assert "no published size, so give heads=" in capsys.readouterr().err
    weights.save_model(tiny_dit, tmp_path / "w.safetensors")
    main(
        [
            str(tmp_path / "w.safetensors"),
            str(tmp_path / "a"),
            "--layout",
            "dit-diffusers",
            "--dtype",
            "float16",
            "--vae",
            str(tmp_path / "vae.safetensors"),
        ]
    )
    assert weights.load(tmp_path / "a").pos_embed.dtype == torch.float16
    assert weights.load(tmp_path / "a", expect="vae").config == tiny_vae.config
    assert read_json(tmp_path / "a" / "model_index.json")["_class_name"] == "DiTPipeline"


def test_a_card_goes_along(tmp_path, tiny_vae):
    weights.save_model(tiny_vae, tmp_path / "w", card={"license": "MIT"})
    convert(tmp_path / "w", tmp_path / "half.safetensors", "native", torch.float16)
    assert json.loads(weights.read(tmp_path / "half.safetensors")[1]["graft"])["card"] == {"license": "MIT"}


def test_raw_or_averaged(tmp_path, tiny_dit):
    torch.save({"model": DiT(tiny_dit.config).state_dict(), "ema": tiny_dit.state_dict()}, tmp_path / "w.pt")
    convert(tmp_path / "w.pt", tmp_path / "ema.safetensors", "native", heads=4)
    convert(tmp_path / "w.pt", tmp_path / "raw.safetensors", "native", heads=4, ema=False)
    assert equal(weights.load(tmp_path / "ema.safetensors"), tiny_dit)
    assert weights.load(tmp_path / "raw.safetensors").final_layer.linear.weight.abs().max() == 0


def test_what_a_layout_cannot_hold(tmp_path, tiny_dit, tiny_vae):
    weights.save_model(tiny_dit, tmp_path / "w")
    with pytest.raises(ValueError, match="unknown layout 'a1111', the layouts are native, dit-official"):
        convert(tmp_path / "w", tmp_path / "x", "a1111")
    with pytest.raises(ValueError, match="expected a vae, found a dit"):
        convert(tmp_path / "w", tmp_path / "x", "vae-diffusers")
    with pytest.raises(ValueError, match="a VAE beside the model belongs to dit-diffusers only"):
        convert(tmp_path / "w", tmp_path / "x.pt", "dit-official", vae="tiny-vae")
    with pytest.raises(ValueError, match=r"x: expected a file name ending in \.safetensors"):
        convert(tmp_path / "w", tmp_path / "x", "native")
    with pytest.raises(ValueError, match=r"ending in \.safetensors or \.pt"):
        export(tiny_dit, tmp_path / "x.txt", "dit-official")
    with pytest.raises(ValueError, match="vae-compvis holds a vae, found a dit"):
        export(tiny_dit, tmp_path / "x.pt", "vae-compvis")
    with pytest.raises(ValueError, match=r"found ratio 2\.0 and class_dropout 0\.1"):
        export(DiT(replace(tiny_dit.config, mlp_ratio=2.0)), tmp_path / "x", "dit-diffusers")
    tiny_dit.pos_embed.data += 1
    with pytest.raises(ValueError, match="holds no positions, and this model's differ from the sinusoid by 1"):
        export(tiny_dit, tmp_path / "x", "dit-diffusers")
    assert not (tmp_path / "x").exists()
