"""Adapter files: save, apply with a strength, stack, and refuse what does not fit."""

import copy
import json

import pytest
import torch
from safetensors.torch import load_file, save_file

import adapters
import weights
from dit import DiT, DiTConfig, resize_classes
from weights.adapter_files.native import TABLE, load_adapter
from weights.formats import safe


def trained(base, specs, seed, **recipe):
    """A copy of base with adapters whose trained values were moved, and the recipe for its file."""
    model = copy.deepcopy(base)
    recipe = {"base": weights.fingerprint(model)} | recipe
    if recipe.get("sources"):
        resize_classes(model, recipe["sources"])
    recipe["adapter"] = specs
    generator = torch.Generator().manual_seed(seed)
    adapters.attach(model, specs, generator)
    with torch.no_grad():
        for parameter in adapters.trainable_parameters(model).values():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model, recipe


def saved(path, base, specs, seed=0, **recipe):
    model, recipe = trained(base, specs, seed, **recipe)
    weights.save_adapter(path, model, recipe)
    return model


def outputs(model):
    generator = torch.Generator().manual_seed(7)
    x, t = torch.randn(2, 4, 8, 8, generator=generator), torch.tensor([3, 900])
    with torch.no_grad():
        return model(x, t, torch.tensor([0, 1]))


def fresh_with(base, *files):
    return weights.apply_adapters(copy.deepcopy(base), list(files))


BOTTLENECKS = ["bottleneck:width=4,scale=2", "bottleneck:width=4,scale=2,form=sequential"]
METHODS = [
    "lora:rank=2",
    "lora:rank=6,targets=.",
    "tlora:rank=2",
    "lokr",
    "dora",
    "oft",
    "modulate",
    "bitfit",
    "norm",
    "difffit",
    "full",
    "classes",
    *BOTTLENECKS,
]


@pytest.mark.parametrize("spec", METHODS)
def test_round_trip(tmp_path, tiny_dit, spec):
    model = saved(tmp_path / "a", tiny_dit, [spec])
    back = fresh_with(tiny_dit, (tmp_path / "a", 1.0))
    assert torch.allclose(outputs(back), outputs(adapters.merge(model)), atol=1e-6)
    assert not torch.allclose(outputs(back), outputs(tiny_dit), atol=1e-3)
    assert not any(parameter.requires_grad for parameter in back.parameters())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn])
@pytest.mark.parametrize("spec", METHODS)
def test_a_file_in_another_precision_is_read_into_the_models(tmp_path, tiny_dit, spec, dtype):
    saved(tmp_path / "a", tiny_dit, [spec])
    tensors, metadata = safe.read(tmp_path / "a")
    safe.write(tmp_path / "a", {name: tensor.to(dtype) for name, tensor in tensors.items()}, metadata)
    back = fresh_with(tiny_dit, (tmp_path / "a", 1.0))
    assert {p.dtype for p in back.parameters()} == {torch.float32}
    assert not torch.equal(outputs(back), outputs(tiny_dit)) and outputs(back).isfinite().all()


def test_the_file_holds_what_trained_and_nothing_else(tmp_path, tiny_dit):
    model = saved(tmp_path / "a", tiny_dit, "bitfit", config={"lr": 0.001})
    assert load_file(tmp_path / "a").keys() == adapters.trainable_parameters(model).keys()
    tensors, recipe = weights.load_adapter(tmp_path / "a")
    assert tensors.keys() == adapters.trainable_parameters(model).keys()
    assert recipe == {
        "adapter": ["bitfit"],
        "classes": None,
        "sources": None,
        "parents": None,
        "tokens": None,
        "config": {"lr": 0.001},
        "base": weights.fingerprint(tiny_dit),
    }


