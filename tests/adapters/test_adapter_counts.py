"""Trained parameters on DiT-XL/2 at 256 px, against the published counts (DiffFit, arXiv 2304.06648).

The paper counts a class table of 102 rows (Food-101 and the null class) in every method, and leaves out pos_embed.
OFT and DoRA on the UNet of Stable Diffusion 1.
"""

import pytest
import torch

import adapters
from dit import DiT
from unet import TextEncoder, UNet
from unet.sizes import TEXT_ENCODERS, UNETS


def xl2(num_classes: int) -> DiT:
    with torch.device("meta"):
        return DiT.from_name("DiT-XL/2", num_classes=num_classes)


@pytest.mark.parametrize(
    ("specs", "count"),
    [
        ("full", 673_799_072),  # published 673.8M
        ("bitfit", 489_632),
        (["bitfit", "classes"], 607_136),  # published 0.61M
        (["lora:rank=8", "classes"], 1_149_696),  # published 1.15M
        (["lora:rank=16", "classes"], 2_181_888),  # published 2.18M
        ("dora:rank=8", 1_032_192 + 28 * 3 * 1152),  # LoRA, and a norm for each of q, k and v
        ("oft", 28 * 4 * 288**2),
        ("oft:blocks=8,share=1", 28 * 144**2),
        (["bottleneck", "classes"], 4_280_320),
        (["bottleneck:form=sequential", "classes"], 4_280_320),
        ("norm", 131_328),
        ("difffit", 802_976),  # published 0.803M
        ("difffit:blocks=25", 796_064),
        ("difffit:blocks=14", 770_720),  # published 0.770M
        ("difffit:blocks=4", 747_680),  # published 0.747M
    ],
)
def test_counts_with_102_class_rows(specs, count):
    model = adapters.attach(xl2(101), specs)
    assert adapters.counts(model)[0] == count


def test_counts_on_the_unet():
    with torch.device("meta"):
        turned, scaled = (adapters.attach(UNet(UNETS["SD-1"]), spec) for spec in ("oft", "dora"))
    assert adapters.counts(turned)[0] == 23_304_192
    independent = [
        p.shape[0] * p.shape[1] * (p.shape[1] - 1) // 2 for p in adapters.trainable_parameters(turned).values()
    ]
    assert sum(independent) == 11_602_368
    assert adapters.counts(scaled)[0] == 797_184 + 99_840  # LoRA, and the outputs of 128 Linears


@pytest.mark.parametrize(
    ("spec", "count"),
    [
        ("lora:rank=4", 5_806_080),
        ("lora:rank=8", 11_612_160),
        ("lora:rank=16", 23_224_320),
        ("crossattn", 340_787_200),
        ("bitfit", 1_289_284),
        ("norm", 588_160),
        ("full", 2_567_463_684),
    ],
)
def test_counts_on_the_unet_of_xl(spec, count):
    with torch.device("meta"):
        assert adapters.counts(adapters.attach(UNet(UNETS["SDXL"]), spec))[0] == count


@pytest.mark.parametrize(("name", "count"), [("CLIP-L-XL", 73_728), ("OpenCLIP-bigG", 327_680)])
def test_counts_on_the_text_encoders_of_xl(name, count):
    with torch.device("meta"):
        encoder = adapters.attach(TextEncoder(TEXT_ENCODERS[name]), "lora:rank=1")
    assert adapters.counts(encoder)[0] == count


def test_total_has_pos_embed_and_what_the_method_adds():
    base = 675_129_632 - (1001 - 102) * 1152
    assert adapters.counts(adapters.attach(xl2(101), "full")) == (base - 294_912, base)
    assert adapters.counts(adapters.attach(xl2(101), "lora:rank=8"))[1] == base + 28 * 8 * 4608


def test_bitfit_takes_145_biases():
    model = adapters.attach(xl2(1000), "bitfit")
    assert len(adapters.trainable_parameters(model)) == 145 and len(list(model.named_parameters())) == 292


def test_biases_norms_and_classes_of_the_imagenet_model():
    assert adapters.counts(adapters.attach(xl2(1000), ["bitfit", "norm", "classes"]))[0] == 1_774_112
    assert adapters.counts(adapters.attach(xl2(1000), ["bitfit", "classes"]))[0] == 1_642_784
