"""Reading and writing weights: every known layout, this package's own files, adapters on top of them.

formats/         bytes <-> tensors
layouts/         which model and which names a file holds, and its config
models/          a whole model from a file, and into one
adapter_files/   what a fine-tune trained, in the files of this package and of other tools
"""

from weights.adapter_files.apply import apply_adapters, with_control, with_controls
from weights.adapter_files.embeddings import add_embedding, add_words, check_words
from weights.adapter_files.lora_import import is_foreign
from weights.adapter_files.native import fingerprint, load_adapter, save_adapter
from weights.formats.files import read
from weights.layouts.scheduler_json import sd_schedule
from weights.models.controlnet import load_control, save_control
from weights.models.load import load
from weights.models.load_sd import StableDiffusion, is_sd, load_sd
from weights.models.save import save_model
from weights.models.save_sd import save_sd

__all__ = [
    "StableDiffusion",
    "add_embedding",
    "add_words",
    "apply_adapters",
    "check_words",
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
    "sd_schedule",
    "with_control",
    "with_controls",
]
