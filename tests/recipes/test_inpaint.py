"""The inpaint recipe: the same output at step 0, the three terms and where their gradients go, with any adapter."""

import numpy as np
import pytest
import torch
from PIL import Image

import adapters
import dit.inpaint
import sample
import train
import unet.inpaint
import weights
from ops.device import Compute
from recipes.inpaint import inpaint
from recipes.objectives.inpaint import BOXES, Terms, filling, random_boxes
from sampling import Schedule
from unet import TextConditioned
from unet.attend import decoder_layers, recorded, word_attention

DATA = "generated:hazelnut/few/1"
FEW = "--recipe inpaint --batch 2 --sample-steps 2 --count 1 --cache= --warmup 0 --precision fp32".split() + [
    "--data",
    DATA,
]
CPU = Compute(torch.device("cpu"), "fp32")


def dit_flags(tiny):
    return ["--model", str(tiny / "dit.safetensors"), "--vae", str(tiny / "vae.safetensors"), *FEW]


def job_of(argv):
    return inpaint(train.configure([*argv, "--out", "x"], train.__doc__), CPU)


def inputs(model):
    generator = torch.Generator().manual_seed(0)
    x, hint = torch.randn(2, 4, 4, 4, generator=generator), torch.randn(2, 5, 4, 4, generator=generator)
    t = torch.tensor([30, 700])
    if isinstance(model, TextConditioned):
        return x, t, torch.randn(2, 16, 16, generator=generator), hint
    return x, t, torch.tensor([0, 3]), hint


@pytest.mark.parametrize("kind", ["dit", "sd"])
def test_new_channels_change_no_bit_and_then_decide(kind, tiny, tiny_sd):
    if kind == "sd":
        sd = weights.load_sd(tiny_sd, dtype=torch.float32)
        model, take = TextConditioned(sd.unet, sd.text), unet.inpaint.take_mask
    else:
        model, take = weights.load(tiny / "dit.safetensors", dtype=torch.float32), dit.inpaint.take_mask
    x, t, cond, hint = inputs(model)
    before = model(x, t, cond)
    assert torch.equal(take(model)(x, t, cond, hint), before)
    twice = model(torch.cat([x, x]), torch.cat([t, t]), torch.cat([cond, cond]), hint)
    assert torch.allclose(twice, torch.cat([before, before]), atol=1e-5)
    first = model.unet.conv_in if kind == "sd" else model.x_embedder.proj
    first.weight.data[:, 4:] += 0.1
    assert not torch.allclose(model(x, t, cond, hint), before)
    with pytest.raises(ValueError, match="reads a photograph and its mask"):
        model(x, t, cond)


def batch_of(job, count=4):
    return job.batch(torch.arange(count), torch.Generator().manual_seed(0))


@pytest.mark.parametrize("method", ["full", *sorted({*adapters.METHODS} - {"full", "crossattn", "tokens"})])
def test_a_dit_trains_with_any_adapter_and_its_file_gives_the_same(method, tiny, tmp_path):
    spec = {"lora": "lora:rank=2", "dora": "dora:rank=2", "bottleneck": "bottleneck:width=4", "oft": "oft:blocks=2"}
    job = job_of([*dit_flags(tiny), "--adapter", spec.get(method, method)])
    generator = torch.Generator().manual_seed(0)
    parameters = [p for p in job.model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=0.1)
    job.loss(batch_of(job), generator, 0.0)[0].backward()
    assert job.model.x_embedder.proj.weight.grad[:, 4:].abs().sum() > 0 or method == "bnn"
    optimizer.step()
    job.finish(tmp_path)
    base = weights.load(tiny / "dit.safetensors", dtype=torch.float32)
    again = weights.apply_adapters(base, [(str(tmp_path / "adapter.safetensors"), 1.0)])
    ours = adapters.merge(job.model).eval()
    x, t, _, hint = inputs(ours)
    y = torch.tensor([0, 4])
    assert torch.allclose(again(x, t, y, hint), ours(x, t, y, hint), atol=1e-5)
    assert not torch.allclose(again(x, t, y, hint), again(x, t, y, torch.zeros_like(hint)))


