"""What a run is made of: each part has a digest of its own, which every change of that part changes."""

import numpy as np
import pytest
import torch

from recipes.images.made_of import made_of
from tests.fakes import images
from unet import VAE, VAEConfig

SMALL = VAEConfig(latent_channels=2, channels=(8,), layers=1, groups=4)


def vae(seed):
    torch.manual_seed(seed)
    return VAE(SMALL)


def digests(tmp_path, **changes):
    """The digests as {(kind, part): digest}, of images with these changes and the other things they are made with."""
    plain = images(["a", "b"])._replace(masks=np.zeros((4, 16, 16), bool))
    fields = {name: changes.pop(name) for name in list(changes) if name in plain._fields}
    for name, content in (("one", b"1"), ("two", b"2")):
        (tmp_path / name).write_bytes(content)
    given = {"base": {"structure": "s", "content": "c"}, "vae": vae(0), "init": [tmp_path / "one"], "tokens": b"t"}
    made = made_of(plain._replace(**fields), "source", **given | changes)
    return {(kind, part): value for kind, parts in made.items() for part, value in parts.items()}


@pytest.mark.parametrize(
    "change, kind, part",
    [
        ({"pixels": np.ones((4, 16, 16, 3), np.uint8)}, "data", "pixels"),
        ({"masks": np.ones((4, 16, 16), bool)}, "data", "masks"),
        ({"labels": torch.tensor([0, 1, 0, 1])}, "data", "labels"),
        ({"names": ["0", "0", "1", "2"]}, "data", "files"),
        ({"classes": ["a", "c"]}, "classes", "names"),
        ({"parents": {"a": "x"}}, "classes", "superclasses"),
        ({"base": {"structure": "t", "content": "c"}}, "base", "model"),
        ({"base": {"structure": "s", "content": "d"}}, "base", "model"),
        ({"vae": vae(1)}, "base", "autoencoder"),
        ({"init": ["two"]}, "base", "init files"),
        ({"tokens": b"u"}, "base", "tokens"),
    ],
)
def test_a_change_of_one_part_changes_its_digest_alone(tmp_path, change, kind, part):
    if "init" in change:
        change = {"init": [tmp_path / name for name in change["init"]]}
    before, after = digests(tmp_path), digests(tmp_path, **change)
    assert {key for key in before if before[key] != after[key]} == {(kind, part)}


def test_captions_stand_for_classes(tmp_path):
    one, two = (digests(tmp_path, captions=[text] * 4) for text in ("a", "b"))
    assert {key for key in one if one[key] != two[key]} == {("data", "captions")}
    assert not any(kind == "classes" for kind, _ in one)
