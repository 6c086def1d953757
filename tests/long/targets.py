"""What the trials of wrong inputs read: of each kind of file or text the valid ones, a change of them, the reader."""

import copy
import gzip
import json
import os
import random
import shutil
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

import adapters
import weights
from border import read_json, read_text
from config import given
from config.repeat import settings_like
from data.folders.captions import read_captions
from data.folders.hierarchy import read_hierarchy
from data.folders.layouts import recognise
from data.images import decode, decode_mask
from data.output.about import png_text
from data.output.samples import read_samples
from data.source import parse as parse_source
from data.transforms import Transform
from experiments.plan import read_plan
from experiments.search import read_search
from inference.settings import all_parts as sample_parts
from recipes.settings import all_parts, check, read_run, settings_from_here
from tests.long.mutate import bytes_like, json_like, json_text, tensors_like, text_like, toml_text
from tests.plans import SETTINGS
from tests.tiny import write_dit, write_sd
from training.log import read_log, read_numbers
from training.state import State, load_state, save_state
from unet import TextConditioned
from unet.text.prompt import chunks
from unet.text.tokenizer import Tokenizer
from weights.adapter_files.embeddings import add_embedding
from weights.adapter_files.lora_export import export_adapter
from weights.formats import files, safe
from weights.layouts import scheduler_json

Chance = random.Random
METHODS = """
[methods.lora]
adapter = ["lora:rank=2"]
[methods.norm]
adapter = ["norm"]
[variants.half]
of = ["lora"]
"""
PARTS = ("unet", "text_encoder", "vae")
COSTLY = (  # more than 5 ms an input
    "adapter",
    "autoencoder",
    "DiT of the authors",
    "folder of unet",
    "folder of vae",
    "LoRA of diffusers",
    "LoRA of kohya",
    "plan of a comparison",
    "settings in TOML",
    "Stable Diffusion folder",
)


class Target(NamedTuple):
    """write(path, chance): a changed input; read(path): the reader, which may refuse it. suffix: of its name."""

    write: Callable[[Path, Chance], None]
    read: Callable[[Path], object]
    suffix: str = ""
    named: bool = True  # a refusal says which file


def of_bytes(seeds: list[bytes], read: Callable, suffix: str, named: bool = True) -> Target:
    return Target(lambda path, chance: path.write_bytes(bytes_like(chance.choice(seeds), chance)), read, suffix, named)


def of_text(seeds: list[str], read: Callable, suffix: str = ".txt", named: bool = True) -> Target:
    """Texts in files, mostly still UTF-8."""

    def write(path: Path, chance: Chance) -> None:
        text = text_like(chance.choice(seeds), chance).encode("utf-8", "surrogatepass")
        path.write_bytes(text if chance.random() < 0.8 else bytes_like(text, chance))

    return Target(write, read, suffix, named)


def of_words(seeds: list[str], read: Callable[[str], object]) -> Target:
    """Texts that are no file: prompts, specs, flags."""
    return of_text(seeds, lambda path: read(path.read_text("utf-8", "replace")), named=False)


def of_json(seeds: list, read: Callable, suffix: str = ".json", text: Callable = json_text) -> Target:
    """JSON, or TOML by another `text`: other values mostly, sometimes other bytes."""

    def write(path: Path, chance: Chance) -> None:
        value = json_like(chance.choice(seeds), chance) if chance.random() < 0.8 else chance.choice(seeds)
        content = text(value if isinstance(value, dict) or text is json_text else {"x": value}, chance)
        content = content.encode("utf-8", "surrogatepass")
        path.write_bytes(content if chance.random() < 0.8 else bytes_like(content, chance))

    return Target(write, read, suffix)