@pytest.mark.parametrize("spec", METHODS)
def test_strength_zero_is_the_base(tmp_path, tiny_dit, spec):
    saved(tmp_path / "a", tiny_dit, [spec])
    assert torch.allclose(outputs(fresh_with(tiny_dit, (tmp_path / "a", 0.0))), outputs(tiny_dit), atol=1e-6)


def test_strength_scales_the_difference(tmp_path, tiny_dit):
    saved(tmp_path / "b", tiny_dit, ["bitfit"])
    saved(tmp_path / "l", tiny_dit, ["lora:rank=2"])
    name = "blocks.0.attn.qkv."
    base = tiny_dit.state_dict()
    for file, key in (("b", name + "bias"), ("l", name + "weight")):
        whole, half = (fresh_with(tiny_dit, (tmp_path / file, s)).state_dict()[key] for s in (1.0, 0.5))
        assert torch.allclose(half - base[key], 0.5 * (whole - base[key]), atol=1e-7)


@pytest.mark.parametrize("spec", BOTTLENECKS)
def test_strength_scales_a_bottleneck(tmp_path, tiny_dit, spec):
    saved(tmp_path / "a", tiny_dit, [spec])
    x = torch.randn(2, 5, 48, generator=torch.Generator().manual_seed(8))
    with torch.no_grad():
        base = tiny_dit.blocks[0].mlp(x)
        whole, half, double = (fresh_with(tiny_dit, (tmp_path / "a", s)).blocks[0].mlp(x) for s in (1.0, 0.5, 2.0))
    assert not torch.allclose(whole, base, atol=1e-3)
    assert torch.allclose(half - base, 0.5 * (whole - base), atol=1e-6)
    assert torch.allclose(double - base, 2 * (whole - base), atol=1e-6)


STARTS_AT_1 = ("gamma", "norm1.weight", "norm2.weight", "norm_final.weight")
OTHERS = ["bitfit", "full", "difffit", r"lora:rank=2,targets=mlp\.fc2$"]


@pytest.mark.parametrize("bottleneck", BOTTLENECKS)
@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("bottleneck_first", [True, False])
def test_a_bottleneck_and_another_file(tmp_path, tiny_dit, bottleneck, other, bottleneck_first):
    saved(tmp_path / "a", tiny_dit, [bottleneck], seed=1)
    saved(tmp_path / "b", tiny_dit, [other], seed=2)
    files = [(tmp_path / "a", 1.0), (tmp_path / "b", 0.5)]
    both = fresh_with(tiny_dit, *(files if bottleneck_first else files[::-1]))
    assert not any(parameter.requires_grad for parameter in both.parameters())
    expected = copy.deepcopy(tiny_dit)
    for path, strength in files if bottleneck_first else files[::-1]:
        single, recipe = weights.load_adapter(path)
        adapters.attach(expected, recipe["adapter"])
        with torch.no_grad():
            for name, value in single.items():
                parameter = expected.get_parameter(name)
                start = dict(tiny_dit.named_parameters()).get(name, float(name.endswith(STARTS_AT_1)))
                whole = name.endswith(("_down", "_down_bias"))
                parameter.copy_(value if whole else start + strength * (value - start))
    assert torch.allclose(outputs(both), outputs(expected.eval()), atol=1e-5)


def test_two_bottlenecks_are_refused(tmp_path, tiny_dit):
    for name in "ab":
        saved(tmp_path / name, tiny_dit, [BOTTLENECKS[0]])
    with pytest.raises(ValueError, match=r"b: adapter bottleneck: ParallelBottleneckMlp\(\) already carries Parallel"):
        fresh_with(tiny_dit, (tmp_path / "a", 1.0), (tmp_path / "b", 1.0))


def test_files_add_up(tmp_path, tiny_dit):
    saved(tmp_path / "a", tiny_dit, ["bitfit"], seed=1)
    saved(tmp_path / "b", tiny_dit, ["bitfit", "lora:rank=3"], seed=2)
    one, two, both = (
        fresh_with(tiny_dit, *files).state_dict()
        for files in ([(tmp_path / "a", 1.0)], [(tmp_path / "b", 0.5)], [(tmp_path / "a", 1.0), (tmp_path / "b", 0.5)])
    )
    for name, base in tiny_dit.state_dict().items():
        assert torch.allclose(both[name] - base, (one[name] - base) + (two[name] - base), atol=1e-6)


