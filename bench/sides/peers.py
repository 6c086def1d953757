"""The other side of the rows: diffusers and peft as their documentation and training scripts use them."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.sides.random import filled

BF16 = torch.bfloat16


def new(make: Callable[[], nn.Module], dtype: torch.dtype = BF16) -> nn.Module:
    """A model with weights N(0, 0.02) in this dtype."""
    for layer in (nn.Linear, nn.Conv2d, nn.Embedding):
        layer.reset_parameters = lambda self: None  # of this process: numbers that are overwritten cost minutes
    return filled(make().to(dtype))


def new_peer(size: dict, dtype: torch.dtype = BF16) -> nn.Module:
    """The DiT of diffusers."""
    from diffusers import DiTTransformer2DModel

    shape = {"num_layers": size["depth"], "num_attention_heads": size["heads"], "sample_size": size["side"] // 16}
    return new(lambda: DiTTransformer2DModel(attention_head_dim=size["head_width"], out_channels=8, **shape), dtype)


def new_unet(size: dict, dtype: torch.dtype = BF16) -> nn.Module:
    """Stable Diffusion's UNet in diffusers."""
    from diffusers import UNet2DConditionModel

    if not size["unet"]:
        return new(lambda: UNet2DConditionModel(sample_size=64, cross_attention_dim=768), dtype)
    return new(
        lambda: UNet2DConditionModel(
            sample_size=8,
            cross_attention_dim=32,
            block_out_channels=(16, 32),
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            layers_per_block=1,
            norm_num_groups=4,
        ),
        dtype,
    )


def new_xl(size: dict) -> nn.Module:
    """Stable Diffusion XL's UNet in diffusers."""
    from diffusers import UNet2DConditionModel

    return new(lambda: UNet2DConditionModel(**xl_shape(size)))


def xl_shape(size: dict) -> dict:
    """Its config, as published, or of the same parts and small."""
    shape = {
        "sample_size": size["xl_side"] // 8,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "block_out_channels": (320, 640, 1280),
        "transformer_layers_per_block": (1, 2, 10),
        "attention_head_dim": (5, 10, 20),
        "cross_attention_dim": 2048,
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 1280 + 6 * 256,
    }
    if size["xl"]:
        shape |= {
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
            "block_out_channels": (32, 64),
            "transformer_layers_per_block": (1, 1),
            "attention_head_dim": (2, 2),
            "cross_attention_dim": 24,
            "projection_class_embeddings_input_dim": 8 + 6 * 256,
            "norm_num_groups": 8,
        }
    return shape


def new_vae(size: dict) -> nn.Module:
    """Stable Diffusion's autoencoder in diffusers."""
    from diffusers import AutoencoderKL

    return new(
        lambda: AutoencoderKL(
            block_out_channels=tuple(size["vae"]),
            down_block_types=["DownEncoderBlock2D"] * 4,
            up_block_types=["UpDecoderBlock2D"] * 4,
            layers_per_block=size["layers"],
            norm_num_groups=size["groups"],
            latent_channels=4,
        )
    )


def dit(size: dict, device: str) -> Callable:
    """A forward of two samples."""
    dtype = BF16 if size["bf16"] else torch.float32
    model, side = new_peer(size, dtype).to(device).requires_grad_(False), size["side"] // 16
    x, t = torch.randn(2, 4, side, side, device=device, dtype=dtype), torch.full((2,), 500, device=device)
    y = torch.tensor([1, 2], device=device)
    return no_grad(lambda: model(x, timestep=t, class_labels=y))


def no_grad(call: Callable) -> Callable:
    """The call without gradients."""

    def step() -> None:
        with torch.no_grad():
            call()

    return step


def ddim(size: dict, device: str) -> Callable:
    """One guided image by the pipeline."""
    from diffusers import DDIMScheduler, DiTPipeline

    pipeline = DiTPipeline(new_peer(size), new_vae(size), DDIMScheduler(clip_sample=False)).to(device)
    pipeline.set_progress_bar_config(disable=True)

    def step() -> None:
        pipeline(class_labels=[1], guidance_scale=4.0, num_inference_steps=size["steps"])

    return step


