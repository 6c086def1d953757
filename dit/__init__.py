"""The Diffusion Transformer, class-conditional (Peebles and Xie 2023, arXiv 2212.09748)."""

from dit.classes import resize_classes
from dit.control import ControlledDiT
from dit.inpaint import MaskedDiT
from dit.model import SIZES, DiT, DiTConfig

__all__ = ["SIZES", "ControlledDiT", "DiT", "DiTConfig", "MaskedDiT", "resize_classes"]