def test_norms_that_both_files_add(tmp_path, tiny_dit):
    one, two = (saved(tmp_path / name, tiny_dit, ["norm"], seed) for seed, name in enumerate("ab"))
    both = fresh_with(tiny_dit, (tmp_path / "a", 1.0), (tmp_path / "b", 1.0))
    expected = one.blocks[0].norm1.weight + two.blocks[0].norm1.weight - 1
    assert torch.allclose(both.blocks[0].norm1.weight, expected, atol=1e-6)


def test_two_loras_of_different_rank(tmp_path, tiny_dit):
    saved(tmp_path / "a", tiny_dit, ["lora:rank=2"], seed=1)
    saved(tmp_path / "b", tiny_dit, ["lora:rank=3"], seed=2)
    key = "blocks.1.attn.qkv.weight"
    base = tiny_dit.state_dict()[key]
    one, two = (fresh_with(tiny_dit, (tmp_path / name, 1.0)).state_dict()[key] - base for name in "ab")
    both = fresh_with(tiny_dit, (tmp_path / "a", 1.0), (tmp_path / "b", 1.0)).state_dict()[key]
    assert torch.allclose(both - base, one + two, atol=1e-6)


def test_the_base_on_disk_stays(tmp_path, tiny_dit):
    weights.save_model(tiny_dit, tmp_path / "base")
    saved(tmp_path / "a", tiny_dit, ["lora:rank=2", "bitfit"])
    before = [(tmp_path / name).read_bytes() for name in ("base", "a")]
    weights.apply_adapters(weights.load(tmp_path / "base"), [(tmp_path / "a", 0.7)])
    assert before == [(tmp_path / name).read_bytes() for name in ("base", "a")]


def test_other_weights_of_the_same_shape_warn(tmp_path, tiny_dit):
    saved(tmp_path / "a", tiny_dit, ["lora:rank=2"])
    tiny_dit.blocks[0].mlp.fc1.weight.data += 1
    with pytest.warns(UserWarning, match="trained on a base of the same shape with other weights"):
        fresh_with(tiny_dit, (tmp_path / "a", 1.0))


# ---- classes

NEW = {"classes": ["crack", "hole"], "sources": [[0, 1], [2]]}


def test_new_classes(tmp_path, tiny_dit):
    model = saved(tmp_path / "a", tiny_dit, ["lora:rank=2", "classes"], **NEW)
    back = fresh_with(tiny_dit, (tmp_path / "a", 1.0))
    assert (back.config.num_classes, back.null, back.classes) == (2, 2, ["crack", "hole"])
    assert torch.equal(back.get_parameter(TABLE), model.get_parameter(TABLE))
    assert torch.allclose(outputs(back), outputs(adapters.merge(model)), atol=1e-6)
    rows = fresh_with(tiny_dit, (tmp_path / "a", 0.0)).get_parameter(TABLE)
    old = tiny_dit.get_parameter(TABLE)
    assert torch.allclose(rows, torch.stack([old[:2].mean(0), old[2], old[10]]), atol=1e-7)


def test_classes_that_did_not_train_are_made_from_their_sources(tmp_path, tiny_dit):
    model = saved(tmp_path / "a", tiny_dit, ["lora:rank=2"], **NEW)
    back = fresh_with(tiny_dit, (tmp_path / "a", 1.0))
    assert torch.equal(back.get_parameter(TABLE), model.get_parameter(TABLE))