def of_safe(source: Path, read: Callable) -> Target:
    """A safetensors file: its tensors, what this package wrote into its header, the header's own JSON, or its bytes."""
    tensors, metadata = safe.read(source)
    tensors, data = {name: tensor.clone() for name, tensor in tensors.items()}, source.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    table, graft = json.loads(data[8 : 8 + length]), json.loads(metadata.get("graft", "{}"))

    def write(path: Path, chance: Chance) -> None:
        what = chance.random()
        if what < 0.3:
            safe.write(path, tensors_like(tensors, chance), metadata)
        elif what < 0.7 and graft:
            safe.write(path, tensors, metadata | {"graft": json_text(json_like(graft, chance), chance)})
        elif what < 0.85:
            header = json_text(json_like(table, chance), chance).encode("utf-8", "surrogatepass")
            path.write_bytes(struct.pack("<Q", len(header)) + header + data[8 + length :])
        else:
            path.write_bytes(bytes_like(data, chance))

    return Target(write, read, ".safetensors")


def of_archive(source: Path, read: Callable) -> Target:
    """A zip of torch: its pickle changed, with a right checksum, a member lost or changed, or its bytes."""
    with zipfile.ZipFile(source) as archive:
        members = {member.filename: archive.read(member) for member in archive.infolist()}
    program = next(name for name in members if name.endswith("data.pkl"))

    def write(path: Path, chance: Chance) -> None:
        if chance.random() < 0.3:
            path.write_bytes(bytes_like(source.read_bytes(), chance))
            return
        changed = dict(members)
        name = program if chance.random() < 0.8 else chance.choice([*members])
        changed[name] = bytes_like(members[name], chance)
        if chance.random() < 0.1:
            del changed[chance.choice([*members])]
        packed = zipfile.ZIP_STORED if chance.random() < 0.95 else zipfile.ZIP_DEFLATED
        with zipfile.ZipFile(path, "w", packed) as archive:
            for member, content in changed.items():
                archive.writestr(member, content)

    return Target(write, read, source.suffix)


def of_folder(source: Path, read: Callable, names: list[str]) -> Target:
    """A folder with one of its files changed: JSON by its values, anything else by its bytes."""
    whole = {name: (source / name).read_bytes() for name in names}

    def write(path: Path, chance: Chance) -> None:
        if not path.exists():
            shutil.copytree(source, path)
        for name, content in whole.items():
            if not (path / name).is_file() or (path / name).read_bytes() != content:
                (path / name).write_bytes(content)
        name = chance.choice(names)
        if chance.random() < 0.03:
            (path / name).unlink()
        elif name.endswith(".json") and chance.random() < 0.85:
            value = json_text(json_like(json.loads(whole[name]), chance), chance)
            (path / name).write_bytes(value.encode("utf-8", "surrogatepass"))
        else:
            (path / name).write_bytes(bytes_like(whole[name], chance))

    return Target(write, read, named=False)  # a refusal names one of its files, or the folder


