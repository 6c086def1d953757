"""Configs of our models from and to diffusers' JSON files, and from the shapes of a file's tensors."""

from dataclasses import fields, replace

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from dit import SIZES, DiT, DiTConfig
from unet import VAE, VAEConfig
from weights.layouts import Layout, file_names

MODELS = {"dit": (DiT, DiTConfig), "vae": (VAE, VAEConfig)}
HEADS = {(size["width"], size["depth"]): size["heads"] for size in SIZES.values()}
SDXL = 0.13025  # scaling factor of Stable Diffusion XL's VAE, whose shapes are those of the first


def size_of(config) -> int:
    """What a layout's table depends on: blocks of a DiT, levels of a VAE."""
    return config.depth if isinstance(config, DiTConfig) else len(config.channels)


class NoDraws(TorchFunctionMode):
    """Random initialisation does nothing: on the meta device it changes nothing either, and torch would import its
    compiler for it, which takes longer than all the rest of loading a model.
    """

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if getattr(function, "__module__", None) == nn.init.__name__:
            return None  # no layer looks at what an initialiser returns
        return function(*args, **(kwargs or {}))


def empty(kind: str, config) -> nn.Module:
    """A model of this shape without memory for its weights (the meta device)."""
    with torch.device("meta"), NoDraws():
        return MODELS[kind][0](config)


def from_dict(kind: str, values: dict, source):
    """The config of a native file's header. ValueError for fields that it does not have."""
    try:
        values = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
        config = MODELS[kind][1](**values)
        size_of(config) + 0
        return config
    except (TypeError, AttributeError) as error:
        raise ValueError(f"{source}: the config in its header does not fit: {error}") from None


def overridden(config, overrides: dict):
    known = [field.name for field in fields(config)]
    unknown = [name for name in overrides if name not in known]
    if unknown:
        raise ValueError(f"unknown override {unknown[0]!r}, a {type(config).__name__} has {', '.join(known)}")
    return replace(config, **overrides)


def infer_dit(layout: Layout, tensors: dict[str, Tensor], metadata: dict, depth: int, given: dict, source):
    """A DiT's config from its shapes; heads from `given`, config.json, the training args or the preset of that size."""

    def shape(name):
        names = file_names(name, layout, depth)
        if names[0] not in tensors:
            raise ValueError(f"{source}: expected {names[0]}, which tells the model's shape, found no such tensor")
        return tensors[names[0]].shape

    theirs, args = metadata.get("config", {}), metadata.get("args", {})
    width, channels, patch, _ = shape("x_embedder.proj.weight")
    out = shape("final_layer.linear.weight")[0] // patch**2
    rows = shape("y_embedder.embedding_table.weight")[0]
    classes = given.get("num_classes", args.get("num_classes", theirs.get("num_embeds_ada_norm")))
    classes = rows - 1 if classes is None else classes
    if rows - classes not in (0, 1):
        raise ValueError(f"{source}: expected {classes} class rows, or one more for the null class, found {rows}")
    heads = given.get("heads", theirs.get("num_attention_heads", SIZES.get(args.get("model"), {}).get("heads")))
    heads = heads or HEADS.get((width, depth))
    if not heads:
        raise ValueError(f"{source}: width {width} and depth {depth} are no published size, so give heads=")
    side = theirs.get("sample_size")
    if "pos_embed" in tensors:
        side = patch * round(tensors["pos_embed"].shape[1] ** 0.5)
    side = given.get("input_size", side)
    if not side:
        raise ValueError(f"{source}: neither pos_embed nor a config.json tells the latent's side, so give input_size=")
    return DiTConfig(
        depth=depth, width=width, heads=heads, patch=patch, input_size=side, in_channels=channels,
        num_classes=classes, class_dropout=0.1 * (rows - classes), learn_sigma=out == 2 * channels,
        mlp_ratio=shape("blocks.0.mlp.fc1.weight")[0] / width,
    )  # fmt: skip


