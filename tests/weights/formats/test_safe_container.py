"""The safetensors container: both ways against the reference library, and every contradiction a header can hold."""

import copy
import io
import json
import struct

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from weights.formats import safe


def specimen():
    return {str(dtype): torch.arange(6).reshape(2, 3).to(dtype) for dtype in safe.DTYPES.values()}


def raw(path, table, data=b"", tail=b""):
    text = table if isinstance(table, bytes) else json.dumps(table).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data + tail)
    return path


def entry(dtype="F32", shape=(2,), offsets=(0, 8)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def test_reads_what_the_reference_writes(tmp_path):
    save_file(specimen() | {"scalar": torch.tensor(3.0), "none": torch.zeros(0, 4)}, tmp_path / "a", {"who": "me"})
    tensors, metadata = safe.read(tmp_path / "a")
    assert metadata == {"who": "me"}
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in load_file(tmp_path / "a").items())
    assert tensors["none"].shape == (0, 4)
    assert tensors["scalar"].shape == ()


def test_the_reference_reads_what_we_write(tmp_path):
    strided = torch.arange(12.0).reshape(3, 4).T
    tensors = specimen() | {
        "scalar": torch.tensor(3.0),
        "none": torch.zeros(0, 4),
        "strided": strided,
        "again": strided,
    }
    safe.write(tmp_path / "a", tensors, {"format": "pt"})
    found = load_file(tmp_path / "a")
    assert found.keys() == tensors.keys()
    assert all(
        torch.equal(found[name], tensor) and found[name].dtype == tensor.dtype for name, tensor in tensors.items()
    )
    with safe_open(tmp_path / "a", "pt") as file:
        assert file.metadata() == {"format": "pt"}
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_the_smallest_file_is_byte_equal_to_the_reference(tmp_path):
    raw(tmp_path / "a", {"a": entry(shape=(100,), offsets=(0, 400))}, bytes(400))
    assert safe.read(tmp_path / "a")[0]["a"].shape == (100,)
    save_file({"a": torch.zeros(100)}, tmp_path / "b")
    assert (tmp_path / "b").stat().st_size == 472
    assert torch.equal(safe.read(tmp_path / "b")[0]["a"], torch.zeros(100))


def test_dtype_converts_only_floating_tensors(tmp_path):
    safe.write(tmp_path / "a", {"w": torch.rand(3), "i": torch.arange(3)}, {}, torch.float16)
    found = load_file(tmp_path / "a")
    assert (found["w"].dtype, found["i"].dtype) == (torch.float16, torch.int64)


def test_a_failed_write_leaves_the_old_file(tmp_path):
    safe.write(tmp_path / "a", {"w": torch.ones(3)}, {})
    with pytest.raises(NotImplementedError):  # a meta tensor has no values to write
        safe.write(tmp_path / "a", {"w": torch.ones(3, device="meta")}, {})
    assert torch.equal(safe.read(tmp_path / "a")[0]["w"], torch.ones(3))
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_writing_to_a_tensor_never_changes_the_file(tmp_path):
    safe.write(tmp_path / "a", {"w": torch.ones(3)}, {})
    safe.read(tmp_path / "a")[0]["w"].zero_()
    assert torch.equal(safe.read(tmp_path / "a")[0]["w"], torch.ones(3))


def test_one_tensor_does_not_drag_the_file_along(tmp_path):
    safe.write(tmp_path / "a", {"w": torch.ones(3), "large": torch.zeros(100_000)}, {})
    w = safe.read(tmp_path / "a")[0]["w"]
    buffer = io.BytesIO()
    torch.save(w, buffer)
    assert buffer.tell() < 10_000
    assert copy.deepcopy(w).untyped_storage().nbytes() == 12


def test_an_odd_address_is_read_by_a_copy(tmp_path):
    table = json.dumps({"a": entry()}).encode()
    raw(tmp_path / "a", table + b" " * (3 - len(table) % 2), struct.pack("<2f", 1, 2))
    assert torch.equal(safe.read(tmp_path / "a")[0]["a"], torch.tensor([1.0, 2.0]))


HOSTILE = {
    "needs 8 bytes, its offsets 0..12 hold 12": ({"a": entry(offsets=(0, 12))}, bytes(12)),
    "expected to begin at 0, found 4": ({"a": entry(offsets=(4, 12))}, bytes(12)),
    "overlaps the tensor before it": ({"a": entry(), "b": entry(offsets=(4, 12))}, bytes(12)),
    "something was appended": ({"a": entry()}, bytes(9)),
    "the download is incomplete": ({"a": entry()}, bytes(7)),
    "known are F64": ({"a": entry(dtype="F3")}, bytes(8)),
    "dtype ['F32']": ({"a": entry(dtype=["F32"])}, bytes(8)),
    "no natural number": ({"a": entry(shape=(-2,), offsets=(0, -8))}, b""),
    "a shape or offset": ({"a": entry(shape=(True, 2))}, bytes(8)),
    "needs dtype, shape and two data_offsets": ({"a": {"dtype": "F32"}}, b""),
    "two data_offsets": ({"a": 3}, b""),
    "occurs twice": (b'{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"a":{}}', b""),
    "not valid JSON": (b"{{", b""),
    "must be a JSON object": (b"[]", b""),
    "must map strings to strings": ({"__metadata__": {"a": 1}}, b""),
    "header is not valid JSON": (b'{"a":' + b"[" * 100_000, b""),
}


@pytest.mark.parametrize("message", HOSTILE)
def test_a_hostile_header_is_refused(tmp_path, message):
    table, data = HOSTILE[message]
    with pytest.raises(ValueError) as error:
        safe.read(raw(tmp_path / "a", table, data))
    assert message in str(error.value)
    assert str(tmp_path / "a") in str(error.value)


def test_header_lengths(tmp_path):
    (tmp_path / "a").write_bytes(struct.pack("<Q", 2**40) + b"{}")
    with pytest.raises(ValueError, match="over the limit of 100,000,000"):
        safe.read(tmp_path / "a")
    (tmp_path / "a").write_bytes(struct.pack("<Q", 500) + b"{}")
    with pytest.raises(ValueError, match="at least 508 bytes, found 10"):
        safe.read(tmp_path / "a")
    (tmp_path / "a").write_bytes(b"{}")
    with pytest.raises(ValueError, match="cut off inside its header"):
        safe.read(tmp_path / "a")


def test_a_header_that_no_reader_would_take_is_not_written(tmp_path, monkeypatch):
    monkeypatch.setattr(safe, "HEADER_LIMIT", 1000)
    with pytest.raises(ValueError, match="over the limit of 1,000, nothing was written"):
        safe.write(tmp_path / "a.safetensors", {"a": torch.zeros(1)}, {"long": "x" * 1000})
    assert not list(tmp_path.iterdir())
