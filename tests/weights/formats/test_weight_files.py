"""Files as users have them: wrapped, sharded, cut short, hostile, or something else altogether."""

import argparse
import json
import os
import pickle
import struct
import zipfile
from collections import OrderedDict

import numpy
import pytest
import torch
from safetensors.torch import save_file

from weights.formats import pickled
from weights.formats.files import read, sniff


class Attack:
    """A pickle that would create a file, if anything ran it."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def saved(path, content, **options):
    torch.save(content, path, **options)
    return path


def names(path, **options):
    return set(read(path, **options)[0])


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 2700000000\n",
            "2,700,000,000 bytes of weights",
        ),
        (b"<!DOCTYPE html><html>not found</html>", "a web page of 37 bytes"),
        (b'{"error":"Repository not found"}', "a web page"),
        (b"GGUF\x03\x00\x00\x00", "a GGUF file"),
        (b"", "an empty file"),
        (b"hello, world", "b'hello, w' as its first bytes"),
        (pickle.dumps({"a": 1}), "a plain pickle"),
    ],
)
def test_other_files_are_named(tmp_path, head, message):
    (tmp_path / "w.safetensors").write_bytes(head)
    with pytest.raises(ValueError, match="expected") as error:
        read(tmp_path / "w.safetensors")
    assert message in str(error.value)
    assert "w.safetensors" in str(error.value)


def test_the_ending_does_not_matter(tmp_path):
    save_file({"a": torch.ones(2)}, tmp_path / "w.ckpt")
    assert sniff(tmp_path / "w.ckpt") == "safetensors"
    assert sniff(saved(tmp_path / "w.safetensors", {"a": torch.ones(2)})) == "torch"
    assert names(tmp_path / "w.ckpt") == names(tmp_path / "w.safetensors") == {"a"}


def test_no_such_file(tmp_path):
    with pytest.raises(ValueError, match="no such file"):
        read(tmp_path / "w.pt")


def test_cut_files_are_refused(tmp_path):
    whole = saved(tmp_path / "w.pt", {"a": torch.ones(1000)}).read_bytes()
    (tmp_path / "w.pt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="the download is incomplete"):
        read(tmp_path / "w.pt")
    save_file({"a": torch.ones(1000)}, tmp_path / "w")
    os.truncate(tmp_path / "w", 2000)
    with pytest.raises(ValueError, match="expected 4,072 bytes by its header, found 2,000"):
        read(tmp_path / "w")
    legacy = saved(tmp_path / "l.pt", {"a": torch.ones(1000)}, _use_new_zipfile_serialization=False).read_bytes()
    (tmp_path / "l.pt").write_bytes(legacy[:-100])
    with pytest.raises(ValueError, match="damaged checkpoint|not a readable checkpoint"):
        read(tmp_path / "l.pt")


@pytest.mark.parametrize("zipped", [True, False])
def test_a_hostile_pickle_is_not_run(tmp_path, zipped):
    content = {"state_dict": {"a": torch.ones(2)}, "x": Attack(tmp_path / "attacked")}
    path = saved(tmp_path / "w.ckpt", content, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=r"calls \w+\.system, expected only tensors"):
        read(path)
    assert not (tmp_path / "attacked").exists()


def test_a_hostile_pickle_in_another_disguise_is_not_run(tmp_path):
    class Setter:
        def __reduce__(self):
            return eval, (f"open({str(tmp_path / 'attacked')!r}, 'w')",)

    with pytest.raises(ValueError, match="eval"):
        read(saved(tmp_path / "w.pt", {"a": torch.ones(1), "b": Setter()}))
    assert not (tmp_path / "attacked").exists()


def test_damaged_opcodes_are_one_error(tmp_path):
    with zipfile.ZipFile(tmp_path / "w.pt", "w") as archive:
        archive.writestr("w/data.pkl", b"\x80\x02\x95garbage")
        archive.writestr("w/version", "3")
    with pytest.raises(ValueError, match=r"w\.pt: (damaged|not a readable) checkpoint"):
        read(tmp_path / "w.pt")


def test_other_archives_are_named(tmp_path):
    with zipfile.ZipFile(tmp_path / "w.pt", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(ValueError, match="without data.pkl"):
        read(tmp_path / "w.pt")
    with zipfile.ZipFile(tmp_path / "w.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("w/data.pkl", b"\x80\x02}.")
    with pytest.raises(ValueError, match="compressed members"):
        read(tmp_path / "w.pt")
    with zipfile.ZipFile(tmp_path / "w.pt", "w") as archive:
        archive.writestr("w/constants.pkl", b"")
    with pytest.raises(ValueError, match="TorchScript"):
        read(tmp_path / "w.pt")


def test_old_lightning_checkpoint(tmp_path):
    """Written with stand-ins of the real names: a class as a dict key, and numpy numbers among its values."""
    checkpoint_class = pickled.stand_in("pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint")
    import sys
    import types

    module = types.ModuleType("pytorch_lightning.callbacks.model_checkpoint")
    module.ModelCheckpoint = checkpoint_class
    parents = {name: types.ModuleType(name) for name in ("pytorch_lightning", "pytorch_lightning.callbacks")}
    sys.modules.update(parents | {module.__name__: module})
    try:
        saved(
            tmp_path / "w.ckpt",
            {
                "state_dict": {"a": torch.ones(2)},
                "epoch": 3,
                "callbacks": {checkpoint_class: {"best": numpy.float64(0.5), "count": numpy.int64(3)}},
            },
        )
    finally:
        for name in (*parents, module.__name__):
            del sys.modules[name]
    assert names(tmp_path / "w.ckpt") == {"a"}


def test_stand_ins_do_nothing():
    stand_in = pickled.stand_in("some.module.Name")
    instance = stand_in(1, key=2)
    instance.__setstate__({"a": 1})
    assert vars(instance) == {}
    assert (stand_in.__module__, stand_in.__qualname__) == ("some.module", "Name")


def test_the_official_training_checkpoint(tmp_path):
    args = argparse.Namespace(model="DiT-XL/2", num_classes=10)
    weights = {"model": OrderedDict(a=torch.zeros(2)), "ema": OrderedDict(a=torch.ones(2)), "opt": {"state": {}}}
    path = saved(tmp_path / "w.pt", weights | {"args": args})
    tensors, metadata = read(path)
    assert tensors["a"][0] == 1
    assert metadata == {"args": {"model": "DiT-XL/2", "num_classes": 10}}
    assert read(path, ema=False)[0]["a"][0] == 0
    assert names(saved(tmp_path / "e.pt", {"ema": {"a": torch.ones(2)}})) == {"a"}
    with pytest.raises(ValueError, match="found only ema"):
        read(tmp_path / "e.pt", ema=False)
    assert names(saved(tmp_path / "m.pt", {"model": {"module.a": torch.ones(2)}})) == {"a"}


def test_wrappers_and_prefixes(tmp_path):
    inner = {"module._orig_mod.a": torch.nn.Parameter(torch.ones(2)), "module._orig_mod.b": torch.ones(2)}
    path = saved(tmp_path / "w.pt", {"state_dict": {"state_dict": inner}, "epoch": 1})
    tensors, _ = read(path)
    assert tensors.keys() == {"a", "b"}
    assert not tensors["a"].requires_grad
    assert names(saved(path, {"module.a": torch.ones(1), "b": torch.ones(1)})) == {"module.a", "b"}
    assert names(saved(path, {"model.diffusion_model.a": torch.ones(1)})) == {"model.diffusion_model.a"}
    assert names(saved(path, {"a": torch.ones(1), "epoch": 3})) == {"a"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([torch.ones(1)], "expected a dict of tensors, found list"),
        ({}, "expected named dense tensors, found none"),
        ({"a": torch.eye(2).to_sparse()}, "expected named dense tensors, found a"),
        ({"encoder": {"a": torch.ones(1)}, "decoder": {}}, "several under other names: encoder, decoder"),
    ],
)
def test_contents_that_are_no_weights(tmp_path, content, message):
    with pytest.raises(ValueError, match=message):
        read(saved(tmp_path / "w.pt", content))


def test_legacy_files(tmp_path):
    path = saved(
        tmp_path / "w.pt", {"lin0.model.1.weight": torch.ones(1, 4, 1, 1)}, _use_new_zipfile_serialization=False
    )
    assert read(path)[0]["lin0.model.1.weight"].sum() == 4


def test_mapped_not_read(tmp_path):
    path = saved(tmp_path / "w.pt", {"a": torch.ones(4)})
    read(path)[0]["a"].zero_()
    assert read(path)[0]["a"].sum() == 4


# ---- folders


def shards(folder, variant="", missing=(), weight_map=None):
    folder.mkdir()
    where = {}
    for i in (1, 2):
        name = f"diffusion_pytorch_model{variant}-0000{i}-of-00002.safetensors"
        where[f"w{i}"] = name
        if i not in missing:
            save_file({f"w{i}": torch.full((2,), float(i))}, folder / name)
    index = {"metadata": {"total_size": 16}, "weight_map": where if weight_map is None else weight_map}
    (folder / f"diffusion_pytorch_model.safetensors.index{variant}.json").write_text(json.dumps(index))
    return folder


def test_shards(tmp_path):
    assert names(shards(tmp_path / "a")) == {"w1", "w2"}
    assert names(shards(tmp_path / "b", ".fp16"), variant="fp16") == {"w1", "w2"}
    (tmp_path / "b" / "diffusion_pytorch_model.safetensors.index.fp16.json").rename(
        tmp_path / "b" / "diffusion_pytorch_model.fp16.safetensors.index.json"
    )
    assert names(tmp_path / "b", variant="fp16") == {"w1", "w2"}
    with pytest.warns(UserWarning, match="no plain weights, reading .*fp16"):
        assert names(tmp_path / "b") == {"w1", "w2"}


def test_bad_indexes(tmp_path):
    with pytest.raises(ValueError, match=r"1 of 2 shards are missing: diffusion_pytorch_model-00002-of-00002"):
        read(shards(tmp_path / "a", missing=(2,)))
    with pytest.raises(ValueError, match=r"must lie beside its index, found '\.\./w'"):
        read(shards(tmp_path / "b", weight_map={"w1": "../w"}))
    with pytest.raises(ValueError, match="weight_map must be an object"):
        read(shards(tmp_path / "c", weight_map=[1]))
    first = "diffusion_pytorch_model-00001-of-00002.safetensors"
    with pytest.raises(ValueError, match="expected the 2 tensors of the index, found 1; the first difference is w9"):
        read(shards(tmp_path / "d", weight_map={"w1": first, "w9": first}))


def test_variants_and_endings(tmp_path):
    save_file({"plain": torch.ones(1)}, tmp_path / "diffusion_pytorch_model.safetensors")
    save_file({"half": torch.ones(1)}, tmp_path / "diffusion_pytorch_model.fp16.safetensors")
    saved(tmp_path / "diffusion_pytorch_model.bin", {"pickled": torch.ones(1)})
    (tmp_path / "config.json").write_text('{"a": 1}')
    assert read(tmp_path)[1] == {"config": {"a": 1}}
    assert names(tmp_path) == {"plain"}
    assert names(tmp_path, variant="fp16") == {"half"}
    with pytest.warns(UserWarning, match="no variant 'bf16', reading diffusion_pytorch_model.safetensors"):
        assert names(tmp_path, variant="bf16") == {"plain"}
    with pytest.raises(ValueError, match="must be a plain word"):
        read(tmp_path, variant="../x")
    (tmp_path / "diffusion_pytorch_model.safetensors").unlink()
    assert names(tmp_path) == {"pickled"}


def test_folders_without_weights(tmp_path):
    with pytest.raises(ValueError, match="found nothing"):
        read(tmp_path)
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(ValueError, match=r"found notes\.txt"):
        read(tmp_path)


def test_pipeline_folders(tmp_path):
    (tmp_path / "model_index.json").write_text('{"_class_name": "DiTPipeline"}')
    for part in ("transformer", "vae"):
        (tmp_path / part).mkdir()
        save_file({part: torch.ones(1)}, tmp_path / part / "diffusion_pytorch_model.safetensors")
    assert names(tmp_path) == {"transformer"}
    assert names(tmp_path, component="vae") == {"vae"}
    with pytest.raises(ValueError, match="expected unet, found transformer, vae"):
        read(tmp_path, component="unet")


@pytest.mark.parametrize("text", ["{", "[]", '{"a":' * 100_000])
def test_bad_json(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    save_file({"a": torch.ones(1)}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="config.json: (not valid JSON|expected a JSON object)"):
        read(tmp_path)


def test_a_header_that_lies_about_its_length(tmp_path):
    (tmp_path / "w").write_bytes(struct.pack("<Q", 1 << 62) + b"{}")
    with pytest.raises(ValueError, match="over the limit"):
        read(tmp_path / "w")
