"""Which words are in a picture, by RapidOCR: pip install -e ".[reader]", whose wheel holds the networks of PP-OCR.

    t_i = 1 if a word in image i is the logo's, in capitals or not, with 0 for o, else 0           (De Man, sec. 4.2)

PP-OCR (Du et al. 2020, arXiv 2009.09941) finds lines of text by a segmenter and reads each by a recogniser of its own.
"""

import re
from collections.abc import Callable, Sequence

import numpy as np

SIDE = 192  # pixels: the least side that text is looked for at; smaller pictures are enlarged

Reader = Callable[[np.ndarray], list[list[str]]]


def load_reader(side: int = SIDE) -> Reader:
    """read(images uint8 (N, H, W, 3)) -> the words of each, as they stand there; a word is letters and digits.

    side: pictures whose shorter side is smaller are enlarged to it; a larger one finds smaller letters, in more time.
    Raises ValueError where RapidOCR is not installed.
    """
    try:
        from rapidocr_onnxruntime import RapidOCR
    except ImportError as error:
        raise ValueError(f'reading words needs RapidOCR: pip install -e ".[reader]" ({error})') from None
    threads = {"intra_op_num_threads": 1, "inter_op_num_threads": 1}  # the networks are small
    engine = RapidOCR(det_limit_type="min", det_limit_side_len=side, **threads)

    def read(images: np.ndarray) -> list[list[str]]:
        lines = [engine(np.ascontiguousarray(image[..., ::-1]), use_cls=False)[0] or [] for image in images]  # in BGR
        return [[word for _, text, _ in found for word in re.findall(r"[^\W_]+", text)] for found in lines]

    return read


def spelled(words: Sequence[Sequence[str]], word: str) -> np.ndarray:
    """The words of N images -> (N,): 1 where one of them is `word`, in capitals or not, with 0 for o, else 0."""

    def plain(text: str) -> str:
        return text.lower().replace("0", "o")

    return np.array([float(plain(word) in map(plain, found)) for found in words])
