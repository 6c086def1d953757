"""The arms of the downstream gain on three sets of images: which there are, and what each row says."""

import pytest

from data import load
from data.transforms import Transform
from metrics.downstream.folders import gain_table


def test_every_arm_has_its_accuracy_and_its_gain_over_both_baselines():
    few, fake, real = (load(f"generated:hazelnut/{split}/2", Transform(16)) for split in ("few", "oracle", "test"))
    table = gain_table(real, fake, few, seeds=2, steps=2)
    arms = table["gain"]
    assert set(arms) >= {"real", "real, strong", "real + synthetic", "real + shuffled", "synthetic"}
    assert arms["real"]["over real"] == 0 == arms["real, strong"]["over real, strong"]
    for row in arms.values():
        assert row["over real"] == pytest.approx(row["accuracy"] - arms["real"]["accuracy"])
        assert row["over real, +-"] >= 0 and 0 <= row["accuracy"] <= 1
    assert (table["real"], table["train"], table["samples"]) == (10, 10, 10)
    one = [images._replace(classes=["all"]) for images in (real, fake, few)]
    with pytest.raises(ValueError, match="needs two classes"):
        gain_table(*one, seeds=1)
