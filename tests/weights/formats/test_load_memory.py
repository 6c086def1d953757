"""Memory of one load: less than 1.2 times the file and 200 MB more, for a large honest file of each container."""

import sys
import warnings

import pytest
import torch

from tests.long.memory import taken
from weights.convert import convert
from weights.formats import files, safe
from weights.models.save import export

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/proc")
NUMBERS = 75_000_000  # 300 MB: a second copy of them is beyond the limit


def write(kind, path):
    tensors = {"large": torch.ones(NUMBERS), "small": torch.arange(10.0)}
    if kind == "safetensors":
        safe.write(path, tensors, {})
    elif kind == "TorchScript":
        program = torch.nn.Module()
        for name, tensor in tensors.items():
            program.register_buffer(name, tensor)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.jit.script(program).save(str(path))
    else:
        torch.save(tensors, path, _use_new_zipfile_serialization=kind == "torch.save")


@pytest.mark.parametrize("kind", ["safetensors", "torch.save", "torch.save before 1.6", "TorchScript"])
def test_a_load_takes_about_its_file(tmp_path, kind):
    path = tmp_path / "file"
    write(kind, path)

    def load():
        tensors = files.read(path)[0]
        assert sorted(tensors) == ["large", "small"] and tensors["large"][::1000].sum() == NUMBERS / 1000

    assert taken(load) < 1.2 * path.stat().st_size + 200_000_000


@pytest.mark.parametrize("layout, suffix", [("native", ".safetensors"), ("dit-official", ".pt"), ("dit-diffusers", "")])
def test_a_conversion_takes_about_its_file(tmp_path, layout, suffix):
    from dit import DiT, DiTConfig

    shape = DiTConfig(depth=1, width=256, heads=2, patch=2, input_size=4, num_classes=290_000)
    export(DiT(shape), tmp_path / "model.safetensors", "dit-official")
    size = (tmp_path / "model.safetensors").stat().st_size

    def work():
        convert(tmp_path / "model.safetensors", tmp_path / f"out{suffix}", layout, heads=2)

    assert size > 300_000_000 and taken(work) < 1.2 * size + 200_000_000