def terms_of(tiny_sd, terms, word=None):
    """A batch, the masked model without zeros and the loss with these terms."""
    sd = weights.load_sd(tiny_sd, dtype=torch.float32)
    model = unet.inpaint.take_mask(TextConditioned(sd.unet, sd.text))
    torch.manual_seed(3)
    torch.nn.init.normal_(model.unet.conv_in.weight, std=0.1)
    mask = torch.zeros(2, 1, 16, 16)
    mask[..., 4:9, 5:12] = 1
    batch = {
        "x0": torch.randn(2, 4, 4, 4),
        "cond": torch.randn(2, 16, 16),
        "defect_cond": torch.randn(2, 16, 16),
        "pixels": torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8),
        "mask": mask,
    }
    return model, batch, filling(model, sd.vae, Schedule.scaled_linear(), terms, word)


def test_the_terms_add_up_with_their_weights(tiny_sd):
    values = []
    for terms in (Terms(1, 0, 0), Terms(0, 1, 0), Terms(0, 0, 1), Terms(0.5, 0.2, 0.05)):
        _, batch, loss = terms_of(tiny_sd, terms, [3])
        values.append(loss(batch, torch.Generator().manual_seed(0), 0.0)[0].item())
    assert values[3] == pytest.approx(0.5 * values[0] + 0.2 * values[1] + 0.05 * values[2])


def test_the_defect_term_has_no_gradient_outside_of_the_mask(tiny_sd):
    model, batch, loss = terms_of(tiny_sd, Terms(1, 0, 0))
    seen = []

    def keep(layer, inputs, out):
        out.retain_grad()
        seen.append(out)

    model.register_forward_hook(keep)
    loss(batch, torch.Generator().manual_seed(0), 0.0)[0].backward()
    inside = unet.inpaint.touched(batch["mask"], (4, 4)).bool().expand(2, 4, 4, 4)
    assert inside.any() and not inside.all()
    assert (seen[0].grad[~inside] == 0).all() and (seen[0].grad[inside] != 0).all()


def test_the_attention_term_has_a_gradient(tiny_sd):
    model, batch, loss = terms_of(tiny_sd, Terms(0, 0, 1), [3])
    loss(batch, torch.Generator().manual_seed(0), 0.0)[0].backward()
    for layer in decoder_layers(model.unet):
        assert layer.to_q.weight.grad.abs().sum() > 0 and layer.to_k.weight.grad.abs().sum() > 0
    assert model.unet.conv_in.weight.grad.abs().sum() > 0


def test_the_words_map_is_the_mean_of_the_decoders_attention(tiny_sd):
    sd = weights.load_sd(tiny_sd, dtype=torch.float32)
    x, t, cond, _ = inputs(TextConditioned(sd.unet, sd.text))
    layers = decoder_layers(sd.unet)
    with recorded(layers) as projections:
        sd.unet(x, t, cond)
    seen = word_attention(layers, projections, [2, 3], (4, 4))
    assert seen.shape == (2, 1, 4, 4) and not any(layer.to_q._forward_hooks for layer in layers)
    by_hand = []
    for layer, q, k in zip(layers, projections[::2], projections[1::2]):
        heads = [part.unflatten(2, (layer.heads, -1)).transpose(1, 2) for part in (q, k)]
        weight = (heads[0] @ heads[1].mT / heads[0].shape[-1] ** 0.5).softmax(-1)[..., 2:4].sum(-1).mean(1)
        by_hand.append(weight.view(2, 1, 4, 4))
    assert torch.allclose(seen, torch.stack(by_hand).mean(0), atol=1e-6)


def test_boxes_have_the_papers_sides_and_lie_inside():
    b = random_boxes((8, 1, 100, 100), torch.Generator().manual_seed(0))
    assert b.shape == (8, 1, 100, 100) and set(b.unique().tolist()) == {0, 1}
    assert all(9 * BOXES < area < 625 * BOXES for area in b.sum((1, 2, 3)).tolist()) and 0.2 < b.mean() < 0.7
    assert not torch.equal(b[0], b[1])


