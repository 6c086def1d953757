"""The converter: any layout to any other, its command line, and what it refuses."""

import json
from dataclasses import replace

import pytest
import torch

import weights
from border import read_json
from dit import DiT
from weights.convert import convert, export, export_pipeline, main, of_run


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


def run_folder(tmp_path, *names):
    """A folder as train.py leaves it, with empty files of these names."""
    (tmp_path / "run").mkdir()
    for name in ("config.toml", *names):
        (tmp_path / "run" / name).write_text("")
    return tmp_path / "run"


def test_the_command_says_what_it_wrote_and_overwrites_nothing_unasked(tmp_path, tiny_dit, capsys):
    weights.save_model(tiny_dit, tmp_path / "w.safetensors")
    argv = [str(tmp_path / "w.safetensors"), str(tmp_path / "x.safetensors"), "--layout", "native"]
    main(argv)
    size = (tmp_path / "x.safetensors").stat().st_size / 1e6
    assert capsys.readouterr().out == f"wrote {tmp_path / 'x.safetensors'}: native, 1 file, {size:,.1f} MB\n"
    before = (tmp_path / "x.safetensors").stat().st_mtime_ns
    with pytest.raises(SystemExit) as leaving:
        main(argv)
    assert leaving.value.code == 2 and "x.safetensors is there already" in capsys.readouterr().err
    assert (tmp_path / "x.safetensors").stat().st_mtime_ns == before
    main([*argv, "--overwrite", "--dtype", "float16"])
    assert weights.load(tmp_path / "x.safetensors").pos_embed.dtype == torch.float16
    folder = [argv[0], str(tmp_path / "folder"), "--layout", "dit-diffusers"]
    (tmp_path / "folder").mkdir()  # empty: nothing is lost
    main(folder)
    shown = capsys.readouterr().out
    assert "dit-diffusers, " in shown and " files, " in shown
    with pytest.raises(SystemExit):
        main(folder)


@pytest.mark.parametrize(
    ("layout", "names", "chosen"),
    [
        ("kohya", ["adapter.safetensors"], "adapter.safetensors"),
        ("a1111-embedding", ["adapter.safetensors"], "adapter.safetensors"),
        ("native", ["model.safetensors"], "model.safetensors"),
        ("sd-compvis", ["model"], "model"),
        ("controlnet-compvis", ["adapter.safetensors", "control"], "control"),
    ],
)
def test_a_run_folder_is_what_it_has_left(tmp_path, layout, names, chosen):
    run = run_folder(tmp_path, *names)
    assert of_run(run, layout) == run / chosen


@pytest.mark.parametrize(
    ("layout", "names", "words"),
    [
        ("native", ["adapter.safetensors"], "native is for a whole model, and the run has left adapter.safetensors"),
        ("kohya", ["model.safetensors"], "kohya is for a whole adapter, and the run has left model.safetensors"),
        ("controlnet-diffusers", [], "for a whole ControlNet, and the run has left nothing yet"),
    ],
)
def test_a_run_that_has_not_left_it_is_refused(tmp_path, layout, names, words, capsys):
    run = run_folder(tmp_path, *names)
    with pytest.raises(SystemExit):
        main([str(run), str(tmp_path / "x.safetensors"), "--layout", layout])
    assert words in capsys.readouterr().err


def test_a_model_of_a_run_is_converted(tmp_path, tiny_dit):
    weights.save_model(tiny_dit, run_folder(tmp_path) / "model.safetensors")
    main([str(tmp_path / "run"), str(tmp_path / "x.safetensors"), "--layout", "native"])
    assert equal(weights.load(tmp_path / "x.safetensors"), tiny_dit)
