"""Reading and writing weights: every known layout, this package's own files, adapters on top of them."""

from weights.adapter_file import apply_adapters, fingerprint, load_adapter, save_adapter
from weights.files import read
from weights.load import load
from weights.native import save_model

__all__ = ["apply_adapters", "fingerprint", "load", "load_adapter", "read", "save_adapter", "save_model"]
