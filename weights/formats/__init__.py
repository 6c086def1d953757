"""Bytes <-> tensors by name: safetensors, pickles, TorchScript, folders, and where published files lie."""
