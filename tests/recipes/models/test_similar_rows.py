"""Which old class a new one looks like most: by images of it, by its name, and what is said where neither is known."""

from types import SimpleNamespace

import pytest
import torch

from data import load
from data.transforms import Transform, to_tensor
from metrics.networks import features
from recipes.models import similar_rows as module
from recipes.models.similar_rows import similar_rows
from weights.formats.published import SHIPPED


@pytest.fixture(scope="module")
def bottles():
    """Few images of every class, others of the same, and the shipped network."""
    few, others = (load(f"generated:bottle/{split}/3", Transform(64)) for split in ("few", "val"))
    return few, others, features.load_classifier(SHIPPED / "tiny-features" / "model.safetensors")


def test_the_head_of_the_network_stands_for_old_classes(bottles):
    own, _, (_, names) = bottles
    old = [name for name in names if name not in own.classes][:9] + own.classes[::-1]
    count = len(own.classes)
    assert similar_rows(own, None, old, len(old)) == list(range(8 + count, 8, -1))  # each is most like itself


def test_images_of_old_classes_stand_for_them(bottles):
    images, others, (network, _) = bottles
    count = len(images.classes)
    assert similar_rows(images, others, images.classes[::-1], count) == list(range(count))[::-1]
    assert similar_rows(images, others, None, count) == list(range(count))

    with torch.no_grad():  # the formula, class by class
        own, theirs = (network.features(to_tensor(of.pixels)) for of in (images, others))
    means = [
        [sum(f.clamp(min=0) / f.norm() for f, y in zip(all_f, of.labels) if y == label) for label in range(count)]
        for all_f, of in ((own, images), (theirs, others))
    ]
    closer = [
        int(torch.cosine_similarity(f, means[1][3], 0) < torch.cosine_similarity(f, means[1][1], 0)) for f in means[0]
    ]
    assert similar_rows(images, others, [images.classes[3], images.classes[1]], 2) == closer


@pytest.mark.parametrize(
    "old, rows, given, message",
    [
        (
            ["bottle/good", "street/fog"],
            2,
            False,
            "tiny-features does not know 'street/fog', a class of the checkpoint",
        ),
        (
            ["pill/a", "pill/b"],
            2,
            True,
            "its images are of bottle/.*, and the checkpoint knows other classes, as pill/a",
        ),
        (
            None,
            1000,
            False,
            "names none of its 1000 classes; features:DATA takes images of 1000 classes, in their order",
        ),
        (
            None,
            1000,
            True,
            "names none of its 1000 classes; features:DATA takes images of 1000 classes, in their order",
        ),
    ],
)
def test_old_classes_that_nothing_is_known_of_are_one_sentence(bottles, old, rows, given, message):
    images, others, _ = bottles
    with pytest.raises(ValueError, match=f"class_init features: {'the checkpoint ' if old is None else ''}{message}"):
        similar_rows(images, others if given else None, old, rows)


def test_images_of_some_of_many_classes_are_enough(bottles):
    """ImageNet's 1000 rows, and a folder of few classes by one of their words: only these are compared."""
    images, others, _ = bottles
    named = others._replace(classes=[f"word {i}" for i in range(len(others.classes))])
    old = [f"class {i}, word {i}" for i in range(len(others.classes) + 20)][::-1]
    last = len(old) - 1
    assert similar_rows(images, named, old, len(old)) == [last - i for i in range(len(images.classes))]
    two = others._replace(classes=["twin", *others.classes[1:]])
    with pytest.raises(ValueError, match=r"class_init features: class 'twin' is one of several: it is a word of"):
        similar_rows(images, two, ["a, twin", "b, twin"], 2)


def test_a_clip_compares_images_with_the_names_of_classes(bottles, monkeypatch):
    """f_k is the feature of "a photo of a k", k any word of the class; the images' features are CLIP's too."""
    images, _, (network, _) = bottles
    vectors = torch.eye(4)
    texts = {
        "a photo of a horse chestnut": 2,
        "a photo of a conker": 0,
        "a photo of a screw": 1,
        "a photo of a bolt": 3,
    }
    shown = torch.tensor([2, 3, 0])  # the vector that each of three classes of images looks like
    labels = images.labels[images.labels < 3]
    few = images._replace(pixels=images.pixels[(images.labels < 3).numpy()], labels=labels, classes=images.classes[:3])
    clip = SimpleNamespace(
        name="CLIP",
        embed=lambda x: 5 * vectors[shown[labels]],
        texts=lambda words: torch.stack([vectors[texts[word]] for word in words]),
    )
    monkeypatch.setattr(
        module, "load_network", {"clip-file": clip, "dino": SimpleNamespace(name="DINO", texts=None)}.get
    )
    old = ["nut/horse chestnut, conker", "screw, bolt"]
    assert similar_rows(few, None, old, 2, "clip-file") == [0, 1, 0]
    with pytest.raises(ValueError, match="class_init features: DINO reads no names of classes, as a CLIP does"):
        similar_rows(few, None, old, 2, "dino")
    with pytest.raises(ValueError, match="tiny-features does not know 'nut/horse chestnut, conker'"):
        similar_rows(few, None, old, 2, "patches")
