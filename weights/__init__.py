"""Reading and writing weights: every known layout, this package's own files, adapters on top of them."""

from weights.adapter_file import apply_adapters, fingerprint, load_adapter, save_adapter
from weights.control import load_control, save_control, with_control
from weights.embeddings import add_embedding, add_words
from weights.files import read
from weights.foreign_adapter import is_foreign
from weights.load import load
from weights.load_sd import StableDiffusion, is_sd, load_sd
from weights.native import save_model
from weights.save_sd import save_sd

__all__ = [
    "StableDiffusion",
    "add_embedding",
    "add_words",
    "apply_adapters",
    "fingerprint",
    "is_foreign",
    "is_sd",
    "load",
    "load_adapter",
    "load_control",
    "load_sd",
    "read",
    "save_adapter",
    "save_control",
    "save_model",
    "save_sd",
    "with_control",
]