def unet(size: dict, device: str) -> Callable:
    """A forward of two samples."""
    model, side = new_unet(size).to(device).requires_grad_(False), size["side"] // 8
    x, t = torch.randn(2, 4, side, side, device=device, dtype=BF16), torch.full((2,), 500, device=device)
    states = torch.randn(2, 77, model.config.cross_attention_dim, device=device, dtype=BF16)
    return no_grad(lambda: model(x, t, states))


def xl_inputs(model: nn.Module, count: int, size: dict, device: str) -> dict:
    """States, pooled text and sizes of so many texts, as the UNet's arguments."""
    side, width = size["xl_side"], model.config.projection_class_embeddings_input_dim - 6 * 256
    sizes = torch.tensor([side, side, 0, 0, side, side], device=device).expand(count, 6)
    added = {"text_embeds": torch.randn(count, width, device=device, dtype=BF16), "time_ids": sizes}
    states = torch.randn(count, 77, model.config.cross_attention_dim, device=device, dtype=BF16)
    return {"encoder_hidden_states": states, "added_cond_kwargs": added}


def xl_guided(size: dict, device: str) -> Callable:
    """One guided step of the scheduler, two texts at once."""
    from diffusers import DDIMScheduler

    model, scheduler = new_xl(size).to(device).requires_grad_(False), DDIMScheduler(clip_sample=False)
    x = torch.randn(1, 4, size["xl_side"] // 8, size["xl_side"] // 8, device=device, dtype=BF16)
    texts = xl_inputs(model, 2, size, device)
    scheduler.set_timesteps(1)
    t = scheduler.timesteps[0]

    def call() -> None:
        null, cond = model(torch.cat([x, x]), t, **texts).sample.chunk(2)
        scheduler.step(null + 5.0 * (cond - null), t, x)

    return no_grad(call)


def vae_decode(size: dict, device: str) -> Callable:
    """One image of a latent."""
    vae, side = new_vae(size).to(device).requires_grad_(False), size["side"] // 8
    z = torch.randn(1, 4, side, side, device=device, dtype=BF16)
    return no_grad(lambda: vae.decode(z))


def sampler(size: dict, device: str) -> Callable:
    """Fifty steps of the scheduler, whose model is one tensor."""
    from diffusers import DDIMScheduler

    scheduler, out = DDIMScheduler(clip_sample=False), torch.randn(1, 4, 32, 32, device=device)

    def call() -> None:
        scheduler.set_timesteps(50)
        x = torch.randn(1, 4, 32, 32, device=device) * scheduler.init_noise_sigma
        for t in scheduler.timesteps:
            x = scheduler.step(out, t, scheduler.scale_model_input(x, t)).prev_sample

    return no_grad(call)


def learned(model: nn.Module, loss: Callable[[], Tensor], device: str) -> Callable:
    """A step of a training script: loss, backward, AdamW as it is by default."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)

    def step() -> None:
        loss().backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def dit_loss(model: nn.Module, size: dict, batch: int, device: str) -> Callable[[], Tensor]:
    """The squared error of the noise, as in the training scripts."""
    side, dtype = size["side"] // 16, next(model.parameters()).dtype
    x0, y = torch.randn(batch, 4, side, side, device=device, dtype=dtype), torch.arange(batch, device=device)

    def loss() -> Tensor:
        eps, t = torch.randn_like(x0), torch.randint(1000, (batch,), device=device)
        out = model(0.7 * x0 + 0.7 * eps, timestep=t, class_labels=y).sample[:, :4]
        return F.mse_loss(out.float(), eps.float())

    return loss


def bitfit(size: dict, device: str) -> Callable:
    """The biases train, everything in bfloat16."""
    model = new_peer(size).to(device).train()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.endswith("bias"))
    return learned(model, dit_loss(model, size, size["batch"], device), device)


def lora(size: dict, device: str) -> Callable:
    """LoRA of rank 8 by peft, everything in bfloat16."""
    from peft import LoraConfig, get_peft_model

    options = LoraConfig(r=8, lora_alpha=8, target_modules=["to_q", "to_k", "to_v", "to_out.0"])
    model = get_peft_model(new_peer(size).to(device).train(), options)
    return learned(model, dit_loss(model, size, size["batch"], device), device)


def full(size: dict, device: str) -> Callable:
    """Everything trains, float32 weights under autocast as the scripts have it."""
    model = new_peer(size, torch.float32).to(device).train().requires_grad_(True)
    loss = dit_loss(model, size, 1, device)

    def lowered() -> Tensor:
        with torch.autocast(device, BF16):
            return loss()

    return learned(model, lowered, device)


def sd_full(size: dict, device: str) -> Callable:
    """The whole UNet trains, float32 weights under autocast; latents and text states are there."""
    model = new_unet(size, torch.float32).to(device).train().requires_grad_(True)
    states = torch.randn(1, 77, model.config.cross_attention_dim, device=device)
    return learned(model, unet_loss(model, size["side"] // 8, {"encoder_hidden_states": states}, device), device)


def xl_lora(size: dict, device: str) -> Callable:
    """LoRA of rank 8 by peft, float32 factors under autocast; latents and texts are there."""
    from peft import LoraConfig

    model = new_xl(size).to(device).train().requires_grad_(False)
    model.add_adapter(LoraConfig(r=8, lora_alpha=8, target_modules=["to_q", "to_k", "to_v", "to_out.0"]))
    in_float32(model)
    texts = xl_inputs(model, 1, size, device)
    return learned(model, unet_loss(model, size["xl_side"] // 8, texts, device), device)


def unet_loss(model: nn.Module, side: int, texts: dict, device: str) -> Callable[[], Tensor]:
    """The squared error of the noise of one image, under autocast."""
    x0 = torch.randn(1, 4, side, side, device=device)

    def loss() -> Tensor:
        eps, t = torch.randn_like(x0), torch.randint(1000, (1,), device=device)
        with torch.autocast(device, BF16):
            out = model(0.7 * x0 + 0.7 * eps, t, **texts).sample
        return F.mse_loss(out.float(), eps)

    return loss


def in_float32(model: nn.Module) -> None:
    """What trains of it, as the training scripts have it."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def sd_lora(size: dict, device: str) -> Callable:
    """diffusers' LoRA script: frozen parts in bfloat16, float32 factors under autocast, image and text encoded."""
    from peft import LoraConfig
    from transformers import CLIPTextConfig, CLIPTextModel

    model, vae = new_unet(size).to(device).train().requires_grad_(False), new_vae(size).to(device)
    width, layers = (768, 12) if not size["unet"] else (32, 2)
    shape = {"hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": layers}
    text = new(lambda: CLIPTextModel(CLIPTextConfig(num_attention_heads=width // 64 or 2, **shape))).to(device)
    for part in (vae, text):
        part.requires_grad_(False)
    targets = ["to_q", "to_k", "to_v", "to_out.0"]
    model.add_adapter(LoraConfig(r=4, lora_alpha=4, init_lora_weights="gaussian", target_modules=targets))
    in_float32(model)
    image = torch.randn(1, 3, size["side"], size["side"], device=device, dtype=BF16)
    ids = torch.zeros(1, 77, dtype=torch.long, device=device)

    def loss() -> Tensor:
        with torch.no_grad():
            z = vae.encode(image).latent_dist.sample() * 0.18215
            states = text(ids)[0]
        eps, t = torch.randn_like(z), torch.randint(1000, (1,), device=device)
        with torch.autocast(device, BF16):
            out = model(0.7 * z + 0.7 * eps, t, states).sample
        return F.mse_loss(out.float(), eps.float())

    return learned(model, loss, device)
