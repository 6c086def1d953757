"""Class-conditional fine-tuning: latents and dropped labels, what trains, and the class table."""

import pytest
import torch
from recipes.latent import encode, latent_batches, settings

import adapters
import weights
from data import ImageSet
from data.latents import LatentCache
from recipes.class_label import attach, backbone, fit_classes, new_model
from recipes.pixels import augmentations
from train import Config

NULL = 9
TABLE = "y_embedder.embedding_table.weight"


@pytest.fixture
def vae(tiny):
    return weights.load(tiny / "vae.safetensors", expect="vae")


@pytest.fixture
def dit(tiny):
    return weights.load(tiny / "dit.safetensors", expect="dit")


def encoded(count=4, variants=2, logvar=-60.0):
    """Means that tell image and variant, 10 n + v, and next to no variance."""
    mean = 10.0 * torch.arange(count)[:, None] + torch.arange(variants)  # (N, V)
    mean = mean[..., None, None, None].expand(count, variants, 4, 4, 4).clone()  # (N, V, c, h, w)
    return LatentCache(mean, torch.full_like(mean, logvar), "", None, False)


def labels(count=4):
    return torch.arange(count) % 3


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_latents_are_scaled_and_in_a_variant_of_their_own_image():
    index = torch.tensor([3, 0, 1] * 10)
    got = latent_batches(encoded(), labels(), 0.5, NULL, 0)(index, seeded())
    assert got["x0"].shape == (30, 4, 4, 4) and torch.equal(got["y"], labels()[index])
    value = (got["x0"][:, 0, 0, 0] / 0.5).round()
    assert torch.equal((value / 10).floor().long(), index) and set((value % 10).tolist()) == {0, 1}


def test_the_latent_is_drawn_with_the_encoders_variance():
    cache = encoded(count=1, variants=1, logvar=2 * torch.tensor(3.0).log().item())  # standard deviation 3
    x0 = latent_batches(cache, labels(1), 0.5, NULL, 0)(torch.zeros(200).long(), seeded())["x0"]
    assert x0.std().item() == pytest.approx(1.5, rel=0.02)


@pytest.mark.parametrize("drop", [0.0, 0.1, 0.5, 1.0])
def test_labels_are_dropped_as_often_as_asked(drop):
    y = latent_batches(encoded(), labels(), 1.0, NULL, drop)(torch.arange(4).repeat(1000), seeded())["y"]
    assert (y == NULL).double().mean().item() == pytest.approx(drop, abs=0.03)
    kept = y != NULL
    assert torch.equal(y[kept], labels().repeat(1000)[kept])


def test_a_table_without_a_null_row_has_nothing_to_drop_to():
    y = latent_batches(encoded(), labels(), 1.0, None, 0.5)(torch.arange(4), seeded())["y"]
    assert torch.equal(y, labels())


def test_the_generator_decides_and_what_is_given_is_left_alone():
    cache, of = encoded(), labels()
    batch, index = latent_batches(cache, of, 2.0, NULL, 0.5), torch.arange(4).repeat(5)
    first, again, other = batch(index, seeded(1)), batch(index, seeded(1)), batch(index, seeded(2))
    assert all(torch.equal(first[key], again[key]) for key in ("x0", "y"))
    assert not torch.equal(first["y"], other["y"]) and not torch.equal(first["x0"], other["x0"])
    assert torch.equal(of, labels()) and torch.equal(cache.mean, encoded().mean)
    assert torch.equal(index, torch.arange(4).repeat(5))


@pytest.mark.parametrize(
    "specs, attached",
    [
        (["lora:rank=2"], ["lora:rank=2", "classes"]),
        (["bitfit", "norm"], ["bitfit", "norm", "classes"]),
        (["full"], ["full"]),
        (["classes"], ["classes"]),
        (["difffit:blocks=1"], ["difffit:blocks=1"]),
        (["lora:rank=2", "classes"], ["lora:rank=2", "classes"]),
    ],
)
def test_the_class_table_trains_with_every_adapter(dit, specs, attached):
    before = list(specs)
    assert attach(Config(adapter=specs), dit) == attached and specs == before
    assert TABLE in adapters.trainable_parameters(dit)


def test_the_seed_decides_what_an_adapter_starts_from(tiny):
    def downs(seed):
        model = weights.load(tiny / "dit.safetensors")
        attach(Config(adapter=["lora:rank=2"], seed=seed), model)
        return torch.cat(
            [p.flatten() for name, p in adapters.trainable_parameters(model).items() if name.endswith("lora_down")]
        )

    assert torch.equal(downs(0), downs(0)) and not torch.equal(downs(0), downs(1))


def images(classes):
    of = torch.arange(len(classes)).repeat_interleave(2)
    return ImageSet(torch.zeros(len(of), 16, 16, 3, dtype=torch.uint8).numpy(), of, classes, [str(i) for i in of])


def fit(dit, vae, classes, **fields):
    return fit_classes(Config(**fields), dit, vae, images(classes), encoded(2 * len(classes)), torch.device("cpu"))


