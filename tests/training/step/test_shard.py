"""A model divided over two and four processes: the losses and files of one, a part of everything in each, resuming."""

import json
import shutil

import pytest
import torch

import train
import weights
from ops.machine import process
from tests.test_train import flags
from tests.torchrun import torchrun
from tests.training.step.test_together import losses
from training.step.shard import check_shard, gathered, own, whole
from weights.formats import safe

STEP = ("--batch", "4", "--accumulate", "4", "--steps", "4", "--sample-every", "2", "--save-every", "2")
FULL = (*STEP, "--adapter", "full")
SPIED = """
import json, os, signal, sys
sys.path.insert(0, os.getcwd())
import train

rank, clip, save, held = int(os.environ["RANK"]), train.clip, train.save_state, {}

def parts(tensors):
    return [(t.to_local().numel(), t.numel(), t.numel() // len(t)) for t in tensors]

def clipped(model, optimizer, largest):
    held["gradients"] = parts(p.grad for p in model.parameters() if p.requires_grad)
    return clip(model, optimizer, largest)

def saved(run, state, step):
    held["weights"] = parts(state.parameters.values())
    held["average"], held["best"] = parts(state.ema.values()), parts(state.best.values())
    for key in ("exp_avg", "exp_avg_sq"):
        held[key] = parts(state.optimizer.state[p][key] for p in state.parameters.values())
    (run / f"parts-{rank}.json").write_text(json.dumps(held))
    save(run, state, step)
    if "DIES" in os.environ and (step, rank, os.environ["TORCHELASTIC_RESTART_COUNT"]) == (2, 1, "0"):
        os.kill(os.getpid(), signal.SIGKILL)

train.clip, train.save_state = clipped, saved
train.main(sys.argv[1:])
"""


@pytest.fixture(scope="module")
def runs(tiny, tmp_path_factory):
    """The same settings in one process, whole, and divided over two and over four."""
    folder = tmp_path_factory.mktemp("shard")
    spied = folder / "spied.py"
    spied.write_text(SPIED)
    more = (*FULL, "--keep", "best", "--cache", str(folder / "cache"))
    train.main(flags(tiny, folder / "1", *more))
    for count in (2, 4):
        done = torchrun(count, *flags(tiny, folder / str(count), *more, "--shard"), script=str(spied))
        assert done.returncode == 0, done.stdout
    return folder


def close(one, other):
    """Whether two files of tensors hold the same but for rounding, under the same names and header."""
    (ours, about), (theirs, too) = safe.read(one), safe.read(other)
    same = all(torch.allclose(ours[name], theirs[name], rtol=1e-3, atol=5e-5) for name in ours)
    return ours.keys() == theirs.keys() and same and (about == too or "checkpoint" in str(one))


@pytest.mark.parametrize("count", [2, 4])
def test_a_divided_model_takes_the_steps_of_a_whole_one(runs, count):
    one, several = (torch.tensor(losses(runs / str(n))) for n in (1, count))
    assert one.shape == (4, 2) and torch.allclose(one, several, rtol=1e-5)
    for name in ("model.safetensors", "checkpoint/state.safetensors", "checkpoint/previous.safetensors"):
        assert close(runs / "1" / name, runs / str(count) / name), name


def test_a_divided_model_leaves_the_files_of_a_whole_one(runs):
    files = [{str(path.relative_to(runs / n)) for path in (runs / n).rglob("*")} for n in "12"]
    assert files[1] - files[0] == {"parts-0.json", "parts-1.json"} and not files[0] - files[1]
    for step in (0, 2, 4):
        one, two = ((runs / n / "samples" / f"step_{step:06d}.png").stat().st_size for n in "12")
        assert abs(one - two) < 0.02 * one
    looks = [[line for line in (runs / n / "log.jsonl").read_text().splitlines() if "val" in line] for n in "12"]
    values = torch.tensor([[json.loads(line)["val"] for line in lines] for lines in looks])
    assert values.shape == (2, 3) and torch.allclose(values[0], values[1], rtol=1e-5)


