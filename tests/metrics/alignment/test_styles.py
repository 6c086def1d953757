"""Shares of styles: by CLIP's nearest text, and by the class that a classifier sees."""

import pytest
import torch

from metrics.alignment.styles import shares
from metrics.networks.registry import Network

IMAGES = torch.zeros(4, 3, 8, 8)


def test_each_sample_has_the_style_of_the_nearest_text():
    texts = {"a photo": [3.0, 0.0], "a cartoon": [0.0, 0.1]}  # lengths say nothing
    features = torch.tensor([[1.0, 0.1], [0.2, 5.0], [2.0, 1.0], [0.4, 0.3]])
    clip = Network("CLIP", lambda x: features, texts=lambda words: torch.tensor([texts[word] for word in words]))
    styles = {"network": "clip", "real": "a photo", "drawn": "a cartoon"}
    assert shares(clip, IMAGES, styles) == {"real": 0.75, "drawn": 0.25}


def test_a_classifier_counts_the_classes_of_a_style_and_the_rest():
    classes = ("nut/good", "nut/crack", "pill/good", "tile/good")
    logits = torch.eye(4)[[0, 1, 1, 3]]
    classifier = Network("small", lambda x: x, lambda x: logits, classes)
    styles = {"network": "small", "whole": "nut/good", "a nut": "nut/*, pill/*"}
    assert shares(classifier, IMAGES, styles) == {"whole": 0.25, "a nut": 0.5, "other": 0.25}
    with pytest.raises(ValueError, match="styles: 'bolt/.' fits no class of small, as 'nut/good' is one"):
        shares(classifier, IMAGES, {"bolt": "bolt/*"})
    with pytest.raises(ValueError, match="DINO knows neither texts, as a CLIP does, nor names of classes"):
        shares(Network("DINO", lambda x: x), IMAGES, {"bolt": "bolt/*"})