def infer_vae(layout: Layout, tensors: dict[str, Tensor], metadata: dict, levels: int, given: dict, source):
    """A VAE's config from its shapes; groups and scale from `given`, config.json or Stable Diffusion's values."""

    def shape(name):
        names = file_names(name, layout, levels)
        if names[0] not in tensors:
            raise ValueError(f"{source}: expected {names[0]}, which tells the model's shape, found no such tensor")
        return tensors[names[0]].shape

    theirs, channels_in = metadata.get("config", {}), shape("encoder.conv_in.weight")[1]
    layers = 0
    while file_names(f"encoder.down.0.res.{layers}.norm1.weight", layout, levels)[0] in tensors:
        layers += 1
    latents = shape("encoder.conv_out.weight")[0] // 2
    if latents == 16:
        raise ValueError(f"{source}: a Stable Diffusion 3 or Flux VAE with 16 latent channels, expected 4")
    channels = tuple(shape(f"encoder.down.{level}.res.0.conv1.weight")[0] for level in range(levels))
    groups = given.get("groups", theirs.get("norm_num_groups", 32))
    if any(width % groups for width in channels):
        raise ValueError(f"{source}: channels {channels} are no multiples of {groups} groups, so give groups=")
    xl = any(name.startswith("conditioner.embedders.1.") for name in tensors)
    return VAEConfig(
        in_channels=channels_in, latent_channels=latents, channels=channels, layers=layers,
        groups=groups, scaling_factor=theirs.get("scaling_factor", SDXL if xl else VAEConfig.scaling_factor),
    )  # fmt: skip


def dit_json(config: DiTConfig) -> dict:
    """transformer/config.json of a diffusers folder. ValueError where diffusers' class cannot be of this shape."""
    if config.mlp_ratio != 4 or not config.class_dropout:
        raise ValueError(f"diffusers' DiT has an MLP ratio of 4 and a null class, found ratio {config.mlp_ratio} and "
                         f"class_dropout {config.class_dropout}")  # fmt: skip
    return {
        "_class_name": "DiTTransformer2DModel", "num_attention_heads": config.heads,
        "attention_head_dim": config.width // config.heads, "num_layers": config.depth,
        "in_channels": config.in_channels, "out_channels": config.in_channels * (1 + config.learn_sigma),
        "patch_size": config.patch, "sample_size": config.input_size, "num_embeds_ada_norm": config.num_classes,
        "activation_fn": "gelu-approximate", "attention_bias": True, "dropout": 0.0, "norm_type": "ada_norm_zero",
        "norm_elementwise_affine": False, "norm_eps": 1e-5, "norm_num_groups": 32, "upcast_attention": False,
    }  # fmt: skip


def vae_json(config: VAEConfig, sample_size: int = 512) -> dict:
    """vae/config.json of a diffusers folder."""
    levels = len(config.channels)
    return {
        "_class_name": "AutoencoderKL", "in_channels": config.in_channels, "out_channels": config.in_channels,
        "down_block_types": ["DownEncoderBlock2D"] * levels, "up_block_types": ["UpDecoderBlock2D"] * levels,
        "block_out_channels": list(config.channels), "layers_per_block": config.layers, "act_fn": "silu",
        "latent_channels": config.latent_channels, "norm_num_groups": config.groups, "sample_size": sample_size,
        "scaling_factor": config.scaling_factor,
    }  # fmt: skip


SCHEDULER_JSON = {  # the schedule that DiT was trained with
    "_class_name": "DDIMScheduler", "num_train_timesteps": 1000, "beta_schedule": "linear", "beta_start": 0.0001,
    "beta_end": 0.02, "prediction_type": "epsilon", "clip_sample": False, "set_alpha_to_one": True, "steps_offset": 0,
}  # fmt: skip


def kind_of(model: nn.Module) -> str:
    """ "dit" or "vae"; ValueError for any other model."""
    for kind, (model_class, _) in MODELS.items():
        if isinstance(model, model_class):
            return kind
    raise ValueError(f"expected a DiT or a VAE, found {type(model).__name__}")


def plain_state(model: nn.Module) -> dict[str, Tensor]:
    """The state dict of a model without adapters; ValueError naming the first that is not its class's own."""
    expected = empty(kind_of(model), model.config).state_dict()
    state = model.state_dict()
    odd = sorted(expected.keys() ^ state.keys())
    if odd or any(state[name].shape != tensor.shape for name, tensor in expected.items()):
        raise ValueError(
            f"expected the {len(expected)} plain tensors of a {type(model).__name__}, found {len(odd)} others "
            f"({', '.join(odd[:3])}): adapters must be folded first, and what does not fold is saved by save_adapter"
        )
    return state
