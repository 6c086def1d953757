"""A scorer with a real detector and OCR: the best confidence of a YOLO, and whether EasyOCR reads the word.

    pip install ultralytics easyocr
    yolo detect train data=logo.yaml model=yolov8n.pt      once, on your photographs with boxes round the logo
    python evaluate.py ... --scorer my_logo.py:score       my_logo.py: a copy of this file, with its two constants yours

Train the detector on images without a box too, above all on badly written logos: else a red box is enough for it.
Written for ultralytics 8.4 and easyocr 1.7. It was tried with an untrained YOLOv8n only, and EasyOCR was not run, for
want of its weights: nobody has seen the two find and read a logo.
"""

from functools import cache

import numpy as np

WEIGHTS = "runs/detect/train/weights/best.pt"  # what `yolo detect train` leaves
WORD = "hugo"  # in small letters, with o for 0


@cache
def models() -> tuple:
    """The detector and the reader, loaded once; both packages are optional."""
    import easyocr
    from ultralytics import YOLO

    return YOLO(WEIGHTS), easyocr.Reader(["en"])


def score(images: np.ndarray) -> dict[str, list[float]]:
    """images uint8 (N, S, S, 3) -> best confidence and text hit of each."""
    detector, reader = models()
    bgr = np.ascontiguousarray(images[..., ::-1])  # both take arrays for OpenCV's blue, green, red
    boxes = [detector.predict(image, conf=0.01, verbose=False)[0].boxes for image in bgr]
    words = [" ".join(reader.readtext(image, detail=0)).lower().replace("0", "o") for image in bgr]
    return {
        "detector": [box.conf.max().item() if len(box) else 0.0 for box in boxes],
        "text": [float(WORD in text) for text in words],
    }