def test_the_checkpoints_own_classes_keep_their_table(dit, vae, capsys):
    before = dit.y_embedder.embedding_table.weight
    assert fit(dit, vae, list(dit.classes), start="random") is None
    assert dit.y_embedder.embedding_table.weight is before and capsys.readouterr().out == ""


def test_new_classes_start_from_old_ones_of_their_name(dit, vae, capsys):
    old = dit.y_embedder.embedding_table.weight.detach().clone()
    assert fit(dit, vae, ["nut/good", "nut/hole", "nut/mould"]) == [[0, 3], [2], [0, 1, 2, 3, 4]]
    expected = torch.stack([old[[0, 3]].mean(0), old[2], old[:5].mean(0), old[5]])  # the null row last
    assert torch.allclose(dit.y_embedder.embedding_table.weight, expected)
    assert dit.classes == ["nut/good", "nut/hole", "nut/mould"] and dit.null == 3
    assert capsys.readouterr().out.splitlines() == [
        "class nut/good: starts from the mean of pill/good, tile/good",
        "class nut/hole: starts from pill/hole",
        "class nut/mould: starts from the mean of pill/good, pill/crack, pill/hole, tile/good, tile/crack",
    ]


def test_random_rows_come_from_the_seed(tiny, vae, capsys):
    def rows(seed):
        model = weights.load(tiny / "dit.safetensors")
        assert fit(model, vae, ["a", "b"], start="random", seed=seed) == [[], []]
        return model.y_embedder.embedding_table.weight.detach()[:2]

    assert torch.equal(rows(0), rows(0)) and not torch.equal(rows(0), rows(1))
    assert "class a: starts from random numbers" in capsys.readouterr().out


def test_nearest_rows_are_asked_of_the_model_and_a_nameless_checkpoint_shows_ids(dit, vae, capsys):
    dit.classes = None
    sources = fit(dit, vae, ["a", "b"], start="nearest")
    assert [len(ids) for ids in sources] == [1, 1] and all(0 <= ids[0] < 5 for ids in sources)
    assert f"class a: starts from {sources[0][0]}\n" in capsys.readouterr().out


def run_encoder(vae):
    config = Config(cache="", precision="fp32", flips="none", rotations="0")
    return encode(config, vae, images(["a"]), augmentations(config), torch.device("cpu"))


def test_encoding_is_that_of_the_autoencoder(vae):
    cache = run_encoder(vae)
    with torch.no_grad():
        mean, logvar = vae.encode(torch.full((2, 3, 16, 16), -1.0))  # the images are black
    assert torch.allclose(cache.mean[:, 0], mean, atol=1e-5) and torch.allclose(cache.logvar[:, 0], logvar, atol=1e-5)


@pytest.mark.parametrize("name", ["encoder.conv_in.weight", "quant_conv.weight"])
def test_another_encoder_gives_its_latents_another_name(vae, name):
    before = run_encoder(vae).name
    assert before == run_encoder(vae).name
    with torch.no_grad():
        vae.get_parameter(name)[0, 0] += 1
    assert before != run_encoder(vae).name


def test_the_side_of_the_images_is_the_models_or_the_asked_one(tiny, vae):
    config = {"model": str(tiny / "dit.safetensors"), "vae": "vae"}
    assert backbone(Config(**config), vae, torch.device("cpu"))[1] == 16
    model, side = backbone(Config(**config, size=32), vae, torch.device("cpu"))
    assert side == 32 and model.config.input_size == 8
    assert backbone(Config(model="new:DiT-T/2", size=64, adapter=["full"]), vae, "cpu") == (None, 64)


def test_a_new_model_fits_the_latents_and_knows_its_classes(vae):
    with torch.device("meta"):
        model = new_model(Config(model="new:DiT-T/2"), vae, 64, ["a", "b"])
    assert (model.config.input_size, model.config.in_channels, model.classes) == (16, 4, ["a", "b"])


def test_what_does_not_fit_is_one_sentence(tiny, vae):
    with pytest.raises(ValueError, match="its adapter is full, found bitfit [+] norm"):
        backbone(Config(model="new:DiT-T/2"), vae, "cpu")
    with pytest.raises(ValueError, match="no image size of its own: give --size"):
        backbone(Config(model="new:DiT-T/2", adapter=["full"]), vae, "cpu")
    with pytest.raises(ValueError, match="unknown size 'DiT-Q'; new models are new:DiT-S/2"):
        new_model(Config(model="new:DiT-Q"), vae, 64, ["a"])
    vae.config.latent_channels = 6
    with pytest.raises(ValueError, match="works on latents of 4 channels, .* makes 6"):
        backbone(Config(model=str(tiny / "dit.safetensors")), vae, "cpu")


def test_settings_hold_what_the_result_depends_on():
    assert settings(Config(out="a", resume=True)) == settings(Config(out="b"))
    assert settings(Config(seed=1)) != settings(Config(seed=2))