@pytest.fixture(scope="module")
def runs(tiny, tiny_sd, tmp_path_factory):
    folder = tmp_path_factory.mktemp("inpaint")
    train.main([*dit_flags(tiny), "--steps", "3", "--lr", "0.05", "--out", str(folder / "dit")])
    text = "--adapter unet.lora:rank=2 --adapter text.lora:rank=2 --text-lr 0.01 --word hazelnut --lr 0.05".split()
    train.main([*FEW, "--model", str(tiny_sd), *text, "--steps", "3", "--out", str(folder / "sd")])
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)).save(folder / "good.png")
    mask = Image.new("L", (16, 16))
    mask.paste(255, (4, 4, 12, 12))
    mask.save(folder / "mask.png")
    return folder


@pytest.mark.parametrize(("run", "what"), [("dit", ["--classes", "crack"]), ("sd", ["--prompt", "a hazelnut"])])
def test_sample_fills_with_a_run(run, what, runs, tmp_path):
    fill = ["--image", str(runs / "good.png"), "--mask", str(runs / "mask.png")]
    sample.main(["--run", str(runs / run), *what, *fill, "--steps", "2", "--count", "1", "--out", str(tmp_path)])
    good, mask = (np.asarray(Image.open(runs / f"{name}.png")) for name in ("good", "mask"))
    image = np.asarray(Image.open(next(tmp_path.glob("*_000.png"))))
    assert (image[mask == 0] == good[mask == 0]).all() and (image[mask > 0] != good[mask > 0]).any()
    assert (runs / run / "samples" / "step_000003.png").is_file()
    with pytest.raises(ValueError, match="reads a photograph and its mask"):
        sample.main(["--run", str(runs / run), *what, "--steps", "2", "--count", "1", "--out", str(tmp_path / "b")])


def test_a_model_for_inpainting_trains_without_its_first_layer(tiny_sd, tmp_path):
    sd = weights.load_sd(tiny_sd, dtype=torch.float32)
    unet.inpaint.take_mask(TextConditioned(sd.unet, sd.text))
    weights.save_sd(sd, tmp_path / "nine", "sd-diffusers")
    job = job_of([*FEW, "--model", str(tmp_path / "nine"), "--adapter", "lora:rank=2"])
    assert job.adapter == ["unet.lora:rank=2"] and not job.model.unet.conv_in.weight.requires_grad
    with pytest.raises(ValueError, match="an inpainting model: 9 input channels"):
        train.main([*FEW, "--recipe", "text", "--model", str(tmp_path / "nine"), "--out", str(tmp_path / "run")])


@pytest.mark.parametrize(
    ("more", "fault"),
    [
        (["--word", "walnut"], "--word walnut must stand in the caption of every image with a mask"),
        (["--mask-weight", "2"], "reads no --mask-weight"),
        (["--attention", "1"], "--attention"),
    ],
)
def test_what_does_not_fit_is_one_sentence(more, fault, tiny_sd):
    with pytest.raises(ValueError, match=fault):
        job_of([*FEW, "--model", str(tiny_sd), "--adapter", "lora:rank=2", *more])


@pytest.mark.parametrize(("side", "flags", "said"), [(6, [], True), (6, ["--window", "2"], False), (20, [], False)])
def test_defects_that_are_small_in_the_picture_are_said_once(side, flags, said, tiny, tmp_path, capsys):
    for kind, name in (("test", "0.png"), ("ground_truth", "0_mask.png")):
        pixels = np.zeros((32, 32), np.uint8)
        pixels[4 : 4 + side, 8 : 8 + 2] = 255
        (tmp_path / "nut" / kind / "crack").mkdir(parents=True)
        Image.fromarray(pixels).save(tmp_path / "nut" / kind / "crack" / name)
    job_of([*dit_flags(tiny)[:-2], "--data", str(tmp_path), *flags])
    told = [line for line in capsys.readouterr().out.splitlines() if "--window 2" in line]
    assert len(told) == said and all("span 0.19 of" in line for line in told)