def test_classes_without_sources(tmp_path, tiny_dit):
    model = saved(tmp_path / "a", tiny_dit, ["classes"], **NEW)
    edit(tmp_path / "a", sources=None)
    assert torch.equal(fresh_with(tiny_dit, (tmp_path / "a", 1.0)).get_parameter(TABLE), model.get_parameter(TABLE))
    saved(tmp_path / "b", tiny_dit, ["bitfit"], **NEW)
    edit(tmp_path / "b", sources=None)
    with pytest.raises(ValueError, match="expected rows of 2 classes, found no rows and no sources"):
        fresh_with(tiny_dit, (tmp_path / "b", 1.0))
    edit(tmp_path / "b", sources=[[0]])
    with pytest.raises(ValueError, match="2 classes and 1 sources"):
        fresh_with(tiny_dit, (tmp_path / "b", 1.0))


def test_the_same_classes_as_the_base(tmp_path, tiny_dit):
    names = [str(i) for i in range(10)]
    saved(tmp_path / "a", tiny_dit, ["bitfit"], classes=names)
    assert fresh_with(tiny_dit, (tmp_path / "a", 1.0)).classes == names


def test_two_files_share_their_classes(tmp_path, tiny_dit):
    saved(tmp_path / "a", tiny_dit, ["classes"], seed=1, **NEW)
    saved(tmp_path / "b", tiny_dit, ["classes"], seed=2, **NEW)
    fresh_with(tiny_dit, (tmp_path / "a", 0.5), (tmp_path / "b", 0.5))
    saved(tmp_path / "b", tiny_dit, ["classes"], **NEW | {"classes": ["crack", "cut"]})
    with pytest.raises(ValueError, match=r"its classes \['crack', 'cut'\] are not those of .*a, \['crack', 'hole'\]"):
        fresh_with(tiny_dit, (tmp_path / "a", 1.0), (tmp_path / "b", 1.0))


def test_classes_need_a_class_table(tmp_path, tiny_vae):
    saved(tmp_path / "a", tiny_vae, ["bitfit"], classes=["crack"])
    with pytest.raises(ValueError, match="a VAE has no class table"):
        fresh_with(tiny_vae, (tmp_path / "a", 1.0))


# ---- refusals


def edit(path, drop=(), **header):
    """Rewrites the adapter file with other header fields or without some tensors."""
    tensors, recipe = weights.load_adapter(path)
    tensors = {name: tensor.clone() for name, tensor in tensors.items() if name not in drop}
    save_file(tensors, path, {"graft": json.dumps({"kind": "adapter"} | recipe | header)})


def test_another_base_is_refused_with_reasons(tmp_path, tiny_dit, tiny_vae):
    saved(tmp_path / "a", tiny_dit, ["bitfit"])
    smaller = DiT(DiTConfig(depth=1, width=48, heads=4, patch=2, input_size=8, num_classes=5))
    with pytest.raises(ValueError, match="trained on another base: depth 2 but here 1$"):
        fresh_with(smaller, (tmp_path / "a", 1.0))
    with pytest.raises(ValueError, match="trained on another base: a DiT but here a VAE"):
        fresh_with(tiny_vae, (tmp_path / "a", 1.0))
    edit(tmp_path / "a", base={"model": "DiT"})
    with pytest.raises(ValueError, match="trained on another base"):
        fresh_with(tiny_dit, (tmp_path / "a", 1.0))


def test_parameters_that_do_not_fit(tmp_path, tiny_dit):
    saved(tmp_path / "a", tiny_dit, ["lora:rank=2"])
    edit(tmp_path / "a", adapter=["lora:rank=3"])
    with pytest.raises(ValueError, match=r"4 of another shape \(blocks.0.attn.qkv.lora_down expected \[3, 48\]"):
        fresh_with(tiny_dit, (tmp_path / "a", 1.0))
    saved(tmp_path / "a", tiny_dit, ["lora:rank=2"])
    edit(tmp_path / "a", adapter=["bitfit"], drop=["blocks.0.attn.qkv.lora_up"])
    with pytest.raises(ValueError, match=r"found \d+ missing .*, 3 unknown \(blocks.0.attn.qkv.lora_down"):
        fresh_with(tiny_dit, (tmp_path / "a", 1.0))


