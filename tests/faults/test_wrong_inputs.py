"""What people type and hand over by mistake: one sentence each, which says what to do instead."""

import zipfile

import pytest

import compare
import evaluate
import sample
import train
import weights.download
from data.__main__ import main as inspect
from data.generated import makers
from data.output.grid import save_image
from ops.device import choose_device


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """The current folder, with photographs of two classes in photos/, and things that are no folder of photographs."""
    monkeypatch.chdir(tmp_path)
    for state in ("good", "crack"):
        (tmp_path / "photos" / state).mkdir(parents=True)
        for i in range(2):
            save_image(tmp_path / "photos" / state / f"{i}.png", makers.image("hazelnut", state, "few", i, 16)[0])
    with zipfile.ZipFile("photos.zip", "w") as archive:
        archive.write("photos/good/0.png")
    (tmp_path / "notes.txt").write_text("hello")
    return tmp_path


@pytest.mark.parametrize(
    "source, words",
    [
        ("photos.zip", "photos.zip: not a folder but an archive: unpack it"),
        ("photos/good/0.png", "not a folder but an image: name the folder"),
        ("notes.txt", "not a folder but a file: name the folder"),
        ("~/photos", "no such folder: write your home folder out"),
        ("https://example.com/photos.zip", "https://example.com/photos.zip: an address, expected a folder"),
        ("pohtos", "pohtos: no such folder$"),
    ],
)
def test_something_else_where_a_folder_of_images_is_expected(photos, source, words, capsys):
    for script, flags in ((train.main, ["--data", source, "--out", "run"]), (evaluate.main, ["--real", "photos"])):
        with pytest.raises(ValueError, match=words):
            script(flags if script is train.main else [*flags, "--fake", source])
    assert inspect(["--inspect", source]) and words.rstrip("$") in "".join(capsys.readouterr())
    assert not (photos / "run").exists()


@pytest.mark.parametrize(
    "flags, words",
    [
        (["--lr", "0,003"], "--lr must be float, found '0,003': write 0.003"),
        (["--cond-dropout", "10%"], "found '10%': write 0.1"),
        (["--cond-dropout=12,5%"], "found '12,5%': write 0.125"),
        (["--steps", "1e3"], "--steps must be int, found '1e3': write 1000"),
        (["--steps", "1_000_000.0"], "write 1000000"),
        (["--steps", "1.5"], "--steps must be int, found '1.5'$"),
        (["--steps", "2,5"], "--steps must be int, found '2,5'$"),
        (["--lr", "fast"], "--lr must be float, found 'fast'$"),
        (["-steps", "10"], "found '-steps': a flag begins with two plain hyphens, --steps"),
        (["–steps", "10"], "found '–steps': a flag begins with two plain hyphens, --steps"),
        (["--lr", "1", "—weight-decay=3"], "two plain hyphens, --weight-decay"),
        (["--resume", "runs/001"], "--resume takes no value, found 'runs/001'"),
        (["--lr", "1", "2"], "expected a flag such as --recipe, found '2'"),
        (["--adapter", "LoRA:rank=8"], "unknown adapter 'LoRA', did you mean 'lora'"),
        (["--adapter", "lora,rank=8"], "options stand behind a colon, lora:rank=8"),
        (["--adapter", "lora:Rank=8"], "no option 'Rank', did you mean 'rank'"),
        (["--device", "cuda:77"], "device cuda:77: torch sees .* cuda device"),
        (["--size", "44"], "--size 44 is 11 latents a side: input size 11 is not a multiple of patch"),
        (["--out", "notes.txt"], "notes.txt: a file, expected a folder for the run"),
    ],
)
def test_what_is_typed_to_train(photos, flags, words):
    with pytest.raises(ValueError, match=words):
        train.main([*(["--data", "photos", "--cache", ""] if flags[0].startswith("--") else []), *flags])
    assert (photos / "notes.txt").read_text() == "hello"


@pytest.mark.parametrize(
    "text, words",
    [
        ('{"steps": 2}', "settings are TOML, a line each"),
        ('data = "C:\\Users\\me"\n', "a path with backslashes stands in single quotes"),
        ("steps = 2\nlr = 0,003\n", "line 2.*: lr = 0,003; a number has a point, no comma"),
        ("steps = 2\nlr is 3\n", "line 2.*: lr is 3$"),
    ],
)
def test_a_config_that_is_no_toml_shows_its_line(photos, text, words):
    (photos / "c.toml").write_text(text)
    with pytest.raises(ValueError, match=f"config file c.toml: .*{words}"):
        train.main(["c.toml"])


def test_a_config_that_cannot_be_opened_is_named_once(photos):
    for name, words in (("nothing.toml", "No such file or directory"), ("photos", "Is a directory")):
        with pytest.raises(ValueError, match=f"config file {name}: {words}$"):
            train.main([name])


def test_settings_of_a_run_are_no_comparison(photos):
    (photos / "c.toml").write_text("steps = 2\nlr = 0.1\n")
    with pytest.raises(ValueError, match=r"c.toml: a comparison has a table \[methods.NAME\]"):
        compare.main(["c.toml"])


@pytest.mark.parametrize(
    "flags, words",
    [
        (["--run", "run/adapter.safetensors"], "not a run folder, it has no config.toml; the run that it is of is run"),
        (["--run", "photos"], "photos: not a run folder, it has no config.toml$"),
        (["--adapter", "a.safetensors:1,5"], "the strength of an adapter must be a number, found '1,5': write 1.5"),
        (["--adapter", "a.safetensors:50%"], "found '50%': write 0.5"),
        (["--steps", "2000"], "number of sampling steps must be between 2 and 1000, found 2000"),
        (["--image", "photos/good/0.png", "--strength", "0.1", "--steps", "4"], "strength 0.1 leaves 0 of 4 steps"),
    ],
)
def test_what_is_typed_to_sample_leaves_no_folder(photos, flags, words):
    (photos / "run").mkdir()
    (photos / "run" / "config.toml").write_text('recipe = "class_label"\n')
    with pytest.raises(ValueError, match=words):
        sample.main([*flags, "--count", "1", "--out", "out"])
    assert not (photos / "out").exists()


def test_a_file_where_a_download_shall_go(photos, capsys):
    with pytest.raises(SystemExit):
        weights.download.main(["clip-tokenizer", "--to", "notes.txt"])
    assert capsys.readouterr().err == "notes.txt: File exists\n"


def test_a_gpu_that_is_not_there_is_said_at_once(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    with pytest.raises(ValueError, match="device cuda: torch sees no cuda device here"):
        choose_device("cuda")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert choose_device("cuda:1").index == 1
    with pytest.raises(ValueError, match="device cuda:2: torch sees 2 cuda devices here"):
        choose_device("cuda:2")


def test_held_out_images_that_are_trained_on_are_said(photos, capsys):
    evaluate.main(["--real", "photos", "--fake", "photos", "--train", "photos"])
    assert "4 of 4 held-out images are training images too" in capsys.readouterr().err
    evaluate.main(["--real", "photos", "--fake", "photos", "--train", "generated:hazelnut/val/2"])
    assert "training images too" not in capsys.readouterr().err
    with pytest.raises(ValueError, match="unknown autoencoder"):  # the images are read before
        train.main("--data photos --val photos --recipe autoencoder --model new:F --size 16".split())
    assert "4 of 4 held-out images are training images too" in capsys.readouterr().err
