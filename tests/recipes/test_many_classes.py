"""Ten thousand classes with superclasses, as FineDiffusion has them: a file of their rows, and a resumed run."""

import os

import pytest
from PIL import Image

import train
import weights
from tests.test_train import flags, killed_before

SUPERCLASSES, EACH = 100, 100


@pytest.fixture(scope="module")
def species(tmp_path_factory):
    """A folder of 10,000 classes in 100 superclasses, one small photograph each."""
    folder = tmp_path_factory.mktemp("species")
    Image.new("RGB", (16, 16), (40, 90, 20)).save(folder / "one.png")
    for i in range(SUPERCLASSES):
        for j in range(EACH):
            (folder / "all" / f"family{i:02d}" / f"species{j:02d}").mkdir(parents=True)
            os.link(folder / "one.png", folder / "all" / f"family{i:02d}" / f"species{j:02d}" / "0.png")
    return folder / "all"


def test_ten_thousand_classes_are_stored_without_bloat_and_resume(tiny, species, tmp_path, monkeypatch):
    monkeypatch.setattr("training.page.nearest.MOST", 200)  # embedding 5,000 images is not what is tested
    settings = ["--data", str(species), *"--superclass 0.1 --flips none --rotations 0 --batch 8 --steps 3".split()]
    settings += ["--cache", str(tmp_path / "cache"), *"--save-every 1 --sample-every 3 --size 16".split()]
    argv = {name: flags(tiny, tmp_path / name, *settings, without={"val"}) for name in ("whole", "killed")}
    train.main(argv["whole"])
    killed_before(2, argv["killed"])
    train.main(["--resume", "--out", str(tmp_path / "killed")])
    whole, resumed = ((tmp_path / name / "adapter.safetensors") for name in argv)
    assert whole.read_bytes() == resumed.read_bytes()
    tensors, header = weights.load_adapter(whole)
    assert len(header["classes"]) == SUPERCLASSES * (EACH + 1) and header["sources"] is None
    rows = sum(tensor.nbytes for tensor in tensors.values())
    names = sum(len(name) + 4 for name in [*header["classes"], *header["parents"], *header["parents"].values()])
    assert whole.stat().st_size < rows + 1.2 * names + 10_000
    dit = weights.load(tiny / "dit.safetensors")
    weights.apply_adapters(dit, [(str(whole), 1.0)])
    assert dit.config.num_classes == len(header["classes"]) and dit.parents["family07/species03"] == "family07"