def targets(folder: Path) -> dict[str, Target]:
    """All of them; `folder` holds what they are made from."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    write_dit(folder)
    write_sd(folder / "sd")
    return containers(folder) | models(folder) | pictures(folder) | texts(folder) | runs(folder)


def containers(folder: Path) -> dict[str, Target]:
    """Files of tensors, as they are opened."""
    tensors = {"a.weight": torch.randn(3, 4), "b": torch.arange(5), "c": torch.ones(2, 2).half()}
    safe.write(folder / "few.safetensors", tensors, {"format": "pt", "graft": '{"kind": "adapter", "n": 1}'})
    torch.save({"state_dict": tensors, "args": {"lr": 0.1, "names": ["a"]}}, folder / "few.pt")
    torch.save(tensors, folder / "old.ckpt", _use_new_zipfile_serialization=False)
    program = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 2), torch.nn.LayerNorm(3))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(program).save(str(folder / "program.pt"))
    shards = folder / "shards"
    shards.mkdir()
    for number, names in ((1, ["a.weight"]), (2, ["b", "c"])):
        safe.write(shards / f"model-0000{number}-of-00002.safetensors", {n: tensors[n] for n in names}, {})
    index = {n: f"model-0000{1 + (n != 'a.weight')}-of-00002.safetensors" for n in tensors}
    (shards / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))

    def used(path: Path) -> float:
        """Every number is looked at: a map that reaches beyond its file would show here."""
        return sum(float(t.flatten()[::7].double().sum()) for t in files.read(path)[0].values())

    return {
        "safetensors": of_safe(folder / "few.safetensors", used),
        "pickled checkpoint": of_archive(folder / "few.pt", used),
        "pickled checkpoint of old": of_bytes([(folder / "old.ckpt").read_bytes()], used, ".ckpt"),
        "TorchScript": of_archive(folder / "program.pt", used),
        "shards": of_folder(shards, used, ["model.safetensors.index.json", "model-00001-of-00002.safetensors"]),
    }


def models(folder: Path) -> dict[str, Target]:
    """Models and what is put onto them."""
    dit, sd = weights.load(folder / "dit.safetensors"), weights.load_sd(folder / "sd")
    text, fresh = TextConditioned(sd.unet, sd.text), weights.load_sd(folder / "sd")
    plain = TextConditioned(fresh.unet, fresh.text)
    adapters.attach(dit, ["lora:rank=2", "classes"])
    weights.save_adapter(
        folder / "adapter.safetensors",
        trained(dit),
        {"adapter": ["lora:rank=2", "classes"], "base": base(folder), "classes": ["a", "b", "c", "d", "e"],
         "sources": [[0], [1], [2, 3], [3], [4]], "parents": {"a": "b"}, "config": {"lr": 1.0, "guidance": 3.0}},
    )  # fmt: skip
    fingerprint = weights.fingerprint(text)
    adapters.attach(text, ["unet.lora:rank=2"])
    weights.save_adapter(
        folder / "text.safetensors", trained(text), {"adapter": ["unet.lora:rank=2"], "base": fingerprint}
    )
    for layout in ("kohya", "lora-diffusers"):
        export_adapter(folder / "text.safetensors", folder / f"{layout}.safetensors", layout)
    rows = torch.randn(2, 16)
    a1111 = {"string_to_token": {"*": 265}, "string_to_param": {"*": rows}, "name": "word", "step": 5}
    torch.save(a1111, folder / "word.pt")
    safe.write(folder / "word.safetensors", {"<cat>": rows}, {})
    official = {name: tensor.clone() for name, tensor in weights.load(folder / "dit.safetensors").state_dict().items()}

    def onto(path: Path) -> None:
        weights.apply_adapters(weights.load(folder / "dit.safetensors"), [(str(path), 0.5)])

    def onto_sd(path: Path) -> None:
        weights.apply_adapters(plain, [(str(path), 0.5)])

    def word(path: Path) -> None:
        add_embedding(copy.deepcopy(fresh.tokenizer), copy.deepcopy(fresh.text), path)

    def write_official(path: Path, chance: Chance) -> None:
        torch.save(tensors_like(official, chance), path)

    jsons = "model_index.json scheduler/scheduler_config.json unet/config.json text_encoder/config.json vae/config.json"
    tokenizer = [f"tokenizer/{file.name}" for file in (folder / "sd" / "tokenizer").iterdir()]
    schedule = json.loads((folder / "sd" / "scheduler" / "scheduler_config.json").read_text())
    return {
        "DiT of this package": of_safe(folder / "dit.safetensors", weights.load),
        "DiT of the authors": Target(write_official, lambda path: weights.load(path, expect="dit", heads=2), ".pt"),
        "autoencoder": of_safe(folder / "vae.safetensors", weights.load),
        "Stable Diffusion folder": of_folder(folder / "sd", weights.load_sd, jsons.split()),
        **{f"folder of {part}": of_folder(folder / "sd" / part, weights.load, ["config.json"]) for part in PARTS},
        "tokenizer": of_folder(
            folder / "sd" / "tokenizer", read_tokenizer, [name.removeprefix("tokenizer/") for name in tokenizer]
        ),
        "OpenAI's vocabulary": of_bytes([gzip.compress(b"#version\n" + b"a b\n" * 20)], Tokenizer.from_openai, ".gz"),
        "scheduler": of_json([schedule], lambda path: scheduler_json.from_json(read_json(path), path)),
        "adapter": of_safe(folder / "adapter.safetensors", onto),
        "LoRA of kohya": of_safe(folder / "kohya.safetensors", onto_sd),
        "LoRA of diffusers": of_safe(folder / "lora-diffusers.safetensors", onto_sd),
        "embedding, pickled": of_archive(folder / "word.pt", word),
        "embedding": of_safe(folder / "word.safetensors", word),
    }


def base(folder: Path) -> dict:
    return weights.fingerprint(weights.load(folder / "dit.safetensors"))


def trained(model: torch.nn.Module) -> torch.nn.Module:
    """The model with other values in what trains."""
    for parameter in adapters.trainable_parameters(model).values():
        torch.nn.init.normal_(parameter.data)
    return model


def read_tokenizer(folder: Path) -> None:
    Tokenizer.from_folder(folder).tokens(["a photo of a hazelnut, (very) ünusual", ""])


def pictures(folder: Path) -> dict[str, Target]:
    """Images, masks, samples, and what a PNG says of itself."""
    numbers = np.random.default_rng(0)
    picture = numbers.integers(0, 255, (11, 13, 3), np.uint8)
    grey, deep = picture[..., 0], picture[..., 0].astype(np.uint16) * 257
    alpha = np.dstack([picture, grey])
    kinds = {"png": (picture, grey, alpha, deep), "jpeg": (picture, grey), "webp": (picture, alpha),
             "bmp": (picture, grey), "tiff": (picture, grey, deep, alpha)}  # fmt: skip
    encoded = {kind: [saved(folder, array, kind) for array in arrays] for kind, arrays in kinds.items()}
    mask = np.where(grey > 128, 255, 0).astype(np.uint8)
    palette = Image.fromarray((mask // 255).astype(np.uint8), "P")
    palette.putpalette([0, 0, 0, 128, 0, 0])
    masks = [saved(folder, mask, kind) for kind in ("png", "bmp", "tiff")] + [saved(folder, palette, "png")]
    settings = {"prompt": ["a nut"], "seed": 1, "steps": 4, "guidance": 2.0, "count": 3, "negative": "", "adapter": []}
    about = {"seed": 1, "steps": 4, "model": "tiny-sd", "adapters": [], "settings": settings, "number": 2}

    def write_about(path: Path, chance: Chance) -> None:
        value = json_like(about, chance)
        with open(path, "wb") as file:
            Image.fromarray(picture).save(file, "PNG", pnginfo=png_text(value))
        if chance.random() < 0.3:
            path.write_bytes(bytes_like(path.read_bytes(), chance))

    def samples(path: Path) -> None:
        read_samples(path, Transform(8))

    def write_samples(path: Path, chance: Chance) -> None:
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir()
        for name in ("a_000.png", "a_001.png", "b_000.png"):
            content = encoded["png"][0]
            (path / file_name(name, chance)).write_bytes(
                bytes_like(content, chance) if chance.random() < 0.1 else content
            )

    return {f"image, {kind}": of_bytes(seeds, decode, f".{kind}") for kind, seeds in encoded.items()} | {
        "mask": of_bytes(masks, decode_mask, ".png"),
        "PNG for --like": Target(write_about, lambda path: settings_like(str(path), sample_parts()), ".png"),
        "folder of samples": Target(write_samples, samples, named=False),
        "folder of photographs": Target(tree_of(encoded["png"][0], masks[0]), recognise, named=False),
        "folder with captions": Target(captions_of(encoded["png"][0]), read_captions, named=False),
    }


def saved(folder: Path, array: np.ndarray | Image.Image, kind: str) -> bytes:
    image = array if isinstance(array, Image.Image) else Image.fromarray(array)
    image.save(folder / f"seed.{kind}")
    return (folder / f"seed.{kind}").read_bytes()


def file_name(name: str, chance: Chance) -> str:
    """The name, or one that is a little off, as far as a file system takes it."""
    name = text_like(name, chance) if chance.random() < 0.4 else name
    encoded = name.replace("/", "_").replace("\0", "_").encode("utf-8", "surrogatepass")[:200]
    return os.fsdecode(encoded) if encoded.strip(b".") else "x"


def tree_of(image: bytes, mask: bytes) -> Callable[[Path, Chance], None]:
    """Writes folders that are almost one of the layouts."""
    plans = """good/1.png good/2.png crack/1.png crack/1_mask.png
        train/good/1.png test/crack/1.png test/good/2.png ground_truth/crack/1_mask.png
        dog/husky/1.png dog/pug/1.png cat/tabby/1.png
        images/1.png masks/1.png
        1.png 2.png
        MT_Blowhole/Imgs/e.jpg MT_Blowhole/Imgs/e.png MT_Free/Imgs/f.jpg""".split("\n")

    def write(path: Path, chance: Chance) -> None:
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir()
        for name in chance.choice(plans).split():
            parts = [file_name(part, chance) for part in name.split("/")]
            if chance.random() < 0.1:
                parts.insert(0, file_name("more", chance))
            place = path.joinpath(*parts)
            try:
                place.parent.mkdir(parents=True, exist_ok=True)
                if chance.random() < 0.05:
                    place.symlink_to(chance.choice(("/etc/hostname", "..", str(path), "nowhere")))
                else:
                    place.write_bytes(mask if "mask" in name or name.endswith("e.png") else image)
            except OSError:  # two names became one
                continue

    return write


def captions_of(image: bytes) -> Callable[[Path, Chance], None]:
    """Writes images with captions beside them, in metadata.jsonl or metadata.csv, or in kohya's folder names."""
    lines = '{"file_name": "1.png", "text": "a red nut"}\n{"file_name": "2.png", "text": "a nut"}\n'
    table = "file_name,text\n1.png,a red nut\n2.png,a nut\n"

    def write(path: Path, chance: Chance) -> None:
        shutil.rmtree(path, ignore_errors=True)
        kind = chance.randrange(4)
        place = path / file_name("10_red nut", chance) if kind == 3 else path
        place.mkdir(parents=True)
        for number in (1, 2):
            (place / f"{number}.png").write_bytes(image)
            if kind == 0:
                caption = text_like("a red nut\nmore", chance).encode("utf-8", "surrogatepass")
                (place / f"{number}.txt").write_bytes(caption if chance.random() < 0.8 else bytes_like(caption, chance))
        if kind in (1, 2):
            text = text_like((lines, table)[kind - 1], chance).encode("utf-8", "surrogatepass")
            text = text if chance.random() < 0.8 else bytes_like(text, chance)
            (place / f"metadata.{('jsonl', 'csv')[kind - 1]}").write_bytes(text)

    return write