@pytest.mark.parametrize("count", [2, 4])
def test_each_process_keeps_its_rows_of_everything(runs, count):
    """Of weights, gradients, both moments, average and best, and all of them together are all rows."""
    held = [json.loads((runs / str(count) / f"parts-{rank}.json").read_text()) for rank in range(count)]
    assert held[0].keys() == {"weights", "gradients", "exp_avg", "exp_avg_sq", "average", "best"}
    for kind in held[0]:
        for parts in zip(*(of[kind] for of in held), strict=True):
            (total, row), own = parts[0][1:], [part[0] for part in parts]
            assert sum(own) == total and max(own) == -(-total // row // count) * row, kind


def test_a_divided_run_that_was_killed_goes_on_to_the_byte(runs, tiny, tmp_path, monkeypatch):
    """One process is killed after its second step; torchrun starts both again."""
    monkeypatch.setenv("DIES", "")
    argv = flags(tiny, tmp_path / "run", *FULL, "--keep", "best", "--cache", str(runs / "cache"), "--shard")
    done = torchrun(2, *argv, script=str(runs / "spied.py"), more=("--max-restarts", "1"))
    assert done.returncode == 0, done.stdout
    assert losses(tmp_path / "run") == losses(runs / "2")
    ours, theirs = ((folder / "model.safetensors").read_bytes() for folder in (tmp_path / "run", runs / "2"))
    assert ours == theirs


def test_a_divided_run_goes_on_whole_in_one_process(runs, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(runs / "2", run)
    shutil.copy(run / "checkpoint" / "previous.safetensors", run / "checkpoint" / "state.safetensors")
    train.main(["--resume", "--out", str(run)])
    assert torch.allclose(torch.tensor(losses(run)), torch.tensor(losses(runs / "1")), rtol=1e-5)
    assert close(run / "model.safetensors", runs / "1" / "model.safetensors")


def test_unet_and_text_encoder_are_divided(tiny_sd, tmp_path):
    """The text encoder computes alone when samples are drawn; with a prior the model computes twice a loss."""
    more = (*STEP, "--model", str(tiny_sd), "--recipe", "dreambooth", "--class-prompt", "a pill", "--class-images", "2")
    more += ("--adapter", "unet.full", "--adapter", "text.full", "--checkpoint", "blocks", "--cache", str(tmp_path))
    argv = [flags(tmp_path, tmp_path / n, *more, without={"model", "vae", "measure", "cache"}) for n in "12"]
    train.main(argv[0])
    done = torchrun(2, *argv[1], "--shard")
    assert done.returncode == 0, done.stdout
    one, two = (torch.tensor(losses(tmp_path / n)) for n in "12")
    assert torch.allclose(one, two, rtol=1e-5)
    models = [weights.load_sd(tmp_path / n / "model") for n in "12"]
    for part in ("unet", "text"):
        ours, theirs = (getattr(model, part).state_dict() for model in models)
        assert all(torch.allclose(ours[name], theirs[name], rtol=1e-3, atol=5e-5) for name in ours)


def test_shard_is_refused_where_it_does_nothing(tiny, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="over the processes that torchrun starts, and this is one alone"):
        train.main(flags(tiny, tmp_path / "run", *FULL, "--shard"))
    assert not (tmp_path / "run").exists()
    with pytest.raises(ValueError, match="--shard is read by .*, not by autoencoder"):
        train.main(["--recipe", "autoencoder", "--shard"])
    monkeypatch.setattr(process, "count", lambda: 2)
    check_shard(["full"])
    check_shard(["unet.full", "text.full"])
    for specs, found in ((["full", "lora:rank=2"], "lora:rank=2"), ([], "a recipe without --adapter")):
        with pytest.raises(ValueError, match=f"what --adapter full trains, found {found}"):
            check_shard(specs)


def test_what_is_whole_stays_as_it_is():
    model, tensor = torch.nn.Linear(2, 3), torch.rand(3, 2)
    with whole(model):
        assert type(model) is torch.nn.Linear
    assert gathered({"a": tensor})["a"] is tensor
    copy = own(tensor, model.weight)
    assert torch.equal(copy, tensor) and copy.data_ptr() != tensor.data_ptr()
