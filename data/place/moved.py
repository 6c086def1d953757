"""Masks of real defects elsewhere: turned, scaled, mirrored, moved; and a defect laid on another ground."""

import math
from collections.abc import Sequence

import numpy as np
import scipy

TURN, SCALE = 0.35, 4 / 3  # radians; a factor
INSIDE, TRIES = 0.95, 200  # share of a mask that must lie where it may; places tried


def displaced(
    planes: Sequence[np.ndarray], rng: np.random.Generator, shift: int, turn: float = TURN, scale: float = SCALE
) -> list[np.ndarray]:
    """A square (S, S) and its mask, both turned by up to `turn` radians, scaled by up to `scale`, mirrored, and moved.

    shift: pixels of the move, at most. Returns floats.

    Pixels from beyond the border repeat the border, without a defect.
    """
    angle, factor = rng.uniform(-turn, turn), scale ** rng.uniform(-1, 1)
    rotation = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    matrix, middle = factor * rotation * rng.choice([-1, 1], 2), np.full(2, (len(planes[0]) - 1) / 2)
    offset = middle - matrix @ (middle + rng.integers(-shift, shift + 1, 2))
    return [
        scipy.ndimage.affine_transform(plane.astype(float), matrix, offset, order=1, mode=beyond)
        for plane, beyond in zip(planes, ("nearest", "constant"))
    ]


def laid(image: np.ndarray, alpha: np.ndarray, ground: np.ndarray) -> np.ndarray:
    """alpha image + (1 - alpha) ground, as uint8."""
    return (alpha * image + (1 - alpha) * ground).clip(0, 255).astype(np.uint8)


def relit(image: np.ndarray, around: np.ndarray, ground: np.ndarray) -> np.ndarray:
    """(image - mean(around)) / std(around) * std(ground) + mean(ground): a defect in another photograph's light.

    around: the pixels of the image without the defect.
    """
    return (image - around.mean()) / (around.std() + 1) * ground.std() + ground.mean()


def moved_mask(
    mask: np.ndarray, allowed: np.ndarray, rng: np.random.Generator, turn: float = TURN, scale: float = SCALE
) -> np.ndarray:
    """A mask (H, W) bool of another photograph, displaced, somewhere in `allowed` (H', W') bool -> (H', W') bool.

    A random pixel of `allowed` becomes the middle of its box, and at least INSIDE of it lies in `allowed`; what does
    not is cut away. ValueError for an empty mask, and where TRIES places have no room for it.
    """
    if not mask.any():
        raise ValueError("an empty mask cannot be moved")
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    box = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    half = math.ceil(math.hypot(*box.shape) * scale / 2) + 1
    canvas = np.zeros((2 * half + 1, 2 * half + 1), bool)
    top, left = half - box.shape[0] // 2, half - box.shape[1] // 2
    canvas[top : top + box.shape[0], left : left + box.shape[1]] = box
    places, room = np.argwhere(allowed), np.pad(allowed, half)
    for _ in range(TRIES if len(places) else 0):
        _, turned = displaced([canvas, canvas], rng, 0, turn, scale)
        shape, (row, column) = turned > 0.5, places[rng.integers(len(places))]
        here = np.s_[row : row + 2 * half + 1, column : column + 2 * half + 1]
        if shape.any() and (shape & room[here]).sum() >= INSIDE * shape.sum():
            result = np.zeros_like(room)
            result[here] = shape & room[here]
            return result[half:-half, half:-half]
    raise ValueError(
        f"a mask of {box.shape[1]}x{box.shape[0]} pixels finds no place where {allowed.sum()} pixels are allowed"
    )
