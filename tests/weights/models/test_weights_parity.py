"""diffusers opens what we write, and we open what it writes; equal numbers come out where it computes the same."""

from functools import partial

import pytest
import torch

import dit.embed
import weights
from border import read_json
from dit import SIZES, DiT, DiTConfig
from ops import timestep_embedding
from unet import VAEConfig
from weights.convert import export, export_pipeline
from weights.formats.files import read
from weights.layouts.exchange import LAYOUTS, spread
from weights.layouts.kinds import empty

diffusers = pytest.importorskip("diffusers")


def images(seed=0):
    return torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def same_vae(theirs, ours):
    with torch.no_grad():
        moments = theirs.encode(images()).latent_dist
        mean, _ = ours.encode(images())
        assert (moments.mean - mean).abs().max() < 2e-5
        assert (theirs.decode(mean).sample - ours.decode(mean)).abs().max() < 2e-5


@pytest.fixture
def their_vae():
    torch.manual_seed(0)
    model = diffusers.AutoencoderKL(
        in_channels=3,
        out_channels=3,
        sample_size=32,
        latent_channels=4,
        layers_per_block=2,
        norm_num_groups=8,
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
        block_out_channels=(16, 32, 32, 32),
    )
    for parameter in model.parameters():
        parameter.data = 0.05 * torch.randn(parameter.shape)
    return model.eval()


@pytest.fixture
def their_dit():
    torch.manual_seed(0)
    model = diffusers.DiTTransformer2DModel(
        num_attention_heads=4,
        attention_head_dim=12,
        in_channels=4,
        out_channels=8,
        num_layers=2,
        sample_size=8,
        patch_size=2,
        num_embeds_ada_norm=10,
    )
    for parameter in model.parameters():
        parameter.data = 0.05 * torch.randn(parameter.shape)
    for mine, first in zip(
        model.transformer_blocks[1].norm1.emb.parameters(),
        model.transformer_blocks[0].norm1.emb.parameters(),
        strict=True,
    ):
        mine.data.copy_(first.data)
    return model.eval()


def test_we_open_their_vae(tmp_path, their_vae):
    their_vae.save_pretrained(tmp_path)
    ours = weights.load(tmp_path)
    assert ours.config.channels == (16, 32, 32, 32)
    same_vae(their_vae, ours)


@pytest.mark.parametrize("layout", ["vae-diffusers", "vae-diffusers-old"])
def test_they_open_our_vae(tmp_path, tiny_vae, layout):
    export(tiny_vae, tmp_path, layout)
    theirs, info = diffusers.AutoencoderKL.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    same_vae(theirs.eval(), tiny_vae)


def test_they_open_our_vae_as_a_single_file(tmp_path, their_vae):
    their_vae.save_pretrained(tmp_path / "folder")
    ours = weights.load(tmp_path / "folder")
    export(ours, tmp_path / "vae.safetensors", "vae-compvis")
    theirs = diffusers.AutoencoderKL.from_single_file(
        str(tmp_path / "vae.safetensors"), config=str(tmp_path / "folder")
    )
    expected = their_vae.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in theirs.state_dict().items())


def test_shards_and_variants(tmp_path, their_vae):
    their_vae.save_pretrained(tmp_path, max_shard_size="100KB", variant="fp16")
    assert len(list(tmp_path.glob("*fp16-0000*"))) > 1
    tensors = read(tmp_path, variant="fp16")[0]
    expected = their_vae.state_dict()
    assert tensors.keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in tensors.items())
    same_vae(their_vae, weights.load(tmp_path, variant="fp16"))


def test_we_open_their_dit_and_compute_what_it_computes(tmp_path, their_dit, monkeypatch):
    """With the two constants of their own code: the sinusoid's divisor and the eps of the second norm."""
    their_dit.save_pretrained(tmp_path)
    ours = weights.load(tmp_path)
    monkeypatch.setattr(dit.embed, "timestep_embedding", partial(timestep_embedding, divisor=127))
    for block in ours.blocks:
        block.norm2.eps = 1e-5
    assert ours.config.num_classes == 10
    x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    t, y = torch.tensor([500, 17]), torch.tensor([3, 10])
    with torch.no_grad():
        difference = ours(x, t, y) - their_dit(x, timestep=t, class_labels=y).sample
    assert difference.abs().max() < 1e-5


def test_their_pipeline_opens_our_folder(tmp_path, tiny_vae):
    ours = DiT(DiTConfig(depth=2, width=48, heads=4, patch=2, input_size=8))
    names = [f"class {i}, alias {i}" for i in range(1000)]
    export_pipeline(ours, tmp_path, vae=tiny_vae, classes=names)
    pipeline = diffusers.DiTPipeline.from_pretrained(tmp_path)
    assert pipeline.labels["alias 7"] == 7
    state = pipeline.transformer.state_dict()
    expected = spread(ours.state_dict(), LAYOUTS["dit-diffusers"], 2)
    assert state.keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in state.items())
    pipeline.set_progress_bar_config(disable=True)
    assert pipeline([7], num_inference_steps=2, output_type="np").images.shape == (1, 32, 32, 3)


def test_the_older_class_name_is_theirs_too(tmp_path, tiny_vae, tiny_dit):
    export_pipeline(tiny_dit, tmp_path, vae=tiny_vae)
    path = tmp_path / "transformer" / "config.json"
    path.write_text(path.read_text().replace("DiTTransformer2DModel", "Transformer2DModel"))
    assert read_json(path)["_class_name"] == "Transformer2DModel"
    assert weights.load(tmp_path).config == tiny_dit.config


def test_full_size_names_are_theirs():
    with torch.device("meta"):
        dit = diffusers.DiTTransformer2DModel(out_channels=8, sample_size=32)
        vae = diffusers.AutoencoderKL(
            down_block_types=["DownEncoderBlock2D"] * 4,
            up_block_types=["UpDecoderBlock2D"] * 4,
            block_out_channels=(128, 256, 512, 512),
            layers_per_block=2,
            norm_num_groups=32,
        )
    xl = DiTConfig(**SIZES["DiT-XL/2"], input_size=32)
    ours = [(empty("dit", xl), "dit-diffusers", 28, dit), (empty("vae", VAEConfig()), "vae-diffusers", 4, vae)]
    for model, layout, size, theirs in ours:
        mine = {name: tensor.shape for name, tensor in spread(model.state_dict(), LAYOUTS[layout], size).items()}
        assert mine == {name: tensor.shape for name, tensor in theirs.state_dict().items()}
