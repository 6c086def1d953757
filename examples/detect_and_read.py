"""A scorer with a detector and a reader: the best confidence of the logo, and whether its word is read.

    pip install -e ".[reader]"
    python -m metrics.objects --data photos/ --without others/ --val ... --val-without ...    once, for DETECTOR
    python evaluate.py ... --scorer my_logo.py:score       my_logo.py: a copy of this file, with its two constants yours

Train the detector on images without the logo too, above all on badly written ones: else a red box is enough for it.
"""

from functools import cache

import numpy as np

from metrics.objects.detector import Detector, confidences, load_detector
from metrics.objects.reader import Reader, load_reader, spelled

DETECTOR = "runs/detector.safetensors"  # what `python -m metrics.objects` leaves
WORD = "HUGO"  # capitals or not and 0 for o count too


@cache
def models() -> tuple[Detector, Reader]:
    """The detector and the reader, loaded once."""
    return load_detector(DETECTOR), load_reader()


def score(images: np.ndarray) -> dict[str, np.ndarray]:
    """images uint8 (N, S, S, 3) -> best confidence and text hit of each."""
    detector, read = models()
    return {"detector": confidences(detector, images), "text": spelled(read(images), WORD)}
