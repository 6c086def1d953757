"""Latents as they are trained on: scaled, drawn, in variants, with conditions some of which are replaced; encoding."""

import pytest
import torch

import weights
from config.training import Images
from ops.device import Compute
from recipes.images.latents import encode, latent_batches
from tests.fakes import NULL, encoded, images, labels, seeded

SUPERCLASS_ROW = torch.tensor([3, 3, 4])
CPU = Compute(torch.device("cpu"), "fp32")


def test_latents_are_scaled_and_in_a_variant_of_their_own_image():
    index = torch.tensor([3, 0, 1] * 10)
    batch = latent_batches(encoded(), labels(), 0.5, NULL, 0)(index, seeded())
    assert batch["x0"].shape == (30, 4, 4, 4) and torch.equal(batch["cond"], labels()[index])
    value = (batch["x0"][:, 0, 0, 0] / 0.5).round()
    assert torch.equal((value / 10).floor().long(), index) and set((value % 10).tolist()) == {0, 1}


def test_the_latent_is_drawn_with_the_encoders_variance():
    cache = encoded(count=1, variants=1, logvar=2 * torch.tensor(3.0).log().item())  # standard deviation 3
    x0 = latent_batches(cache, labels(1), 0.5, NULL, 0)(torch.zeros(200).long(), seeded())["x0"]
    assert x0.std().item() == pytest.approx(1.5, rel=0.02)


@pytest.mark.parametrize("cond_dropout", [0.0, 0.1, 0.5, 1.0])
def test_labels_are_dropped_as_often_as_asked(cond_dropout):
    cond = latent_batches(encoded(), labels(), 1.0, NULL, cond_dropout)(torch.arange(4).repeat(1000), seeded())["cond"]
    assert (cond == NULL).double().mean().item() == pytest.approx(cond_dropout, abs=0.03)
    kept = cond != NULL
    assert torch.equal(cond[kept], labels().repeat(1000)[kept])


def test_a_table_without_a_null_row_has_nothing_to_drop_to():
    cond = latent_batches(encoded(), labels(), 1.0, None, 0.5)(torch.arange(4), seeded())["cond"]
    assert torch.equal(cond, labels())


def test_the_generator_decides_and_what_is_given_is_left_alone():
    cache, of = encoded(), labels()
    batch, index = latent_batches(cache, of, 2.0, NULL, 0.5), torch.arange(4).repeat(5)
    first, again, other = batch(index, seeded(1)), batch(index, seeded(1)), batch(index, seeded(2))
    assert all(torch.equal(first[key], again[key]) for key in ("x0", "cond"))
    assert not torch.equal(first["cond"], other["cond"]) and not torch.equal(first["x0"], other["x0"])
    assert torch.equal(of, labels()) and torch.equal(cache.mean, encoded().mean)
    assert torch.equal(index, torch.arange(4).repeat(5))


@pytest.mark.parametrize(
    ("null", "cond_dropout", "superclass"),
    [(NULL, 0.1, 0.0), (NULL, 0.2, 0.3), (NULL, 0.5, 0.5), (None, 0.2, 0.1), (None, 0.1, 1.0)],
)
def test_labels_are_replaced_by_superclasses_as_often_as_asked(null, cond_dropout, superclass):
    of, index = labels(3), torch.arange(3).repeat(2000)
    batches = latent_batches(encoded(3), of, 1.0, null, cond_dropout, None, SUPERCLASS_ROW, superclass)
    cond = batches(index, seeded())["cond"]
    dropped, lifted = cond == NULL, cond == SUPERCLASS_ROW[of[index]]
    assert dropped.double().mean().item() == pytest.approx(cond_dropout if null else 0, abs=0.02)
    assert lifted.double().mean().item() == pytest.approx(superclass, abs=0.02)
    kept = ~dropped & ~lifted
    assert torch.equal(cond[kept], of[index][kept]) and torch.equal(of, labels(3))


def test_without_superclasses_a_batch_is_the_one_it_was():
    """The same random numbers decide about null and superclass, so that old seeds keep their batches."""
    index = torch.arange(3).repeat(50)
    old, new = (
        latent_batches(encoded(3), labels(3), 1.0, NULL, 0.3, None, *more)(index, seeded())
        for more in ((), (SUPERCLASS_ROW, 0.0))
    )
    assert torch.equal(old["cond"], new["cond"]) and torch.equal(old["x0"], new["x0"])


def test_dropped_captions_are_the_empty_one():
    """Of a table of conditions, one for each different caption and the empty one the last."""
    mean = torch.zeros(4, 1, 1, 2, 2)
    cache = type("Cache", (), {"mean": mean, "logvar": mean})()
    table, rows = torch.arange(3)[:, None], torch.tensor([0, 1, 1, 0])
    batch = latent_batches(cache, rows, 1.0, 2, 0.5, table=table)
    index = torch.arange(4).repeat(50)
    cond = batch(index, seeded())["cond"]
    assert cond.shape == (200, 1)
    cond = cond[:, 0]
    dropped = cond == 2
    assert 0.4 < dropped.float().mean() < 0.6
    assert torch.equal(cond[~dropped], rows[index[~dropped]])


def test_a_batch_has_the_maps_of_its_variants():
    mean = torch.zeros(3, 2, 1, 2, 2)
    cache = type("Cache", (), {"mean": mean, "logvar": mean})()
    weight = torch.arange(6.0)[:, None, None, None].expand(6, 1, 2, 2).reshape(3, 2, 1, 2, 2)
    batch = latent_batches(cache, torch.zeros(3, dtype=torch.long), 1.0, None, 0, {"weight": weight})
    index = torch.tensor([0, 1, 2, 2, 1, 0])
    values = batch(index, seeded())["weight"][:, 0, 0, 0]
    variant = torch.randint(2, (6,), generator=seeded())
    assert values.tolist() == (2 * index + variant).tolist() and variant.unique().tolist() == [0, 1]
    assert "weight" not in latent_batches(cache, torch.zeros(3, dtype=torch.long), 1.0, None, 0)(index, None)


@pytest.fixture
def vae(tiny):
    return weights.load(tiny / "vae.safetensors", expect="vae")


def run_encoder(vae):
    return encode(vae, images(["a"]), Images(flips="none", rotations="0").variants(), "", CPU)


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
