"""Consistency distillation: who is the teacher, and that all of the student learns."""

import copy
from functools import partial

import torch

import adapters
import weights
from recipes.objectives.consistency import distillation
from sampling import Schedule, cfg, consistency_loss
from unet import TextConditioned


def backbones(tiny, tiny_sd):
    """A model with a student beside its weights, its copy from before, the context without it, a batch, the null."""
    sd = weights.load_sd(tiny_sd)
    words = sd.tokenizer.tokens(["a hazelnut", "a hole", ""])
    for model, cond, null, specs in (
        (weights.load(tiny / "dit.safetensors"), torch.tensor([1, 3]), 5, "lora"),
        (TextConditioned(sd.unet, sd.text), words[:2], words[2:], ["unet.lora", "text.lora"]),
    ):
        teacher = copy.deepcopy(model)
        classes = adapters.layer_classes(model)
        adapters.attach(model, specs, torch.Generator().manual_seed(0))
        without_adapter = partial(adapters.disable_adapters, classes)
        for parameter in adapters.trainable_parameters(model).values():
            torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(1))
        yield model, teacher, without_adapter, {"x0": torch.randn(2, 4, 4, 4), "cond": cond}, null


def test_the_teacher_is_the_guided_model_without_the_student(tiny, tiny_sd):
    schedule = Schedule.linear()
    for model, teacher, without_adapter, batch, null in backbones(tiny, tiny_sd):
        found, _ = distillation(model, without_adapter, schedule, null, 4.0)(batch, seeded(), 0.0)
        student, guided = (cfg(of, batch["cond"], null, scale) for of, scale in ((model, 1.0), (teacher, 4.0)))
        expected, _ = consistency_loss(student, guided, batch["x0"], schedule, seeded())
        assert torch.equal(found, expected)
        itself, _ = consistency_loss(student, cfg(model, batch["cond"], null, 4.0), batch["x0"], schedule, seeded())
        assert not torch.allclose(found, itself)


def test_all_of_the_student_learns_in_bfloat16(tiny, tiny_sd):
    """Autocast keeps the weights that it has cast, and three forwards share them, two without a gradient."""
    for model, _, without_adapter, batch, null in backbones(tiny, tiny_sd):
        loss = distillation(model, without_adapter, Schedule.linear(), null, 3.0)
        with torch.autocast("cpu", torch.bfloat16):
            value, _ = loss(batch, seeded(), 0.0)
        value.backward()
        assert all(p.grad is not None and p.grad.any() for p in adapters.trainable_parameters(model).values())


def seeded():
    return torch.Generator().manual_seed(2)
