"""Class labels as the condition of a DiT: its class table, its superclasses, the side of its images, what trains."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import adapters
import weights
from config.training import Images, Sampling, Superclasses
from dit import DiT
from ops.device import Compute
from ops.random import generator_for
from recipes.conditions.classes import Classes, new_classes
from recipes.models.class_rows import fit_classes, row_names
from recipes.models.loading import Checkpoint, load_dit, new_dit
from tests.fakes import encoded, images

TABLE = "y_embedder.embedding_table.weight"
NUTS = ["nut/good", "nut/hole", "pin/good"]
PARENTS = {"nut/good": "nut", "nut/hole": "nut", "pin/good": "pin"}
CPU = Compute(torch.device("cpu"), "fp32")
DATA = Images(data="generated:hazelnut/few/1", flips="none", rotations="0")


@pytest.fixture
def vae(tiny):
    return weights.load(tiny / "vae.safetensors", expect="vae")


@pytest.fixture
def dit(tiny):
    return weights.load(tiny / "dit.safetensors", expect="dit")


def condition(dit, vae, data):
    return Classes(dit, vae, (data, None), encoded(len(data.names)), {}, DATA, "", CPU)


def attached(dit, vae, specs, seed=0):
    """What trains of the model with the specs and what the condition adds to them."""
    specs = condition(dit, vae, images(dit.classes)).methods(specs)
    adapters.attach(dit, specs, generator_for(seed, -2))
    return specs, adapters.trainable_parameters(dit)


@pytest.mark.parametrize(
    "specs, expected",
    [
        (["lora:rank=2"], ["lora:rank=2", "classes"]),
        (["bitfit", "norm"], ["bitfit", "norm", "classes"]),
        (["full"], ["full"]),
        (["classes"], ["classes"]),
        (["difffit:blocks=1"], ["difffit:blocks=1"]),
        (["lora:rank=2", "classes"], ["lora:rank=2", "classes"]),
    ],
)
def test_the_class_table_trains_with_every_adapter(dit, vae, specs, expected):
    before = list(specs)
    added, trained = attached(dit, vae, specs)
    assert added == expected and specs == before
    assert TABLE in trained


def test_the_row_of_each_class_and_of_its_superclass(dit, vae):
    data = images(NUTS)._replace(parents=PARENTS)
    fit_classes(dit, vae, data, encoded(6), "name", DATA, 0)
    assert condition(dit, vae, data).superclass_row.tolist() == [3, 3, 4]
    assert condition(dit, vae, images(NUTS)).superclass_row is None
    assert condition(dit, vae, images(NUTS[::-1])).rows.tolist() == [2, 1, 0]  # by name, whatever the images' order
    dit.classes = None
    assert condition(dit, vae, images(["4", "0"])).rows.tolist() == [4, 0]


def test_the_side_of_the_images_is_the_models_or_the_asked_one(tiny, vae):
    assert load_dit(Checkpoint(str(tiny / "dit.safetensors")), 0, vae, CPU)[1] == 16
    model, side = load_dit(Checkpoint(str(tiny / "dit.safetensors")), 32, vae, CPU)
    assert side == 32 and model.config.input_size == 8


def prepared(tiny, model, settings=DATA, superclasses=None):
    """Labelled images and a model for them, with random weights where its name is new:SIZE."""
    vae, options = str(tiny / "vae.safetensors"), superclasses or Superclasses()
    return new_classes(Checkpoint(model), vae, settings, "", options, "name", 0, "", CPU)


def test_a_new_model_has_the_asked_side_and_the_images_classes(tiny):
    made = prepared(tiny, "new:DiT-T/2", Images(data=DATA.data, size=64, flips="none", rotations="0"))
    assert made.images.pixels.shape[1:] == (64, 64, 3) and made.latent_shape == (4, 16, 16)
    assert made.model.classes == made.images.classes
    assert made.header == {"classes": made.images.classes, "parents": None}


def test_a_new_model_fits_the_latents_and_knows_its_classes(vae):
    with torch.device("meta"):
        model = new_dit(Checkpoint("new:DiT-T/2"), vae, 64, ["a", "b"])
    assert (model.config.input_size, model.config.in_channels, model.classes) == (16, 4, ["a", "b"])


def test_what_does_not_fit_is_one_sentence(tiny, vae):
    with pytest.raises(ValueError, match="unknown size 'DiT-Q'; new models are new:DiT-S/2"):
        new_dit(Checkpoint("new:DiT-Q"), vae, 64, ["a"])
    vae.config.latent_channels = 6
    with pytest.raises(ValueError, match="works on latents of 4 channels, .* makes 6"):
        load_dit(Checkpoint(str(tiny / "dit.safetensors")), 0, vae, CPU)


def test_superclasses_of_the_data_count_only_where_they_are_asked_for(tiny):
    """Folders superclass/class name them; a run without `superclass` trains none, and its file says so."""
    assert row_names(images(NUTS)._replace(parents=PARENTS)) == [*NUTS, "nut", "pin"]
    assert row_names(images(NUTS)) == NUTS
    plain = prepared(tiny, str(tiny / "dit.safetensors"))
    states = plain.images.classes
    assert plain.images.parents == plain.model.parents == {} and plain.superclass_row is None
    assert plain.header["parents"] is None and plain.model.classes == states
    lifted = prepared(tiny, str(tiny / "dit.safetensors"), superclasses=Superclasses(superclass=0.1))
    assert lifted.images.parents == lifted.header["parents"] == dict.fromkeys(states, "hazelnut")
    assert lifted.superclass_row.tolist() == [5] * 5 and lifted.header["classes"] == [*states, "hazelnut"]


def test_classes_without_a_superclass_are_named(tiny, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (16, 16)).save(tmp_path / name / "0.png")
    with pytest.raises(ValueError, match="the images' folders: no superclass of 2 of 2 classes"):
        prepared(tiny, str(tiny / "dit.safetensors"), Images(data=str(tmp_path)), Superclasses(superclass=0.1))


def test_the_seed_decides_what_an_adapter_starts_from(tiny, vae):
    def downs(seed):
        model = weights.load(tiny / "dit.safetensors")
        trained = attached(model, vae, ["lora:rank=2"], seed)[1]
        return torch.cat([p.flatten() for name, p in trained.items() if name.endswith("lora_down")])

    assert torch.equal(downs(0), downs(0)) and not torch.equal(downs(0), downs(1))


def test_every_image_has_the_condition_and_the_latent_of_its_own(dit, vae):
    """Batches of the condition itself: no label is replaced without an objective that asks for it."""
    made = condition(dit, vae, images(list(dit.classes)))
    batch = made.batches()(torch.arange(10), torch.Generator().manual_seed(0))
    assert batch["cond"].tolist() == made.rows[made.images.labels].tolist() and batch.keys() == {"x0", "cond"}
    assert isinstance(made.model, DiT) and made.kinds() == [name for name in dit.classes for _ in range(2)]


def test_labels_are_rows_of_the_model_whatever_the_order_of_the_images(dit, vae):
    made = condition(dit, vae, images(list(dit.classes)[::-1]))
    batch = made.batches()(torch.arange(10), torch.Generator().manual_seed(0))
    assert batch["cond"].tolist() == [4, 4, 3, 3, 2, 2, 1, 1, 0, 0]


def test_hints_are_scaled_as_latents_are(dit, vae):
    data = images(list(dit.classes))._replace(masks=np.ones((10, 16, 16), bool))
    which = torch.arange(10), 0
    plain = condition(dit, vae, data).hints[which]
    vae.config = replace(vae.config, scaling_factor=0.25)
    torch.testing.assert_close(condition(dit, vae, data).hints[which], 0.25 * plain)


def test_samples_are_led_away_from_their_superclass_where_there_is_one(dit, vae, monkeypatch):
    away = []
    monkeypatch.setattr("recipes.conditions.classes.batched_cfg", lambda model, cond, null, scale: away.append(null))
    monkeypatch.setattr("recipes.conditions.classes.sample_images", lambda *_: None)
    data = images(NUTS)._replace(parents=PARENTS)
    fit_classes(dit, vae, data, encoded(6), "name", DATA, 0)
    for of in (data, images(NUTS)):
        condition(dit, vae, of).sample(torch.tensor([2, 0]), Sampling(), 0)
    assert away[0].tolist() == [4, 3] and away[1] == dit.null