@pytest.mark.parametrize("spec", ["lora:rank=2", "dora", "oft", "bitfit", "norm", "bottleneck"])
def test_a_file_that_changes_nothing_is_refused(tmp_path, tiny_dit, spec):
    model = copy.deepcopy(tiny_dit)
    recipe = {"adapter": spec, "base": weights.fingerprint(model)}
    weights.save_adapter(tmp_path / "a", adapters.attach(model, spec), recipe)
    with pytest.raises(ValueError, match="change nothing in this model"):
        fresh_with(tiny_dit, (tmp_path / "a", 1.0))


def test_strengths_are_numbers(tmp_path, tiny_dit):
    saved(tmp_path / "a", tiny_dit, ["bitfit"])
    with pytest.raises(ValueError, match="strength must be a finite number, found nan"):
        fresh_with(tiny_dit, (tmp_path / "a", float("nan")))


def test_random_parameters_have_no_half(tmp_path, tiny_dit, monkeypatch):
    def shift(model, generator):
        """A method that is never the base: x + b, b drawn at random."""
        bias = model.final_layer.linear.bias
        model.final_layer.linear.noise = torch.nn.Parameter(torch.randn(bias.shape, generator=generator))

    monkeypatch.setitem(adapters.METHODS, "shift", shift)
    saved(tmp_path / "a", tiny_dit, ["shift"])
    fresh_with(tiny_dit, (tmp_path / "a", 1.0))
    with pytest.raises(
        ValueError, match="final_layer.linear.noise has no value of no change, so its strength must be 1"
    ):
        fresh_with(tiny_dit, (tmp_path / "a", 0.5))


def test_saving_needs_training_and_a_recipe(tmp_path, tiny_dit):
    base = weights.fingerprint(tiny_dit)
    with pytest.raises(ValueError, match="a header needs adapter and base"):
        weights.save_adapter(tmp_path / "a", tiny_dit, {"adapter": "full"})
    with pytest.raises(ValueError, match="and knows .* found .*'colour'"):
        weights.save_adapter(tmp_path / "a", tiny_dit, {"adapter": "full", "base": base, "colour": 1})
    with pytest.raises(ValueError, match="no parameter has requires_grad"):
        weights.save_adapter(tmp_path / "a", tiny_dit.requires_grad_(False), {"adapter": "full", "base": base})


def test_other_files_are_no_adapters(tmp_path, tiny_dit):
    with pytest.raises(ValueError, match="found no such file"):
        weights.load_adapter(tmp_path / "a")
    torch.save({"a": torch.ones(1)}, tmp_path / "a")
    with pytest.raises(ValueError, match=r"found a torch\.save file"):
        weights.load_adapter(tmp_path / "a")
    save_file({"lora_unet_x.lora_up.weight": torch.ones(1)}, tmp_path / "a")
    with pytest.raises(ValueError, match=r"without its header \(lora_unet_x.lora_up.weight"):
        weights.load_adapter(tmp_path / "a")
    saved(tmp_path / "a", tiny_dit, ["bitfit"])
    edit(tmp_path / "a", classes=["crack"], sources=[3])
    with pytest.raises(ValueError, match=r"its header's sources\[0\] must be a list, found 3"):
        weights.load_adapter(tmp_path / "a")
    saved(tmp_path / "a", tiny_dit, ["bitfit"])
    edit(tmp_path / "a", adapter="bitfit")
    with pytest.raises(ValueError, match="its header's adapter must be a list, found 'bitfit'"):
        weights.load_adapter(tmp_path / "a")


