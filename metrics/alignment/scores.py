"""Does an image show the logo? Detector and text scores, by any function of images (De Man, the study of a logo).

    detector = mean_i of c_i where c_i >= 0.70, else 0     c_i: the best confidence of a detector in image i
    text     = mean_i of t_i                               t_i: 1 if a reader finds the word in image i, else 0
    combined = (detector + text) / 2

    normalised_m = (span(detector_m) + span(text_m)) / 2   span(s_m) = (s_m - min s) / (max s - min s), over methods m

A scorer is any Python function, named as module:function or file.py:function. It takes images uint8 (N, S, S, 3) and
returns one number for each, (N,), or a dict {name: such numbers}. A dict with "detector" and "text" gives the combined
score too. These scores are highest for a model that repeats its training images, as the study itself found: read them
beside the share of copies.
"""

import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import numpy as np

THRESHOLD = 0.70  # the study's, for its own detector

Scorer = Callable[[np.ndarray], dict[str, np.ndarray]]


def passed(confidence: np.ndarray, threshold: float = THRESHOLD) -> np.ndarray:
    """Confidences (N,) -> (N,): the same where they reach the threshold, else 0."""
    return np.where(np.asarray(confidence) >= threshold, confidence, 0.0)


def combined(detector: np.ndarray, text: np.ndarray, threshold: float = THRESHOLD) -> dict[str, float]:
    """Best confidences (N,) and text hits (N,) of one method -> its row of the study's table.

    Raises ValueError for no image or other shapes.
    """
    detector, text = np.asarray(detector, float), np.asarray(text, float)
    if not len(detector) or detector.shape != text.shape:
        raise ValueError(
            f"needs a confidence and a text hit of each of 1 image or more, found {detector.shape} and {text.shape}"
        )
    row = {"detector": passed(detector, threshold).mean().item(), "text": text.mean().item()}
    return row | {"combined": (row["detector"] + row["text"]) / 2}


def normalised(detector: Sequence[float], text: Sequence[float]) -> np.ndarray:
    """Mean detector and text scores of M methods, (M,) and (M,) -> (M,) in 0..1: 1 for the best method in both.

    It ranks the methods of one table and means nothing beside another table. A column of equal values counts as 0.
    """
    table = np.array([detector, text], float)  # (2, M)
    low, high = table.min(1, keepdims=True), table.max(1, keepdims=True)
    return ((table - low) / np.where(high > low, high - low, 1)).mean(0)


def means(scores: dict[str, np.ndarray]) -> dict[str, float]:
    """{name: scores (N,)} of one method -> {name: mean}, and the study's row for a detector and a reader."""
    numbers = {name: values.mean().item() for name, values in scores.items()}
    return numbers | (combined(scores["detector"], scores["text"]) if {"detector", "text"} <= scores.keys() else {})


def load_scorer(text: str) -> Scorer:
    """The scorer named module:function or file.py:function: images uint8 (N, S, S, 3) -> {name: float64 (N,)}.

    An array without a name takes that of the function. Every call checks what the function returns. Raises ValueError
    for a name, a file or a function that does not exist and a module that cannot be imported.
    """
    where, _, name = text.rpartition(":")
    if not where or not name.isidentifier():
        raise ValueError(f"a scorer is named module:function or file.py:function, found {text!r}")
    if where.endswith(".py") and not Path(where).is_file():
        raise ValueError(f"scorer {text}: there is no file {where}")
    try:
        module = from_file(Path(where)) if where.endswith(".py") else import_module(where)
    except (Exception, SystemExit) as error:  # whatever stands in that file
        raise ValueError(f"scorer {text}: importing {where} ended with {type(error).__name__}: {error}") from error
    if not callable(getattr(module, name, None)):
        raise ValueError(f"scorer {text}: {where} has no function {name}")
    return partial(scored, getattr(module, name), text)


def from_file(path: Path) -> ModuleType:
    """The module in a file."""
    spec = spec_from_file_location(f"scorer_{path.stem}", path)
    module = sys.modules[spec.name] = module_from_spec(spec)  # dataclasses look their module up there
    spec.loader.exec_module(module)
    return module


def scored(function: Callable, text: str, images: np.ndarray) -> dict[str, np.ndarray]:
    """{name: float64 (N,)} of images uint8 (N, S, S, 3), by the function named `text`. ValueError for other results."""
    try:
        scores = function(images.copy())
    except Exception as error:
        raise ValueError(f"scorer {text} raised {type(error).__name__}: {error}") from error
    if not isinstance(scores, dict):
        return {text.rpartition(":")[2]: checked(scores, f"scorer {text}", len(images))}
    if not scores:
        raise ValueError(f"scorer {text} returned a dict without a score")
    return {str(key): checked(values, f"scorer {text}, {key}", len(images)) for key, values in scores.items()}


def checked(values: object, what: str, count: int) -> np.ndarray:
    """The values as (count,) float64. ValueError unless they are so many finite numbers."""
    try:
        values = np.asarray(values, np.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{what}: expected {count} numbers, found {type(values).__name__} ({error})") from None
    if values.shape != (count,):
        raise ValueError(f"{what}: expected one number for each of {count} images, found shape {values.shape}")
    if not np.isfinite(values).all():
        first = np.flatnonzero(~np.isfinite(values))[0]
        raise ValueError(f"{what}: expected finite numbers, found {values[first]} for image {first}")
    return values
