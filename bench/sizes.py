"""The sizes of the models of the bench: the published ones, and tiny ones that show that the bench itself works."""

FULL = {
    "model": "DiT-XL/2",
    "depth": 28,  # blocks of the DiT
    "heads": 16,
    "head_width": 72,
    "side": 512,  # pixels of Stable Diffusion's images; half for the DiT's
    "unet": {},  # fields that are not Stable Diffusion 1's
    "text": {},
    "xl": {},  # fields that are not Stable Diffusion XL's
    "xl_side": 1024,  # pixels of its images
    "vae": [128, 256, 512, 512],
    "groups": 32,
    "layers": 2,
    "steps": 50,  # of the guided DDIM
    "batch": 4,
    "has_depth": ["dit", "ddim", "bitfit", "bitfit_twice", "lora", "checkpoint", "full", "full_b4", "read", "first"],
}
TINY = FULL | {
    "model": "DiT-T/2",
    "depth": 2,
    "heads": 6,
    "head_width": 32,
    "side": 64,
    "unet": {"channels": (16, 32), "text": (1, 0), "heads": (2, 2), "layers": 1, "text_width": 32, "groups": 4},
    "text": {"vocab_size": 560, "width": 32, "layers": 2, "heads": 2, "max_length": 16},
    "xl": {"channels": (32, 64), "text": (0, 1), "heads": (2, 2), "text_width": 24, "pooled": 8, "groups": 8},
    "xl_side": 64,
    "vae": [8, 8, 8, 8],
    "groups": 4,
    "layers": 1,
    "steps": 2,
    "batch": 2,
}