def test_thousands_of_classes_that_start_from_the_mean_make_a_small_file(tmp_path, tiny_dit):
    """Each list of source rows stands once in the header, and the rows come back as they were."""
    base, count = weights.fingerprint(tiny_dit), 20_000
    sources = [list(range(10))] * (count - 2) + [[], [3]]
    resize_classes(tiny_dit, sources, torch.Generator().manual_seed(0))
    names = [f"class {i}" for i in range(count)]
    adapters.attach(tiny_dit, ["bitfit"], torch.Generator())
    header = {"adapter": ["bitfit"], "base": base, "classes": names, "sources": sources}
    weights.save_adapter(tmp_path / "a", tiny_dit, header)
    assert load_adapter(tmp_path / "a")[1]["sources"] == sources
    assert sum(len(value) for value in safe.read_metadata(tmp_path / "a").values()) < 500_000
    few = header | {"classes": names[:3], "sources": [[1, 2], [], [3]]}
    weights.save_adapter(tmp_path / "b", tiny_dit, few)
    assert json.loads(safe.read_metadata(tmp_path / "b")["graft"])["sources"] == [[1, 2], [], [3]]


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("sources", {"lists": [[0]], "of": [1]}, r"sources: of\[0\] must be at least 0 and at most 0"),
        ("sources", {"lists": [[-1]], "of": [0]}, r"sources: lists\[0\]\[0\] must be at least 0"),
        ("sources", {"of": [0]}, "sources: lists must be a list"),
        ("tokens", {"x": "1"}, r"tokens\['x'\] must be a whole number"),
        ("tokens", ["x"], "tokens must be an object"),
        ("base", "x", "base must be an object"),
        ("base", {"config": []}, "base, its config must be an object"),
        ("config", [], "config must be an object"),
        ("classes", [1], r"classes\[0\] must be a text"),
    ],
)
def test_no_value_of_a_header_is_taken_on_faith(tmp_path, tiny_dit, field, value, message):
    saved(tmp_path / "a", tiny_dit, ["bitfit"])
    edit(tmp_path / "a", **{field: value})
    with pytest.raises(ValueError, match=message):
        weights.load_adapter(tmp_path / "a")


def test_what_is_written_can_be_read(tmp_path, monkeypatch):
    monkeypatch.setattr(safe, "HEADER_LIMIT", 1000)
    with pytest.raises(ValueError, match="a header of .* bytes, over the limit of 1,000"):
        safe.write(tmp_path / "w", {"a": torch.ones(1)}, {"x": "y" * 1000})
    assert not list(tmp_path.iterdir())


def test_a_file_is_measured_from_the_base_though_another_was_merged_into_the_same_weights(tmp_path, tiny_dit):
    """W + B A of the one and W' - W of the other: W' - (W + B A) would take the first away again."""
    name = "blocks.0.attn.qkv.weight"
    saved(tmp_path / "l", tiny_dit, ["lora:rank=2"])
    saved(tmp_path / "f", tiny_dit, ["full"], seed=1)
    lora, full = [(tmp_path / "l", 1.0)], [(tmp_path / "f", 1.0)]
    base, one, two = (fresh_with(tiny_dit, *files).state_dict()[name] for files in ((), lora, full))
    both = fresh_with(tiny_dit, *lora, *full).state_dict()[name]
    assert torch.allclose(both, one + two - base, atol=1e-6) and not torch.allclose(one, base, atol=1e-3)


def test_the_class_table_is_no_part_of_a_base(tiny_dit):
    """A fine-tune gives it other rows, so that a file fits its base however many classes that has by now."""
    other = copy.deepcopy(tiny_dit)
    resize_classes(other, [[0], [1, 2]])
    ours, theirs = weights.fingerprint(tiny_dit), weights.fingerprint(other)
    assert all(ours[name] == theirs[name] for name in ("structure", "content"))
    with torch.no_grad():
        other.x_embedder.proj.bias += 1
    assert weights.fingerprint(other)["content"] != ours["content"]