def texts(folder: Path) -> dict[str, Target]:
    """Settings, prompts and specs, as they are typed or written by hand."""
    settings = {"recipe": "class_label", "steps": 4, "lr": 0.001, "adapter": ["lora:rank=2"], "flips": "hv", "ema": 0.9}
    search = (Path(__file__).parents[2] / "configs").glob("search_*.toml")
    pairs, tokenizer = {"crack": "damaged", "good": "whole"}, Tokenizer.from_folder(folder / "sd" / "tokenizer")

    def settings_file(path: Path) -> None:
        check(given([str(path)], all_parts()))

    def flags(parts: Callable[[], list[type]]) -> Callable[[str], object]:
        return lambda text: given(text.split("\n"), parts())

    train_flags = "--steps=4\n--lr\n0.1\n--adapter\nlora:rank=2\n--resume\n--out\nx"
    specs = ["lora:rank=8,alpha=4", "unet.lora:rank=2,targets=attn", "oft:blocks=4", "vpt:tokens=8", "bitfit", "dora"]
    dit = weights.load(folder / "dit.safetensors")
    prompts = ["a (red:1.2) nut [on] a \\(table\\) BREAK more", "((a)) [[b]] (c:0.5)", "a nut"]
    return {
        "settings in TOML": of_json([settings], settings_file, ".toml", toml_text)._replace(named=False),  # flags too
        "flags of train.py": of_words([train_flags], flags(all_parts)),
        "flags of sample.py": of_words(["--run=x\n--count\n4\n--adapter\nf.safetensors:0.5"], flags(sample_parts)),
        "adapter spec": of_words(specs, lambda text: adapters.attach(copy.deepcopy(dit), text)),
        "generated source": of_words(["generated:hazelnut/few/4", "generated:base+logo_on_black/test"], parse_source),
        "prompt": of_words(prompts, lambda text: chunks(text, tokenizer)),
        "plan of a comparison": of_text([SETTINGS.replace("{tiny}", str(folder)) + METHODS], read_plan, ".toml"),
        "plan of a search": of_text([path.read_text() for path in search], read_search, ".toml"),
        "hierarchy in JSON": of_json([pairs], lambda path: read_hierarchy(str(path))),
        "hierarchy in TOML": of_json([pairs], lambda path: read_hierarchy(str(path)), ".toml", toml_text),
        "text": of_text(["a red nut\n"], read_text),
    }


