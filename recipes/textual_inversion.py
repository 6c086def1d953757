"""Textual Inversion: a subject as a new word, in a model that stays as it is (Gal et al. 2022, arXiv 2208.01618).

    row* = argmin E |out(z_t, t, text("a photo of *")) - eps|^2

To train more than the word (pivotal tuning), give `token` to the text or dreambooth recipe, beside their adapters.
"""

from recipes import Recipe
from recipes.text import captioned, fine_tune, load


def textual_inversion(cfg, device) -> Recipe:
    """The rows of cfg.token train and nothing else; cfg.adapter is not read. Leaves adapter.safetensors, a few kB."""
    if not cfg.token:
        raise ValueError("textual inversion learns a word: name it by --token, and its start by --token_start")
    sd = load(cfg, device)
    return fine_tune(cfg, device, sd, captioned(cfg, sd, cfg.data), specs=[])
