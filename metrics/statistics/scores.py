"""Does a picture show the logo? Detector and text scores, by any function of images (De Man, the study of a logo).

    detector = mean_i of c_i where c_i >= 0.70, else 0     c_i: the best confidence of a detector in image i
    text     = mean_i of t_i                               t_i: 1 where the word is read in image i, else 0
    combined = (detector + text) / 2

    normalised_m = (span(detector_m) + span(text_m)) / 2   span(s_m) = (s_m - min s) / (max s - min s), over methods m

A scorer is any Python function, named as module:function or file.py:function. It takes images uint8 (N, S, S, 3) and
returns one number for each, (N,), or a dict of names and such numbers. Of one that returns "detector" and "text" the
combined score is told too. These scores are highest for a model that repeats its training images, as the study itself
found, so they mean little without the share of copies beside them.
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
    """Best confidence of each image (N,), where it reaches the threshold, else 0."""
    return np.where(np.asarray(confidence) >= threshold, confidence, 0.0)


def combined(detector: np.ndarray, text: np.ndarray, threshold: float = THRESHOLD) -> dict[str, float]:
    """Best confidences (N,) and text hits (N,) of the images of one method -> its row of the study's table."""
    detector, text = np.asarray(detector, float), np.asarray(text, float)
    if not len(detector) or detector.shape != text.shape:
        raise ValueError(
            f"needs a confidence and a text hit of each of 1 image or more, found {detector.shape} and {text.shape}"
        )
    row = {"detector": passed(detector, threshold).mean().item(), "text": text.mean().item()}
    return row | {"combined": (row["detector"] + row["text"]) / 2}


def normalised(detector: Sequence[float], text: Sequence[float]) -> np.ndarray:
    """The two means of each method (M,), (M,) -> (M,) in 0..1: 1 for a method that is the best in both.

    It ranks the methods of one table and means nothing beside another. A column in which all are equal counts as 0.
    """
    table = np.array([detector, text], float)  # (2, M)
    low, high = table.min(1, keepdims=True), table.max(1, keepdims=True)
    return ((table - low) / np.where(high > low, high - low, 1)).mean(0)


def means(found: dict[str, np.ndarray]) -> dict[str, float]:
    """What a scorer found in the images of one method, as means; of a detector and a reader the study's row."""
    numbers = {name: values.mean().item() for name, values in found.items()}
    return numbers | (combined(found["detector"], found["text"]) if {"detector", "text"} <= found.keys() else {})


def load_scorer(text: str) -> Scorer:
    """module:function or file.py:function -> score(images) -> {name: float64 (N,)}; ValueError says what is amiss.

    A function that returns one array gives it its own name. What it returns is checked at every call.
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
    """The module that a file holds."""
    spec = spec_from_file_location(f"scorer_{path.stem}", path)
    module = sys.modules[spec.name] = module_from_spec(spec)  # dataclasses look their module up there
    spec.loader.exec_module(module)
    return module


def scored(function: Callable, text: str, images: np.ndarray) -> dict[str, np.ndarray]:
    """What `function`, a scorer named `text`, finds in images uint8 (N, S, S, 3), as {name: float64 (N,)}."""
    try:
        found = function(images.copy())
    except Exception as error:
        raise ValueError(f"scorer {text} raised {type(error).__name__}: {error}") from error
    if not isinstance(found, dict):
        return {text.rpartition(":")[2]: checked(found, f"scorer {text}", len(images))}
    if not found:
        raise ValueError(f"scorer {text} returned a dict without a score")
    return {str(key): checked(values, f"scorer {text}, {key}", len(images)) for key, values in found.items()}


def checked(values, what: str, count: int) -> np.ndarray:
    """(count,) finite numbers, or a ValueError that says what was found."""
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