def runs(folder: Path) -> dict[str, Target]:
    """The files of a run folder, as resuming, sampling and plotting read them."""
    values = {"model": str(folder / "dit.safetensors"), "data": "generated:hazelnut/few/1", "steps": 2}
    config = check(values).values | {"started_in": str(folder)}
    numbers = {"network": "tiny", "samples": 5, "class_accuracy_by_class": {"a": 0.5}}
    log = "".join(
        json.dumps({"step": step, "loss": 0.5, "mse": 0.5, "lr": 1e-3, "grad": 0.1, "seconds": 0.2}) + "\n"
        for step in range(1, 5)
    )

    def beside(name: str, read: Callable[[Path], object]) -> Callable[[Path], object]:
        """The reader of a run folder in which the changed file has this name."""

        def reader(path: Path) -> object:
            place = path.parent / "as_run" / name
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, place)
            try:
                return read(path.parent / "as_run")
            finally:
                place.unlink()

        return reader

    def of_folder_named(target: Target) -> Target:
        return target._replace(named=False)

    def state() -> State:
        torch.manual_seed(0)
        parameters = dict(torch.nn.Linear(3, 2).named_parameters())
        optimizer = torch.optim.AdamW(parameters.values(), lr=0.1)
        for parameter in parameters.values():
            parameter.grad = torch.ones_like(parameter)  # backward would start threads, which do not live on in forks
        optimizer.step()
        return State(parameters, {}, {}, optimizer, {"classes": {"names": ["a", "b"]}, "data": {"number of images": 4}})

    save_state(folder / "state", state(), 1)
    stored = folder / "state" / "checkpoint" / "state.safetensors"

    def settings(place: Path) -> None:
        read_run(place / "config.toml")
        settings_from_here(place)

    return {
        "config.toml of a run": of_folder_named(of_json([config], beside("config.toml", settings), ".toml", toml_text)),
        "log.jsonl": of_folder_named(of_text([log], beside("log.jsonl", read_log), ".jsonl")),
        "metrics.json": of_folder_named(of_json([numbers], beside("metrics.json", read_numbers))),
        "state of a run": of_folder_named(
            of_safe(stored, beside("checkpoint/state.safetensors", lambda place: load_state(place, state(), 9)))
        ),
    }
