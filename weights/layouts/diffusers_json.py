"""config.json of a diffusers folder, for each kind of model: written, and checked for what our models do not do."""

from pathlib import Path

from dit import DiTConfig
from unet import ControlConfig, UNetConfig, VAEConfig
from unet.row import SINUSOID, SIZE_NUMBERS
from unet.text.encoder import TextConfig

DIT_SCHEDULER = {  # scheduler_config.json of a DiT, without its betas
    "_class_name": "DDIMScheduler",
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "clip_sample": False,
    "set_alpha_to_one": True,
    "steps_offset": 0,
}
# fields of a config.json that must be absent, null or have this value: our models have no other
FIXED = {
    "vae": {
        "act_fn": "silu",
        "shift_factor": None,
        "latents_mean": None,
        "latents_std": None,
        "mid_block_add_attention": True,
        "use_quant_conv": True,
        "use_post_quant_conv": True,
    },
    "unet": {
        "act_fn": "silu",
        "flip_sin_to_cos": True,
        "freq_shift": 0,
        "norm_eps": 1e-5,
        "center_input_sample": False,
        "downsample_padding": 1,
        "mid_block_scale_factor": 1,
        "mid_block_type": "UNetMidBlock2DCrossAttn",
        "only_cross_attention": False,
        "mid_block_only_cross_attention": None,
        "dual_cross_attention": False,
        "class_embed_type": None,
        "num_class_embeds": None,
        "addition_time_embed_dim": SINUSOID,
        "encoder_hid_dim": None,
        "encoder_hid_dim_type": None,
        "time_embedding_type": "positional",
        "timestep_post_act": None,
        "time_embedding_act_fn": None,
        "time_cond_proj_dim": None,
        "resnet_time_scale_shift": "default",
        "resnet_skip_time_act": False,
        "resnet_out_scale_factor": 1.0,
        "conv_in_kernel": 3,
        "conv_out_kernel": 3,
        "cross_attention_norm": None,
        "attention_type": "default",
    },
    "text": {"layer_norm_eps": 1e-5, "attention_bias": True},
}
# those of a UNet that diffusers itself writes
UNET_CONSTANTS = """norm_eps act_fn flip_sin_to_cos freq_shift center_input_sample downsample_padding
    mid_block_scale_factor""".split()
FIXED["controlnet"] = FIXED["unet"] | {"controlnet_conditioning_channel_order": "rgb", "global_pool_conditions": False}


def check_fixed(kind: str, config: dict, source: str | Path) -> None:
    """Raise ValueError for a config.json with something that our model of this kind does not do."""
    if kind in ("unet", "controlnet") and config.get("addition_embed_type") not in (None, "text_time"):
        found = config["addition_embed_type"]
        raise ValueError(f"{source}: expected addition_embed_type null or text_time in its config.json, found {found}")
    for field, value in FIXED[kind].items():
        if config.get(field, value) != value and (field, config[field]) != ("addition_time_embed_dim", None):
            raise ValueError(f"{source}: expected {field} {value} in its config.json, found {config[field]}")


def dit_json(config: DiTConfig) -> dict:
    """transformer/config.json of a diffusers folder. ValueError where diffusers' class cannot be of this shape."""
    if config.mlp_ratio != 4 or not config.class_dropout:
        raise ValueError(
            f"diffusers' DiT has an MLP ratio of 4 and a null class, found ratio {config.mlp_ratio} and "
            f"class_dropout {config.class_dropout}"
        )
    return {
        "_class_name": "DiTTransformer2DModel",
        "num_attention_heads": config.heads,
        "attention_head_dim": config.width // config.heads,
        "num_layers": config.depth,
        "in_channels": config.in_channels,
        "out_channels": config.in_channels * (1 + config.learn_sigma),
        "patch_size": config.patch,
        "sample_size": config.input_size,
        "num_embeds_ada_norm": config.num_classes,
        "activation_fn": "gelu-approximate",
        "attention_bias": True,
        "dropout": 0.0,
        "norm_type": "ada_norm_zero",
        "norm_elementwise_affine": False,
        "norm_eps": 1e-5,
        "norm_num_groups": 32,
        "upcast_attention": False,
    }


