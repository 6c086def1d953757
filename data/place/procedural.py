"""Masks made up: spots of thresholded 1/f noise, and strokes. No real defect is needed.

spot     the connected part around the peak of  noise(1/f^a) - (distance from a random place / radius)^2
stroke   all pixels within a half width of a path whose direction drifts
"""

import math

import numpy as np
import scipy

POWER = 1.5  # a: the amplitude of the noise falls with the frequency to this power
AREA = (0.002, 0.03)  # of a spot, as a share of the allowed pixels, log-uniform
LENGTH, WIDTH, DRIFT = (0.15, 0.6), (0.01, 0.03), 0.25  # shares of the allowed region's side; radians a pixel step


def noise(shape: tuple[int, int], rng: np.random.Generator, power: float = POWER) -> np.ndarray:
    """Noise (H, W) whose amplitude falls with the frequency f as 1/f^power; mean 0 and variance 1."""
    frequency = np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])[None])
    frequency[0, 0] = np.inf
    field = np.fft.irfft2(np.fft.rfft2(rng.standard_normal(shape)) / frequency**power, shape)
    return field / field.std()


def spot(allowed: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A spot in `allowed` (H, W) bool -> (H, W) bool. ValueError where nothing is allowed."""
    place, total = random_place(allowed, rng), allowed.sum()
    area = total * math.exp(rng.uniform(*np.log(AREA)))
    away = np.hypot(*(axis - at for axis, at in zip(np.indices(allowed.shape), place)))
    score = np.where(allowed, noise(allowed.shape, rng) - (away / math.sqrt(area)) ** 2, -np.inf)
    highest = np.partition(score[allowed], -math.ceil(area))[-math.ceil(area)]
    parts, _ = scipy.ndimage.label(score >= highest, np.ones((3, 3)))
    return parts == parts.flat[score.argmax()]


def stroke(allowed: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A stroke through a random pixel of `allowed` (H, W) bool, cut to it -> (H, W) bool. ValueError as `spot`."""
    side = math.sqrt(allowed.sum())
    at, angle = random_place(allowed, rng).astype(float), rng.uniform(0, 2 * math.pi)
    length, width = side * rng.uniform(*LENGTH), max(1.0, side * rng.uniform(*WIDTH))
    line = np.zeros(allowed.shape, bool)
    for _ in range(math.ceil(length)):
        if not ((at >= 0) & (at < allowed.shape)).all():
            break
        line[tuple(at.astype(int))] = True
        angle += rng.normal(0, DRIFT / math.sqrt(side))
        at += math.cos(angle), math.sin(angle)
    return (scipy.ndimage.distance_transform_edt(~line) <= width / 2) & allowed


def random_place(allowed: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A random pixel of `allowed`, (row, column). ValueError where nothing is allowed."""
    places = np.argwhere(allowed)
    if not len(places):
        raise ValueError("no pixel is allowed: the object and the legal region do not meet")
    return places[rng.integers(len(places))]
