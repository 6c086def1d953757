"""TorchScript archives: the tensors of a program come out by name, and nothing of it runs."""

import pickle
import zipfile

import pytest
import torch
from torch import nn

from weights.formats.files import read


class Program(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Sequential(nn.Conv2d(2, 3, 2, bias=False), nn.LayerNorm(3)).half()
        self.table = nn.Parameter(torch.randn(4, 3))
        self.register_buffer("count", torch.tensor(7))
        self.size, self.none = [1, 2], torch.empty(0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.table.t()[:, : self.size[1]] * self.count


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_the_tensors_of_a_program(tmp_path):
    torch.manual_seed(0)
    program = Program()
    torch.jit.script(program).save(str(tmp_path / "p.pt"))
    found, expected = read(tmp_path / "p.pt")[0], program.state_dict()
    assert found.keys() == expected.keys() | {"none"}
    assert all(
        torch.equal(found[name], tensor) and found[name].dtype == tensor.dtype for name, tensor in expected.items()
    )


def archive(path, pickled):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("w/constants.pkl", b"")
        file.writestr("w/data.pkl", pickled)
        file.writestr("w/data/0", b"\0" * 8)
    return path


def test_a_pickle_cannot_ask_for_a_table_of_gigabytes(tmp_path):
    """5.7 GB for 9 kB, found by tests/long/fuzz.py."""
    with pytest.raises(ValueError, match="w.pt: a TorchScript archive that remembers an object as number 536,870,911"):
        read(archive(tmp_path / "w.pt", b"\x80\x02}r\xff\xff\xff\x1f."))


def rebuild(size, stride):
    """A pickle that asks for a tensor of this shape in 8 bytes of storage."""
    storage = b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x02tQ"
    return (
        b"\x80\x02c__torch__\nA\n)\x81}X\x01\0\0\0actorch._utils\n_rebuild_tensor_v2\n("
        + storage
        + b"K\0(K%ct(K%ctN}tRsb." % (bytes([size]), bytes([stride]))
    )


def test_a_tensor_must_lie_within_its_storage(tmp_path):
    assert read(archive(tmp_path / "w.pt", rebuild(2, 1)))[0]["a"].tolist() == [0, 0]
    with pytest.raises(ValueError, match=r"w.pt: damaged TorchScript archive: RuntimeError"):
        read(archive(tmp_path / "w.pt", rebuild(200, 1)))


class Evil:
    def __reduce__(self):
        return eval, ("open('attacked', 'w')",)


@pytest.mark.parametrize(
    "content, message",
    [
        (pickle.dumps(Evil(), 2), "calls __builtin__.eval, expected modules and tensors only"),
        (b"\x80\x02ctorch.serialization\nload\n.", "calls torch.serialization.load"),
        (b"\x80\x02ctorch\nload\n.", "calls torch.load"),
        (pickle.dumps([1, 2], 2), "damaged TorchScript archive: TypeError"),
        (b"\x80\x02\x95garbage", "damaged TorchScript archive"),
        (b"\x80\x02c__torch__\nA\n)\x81.", "expected named dense tensors, found none"),
    ],
)
def test_what_is_more_or_less_than_modules_is_refused(tmp_path, monkeypatch, content, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=f"w.pt: .*{message}"):
        read(archive(tmp_path / "w.pt", content))
    assert not (tmp_path / "attacked").exists()


def test_a_compressed_archive_is_refused_before_it_is_read(tmp_path):
    with zipfile.ZipFile(tmp_path / "w.pt", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("w/constants.pkl", b"")
        file.writestr("w/data.pkl", rebuild(2, 1))
        file.writestr("w/data/0", b"\0" * 10_000_000)
    with pytest.raises(ValueError, match=r"w.pt: compressed members \(w/data.pkl, ...\)"):
        read(tmp_path / "w.pt")


def test_an_archive_has_a_limit_of_members(tmp_path, monkeypatch):
    monkeypatch.setattr("weights.formats.pickled.MEMBERS", 2)
    with pytest.raises(ValueError, match="w.pt: an archive of 3 members, at most 2 are read"):
        read(archive(tmp_path / "w.pt", rebuild(2, 1)))


def test_members_that_overlap_are_refused(tmp_path):
    archive(tmp_path / "w.pt", rebuild(2, 1))
    data = bytearray((tmp_path / "w.pt").read_bytes())
    at = data.rindex(b"w/data/0") - 46  # its entry in the table of contents: sizes at 20 and 24
    for place in (20, 24):
        data[at + place : at + place + 4] = (10**9).to_bytes(4, "little")
    (tmp_path / "w.pt").write_bytes(data)
    with pytest.raises(ValueError, match="w.pt: members of 1,000,.* bytes in an archive of .*they overlap"):
        read(tmp_path / "w.pt")