def vae_json(config: VAEConfig, sample_size: int = 512) -> dict:
    """vae/config.json of a diffusers folder."""
    levels = len(config.channels)
    return {
        "_class_name": "AutoencoderKL",
        "in_channels": config.in_channels,
        "out_channels": config.in_channels,
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "block_out_channels": list(config.channels),
        "layers_per_block": config.layers,
        "act_fn": "silu",
        "latent_channels": config.latent_channels,
        "norm_num_groups": config.groups,
        "sample_size": sample_size,
        "scaling_factor": config.scaling_factor,
    }


def unet_json(config: UNetConfig) -> dict:
    """unet/config.json of a diffusers folder. What diffusers calls attention_head_dim is the number of heads."""
    depths, vector = [depth or 1 for depth in config.text], {}
    if config.pooled:
        vector = {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": SINUSOID,
            "projection_class_embeddings_input_dim": config.pooled + SIZE_NUMBERS * SINUSOID,
        }
    if max(depths) > 1:
        vector["transformer_layers_per_block"] = depths
    return (
        {
            "_class_name": "UNet2DConditionModel",
            "sample_size": config.input_size,
            "in_channels": config.in_channels,
            "out_channels": config.out_channels,
            "block_out_channels": list(config.channels),
            "down_block_types": ["CrossAttnDownBlock2D" if text else "DownBlock2D" for text in config.text],
            "up_block_types": ["CrossAttnUpBlock2D" if text else "UpBlock2D" for text in reversed(config.text)],
            "mid_block_type": "UNetMidBlock2DCrossAttn",
            "layers_per_block": config.layers,
            "attention_head_dim": list(config.heads),
            "cross_attention_dim": config.text_width,
            "use_linear_projection": config.linear,
            "upcast_attention": config.upcast,
            "norm_num_groups": config.groups,
        }
        | {field: FIXED["unet"][field] for field in UNET_CONSTANTS}
        | vector
    )


def controlnet_json(config: ControlConfig) -> dict:
    """controlnet/config.json of a diffusers folder: the encoder as in the UNet's, and the hint."""
    unet = unet_json(config)
    for field in ("sample_size", "out_channels", "up_block_types", "center_input_sample"):
        del unet[field]
    return unet | {
        "_class_name": "ControlNetModel",
        "conditioning_channels": config.hint_channels,
        "conditioning_embedding_out_channels": list(config.hint_widths),
        "controlnet_conditioning_channel_order": "rgb",
        "global_pool_conditions": False,
    }


def text_json(config: TextConfig) -> dict:
    """text_encoder/config.json of a diffusers folder. ValueError for a text encoder that skips layers.

    The three ids are those of the published files: with eos_token_id 2 transformers pools where the id is largest,
    which is the end in every vocabulary. Stable Diffusion does not pool.
    """
    if config.skip and config.norm:  # XL's skip a layer too, and diffusers knows it
        raise ValueError(
            f"diffusers' text encoder runs all its layers, this text encoder skips {config.skip}: load it with "
            "skip=0, or cut the layers off"
        )
    return {
        "architectures": ["CLIPTextModelWithProjection" if config.projection else "CLIPTextModel"],
        "model_type": "clip_text_model",
        "vocab_size": config.vocab_size,
        "hidden_size": config.width,
        "intermediate_size": 4 * config.width,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "max_position_embeddings": config.max_length,
        "hidden_act": config.activation,
        "layer_norm_eps": 1e-5,
        "attention_dropout": 0.0,
        "projection_dim": config.projection or config.width,
        "bos_token_id": 0,
        "eos_token_id": 2,
        "pad_token_id": 1,
    }


CONFIG_JSON = {"dit": dit_json, "vae": vae_json, "unet": unet_json, "controlnet": controlnet_json, "text": text_json}
