"""Average precision of a detector: the area under its precision over its recall.

The detections of all images by falling confidence: the k-th is right if the box of its image that it overlaps most has
IoU >= threshold with it and no detection before it was right by that box.

    P_k = right ones of the first k / k      R_k = right ones of the first k / boxes
    AP = sum_k (R_k - R_{k-1}) max_{j >= k} P_j

as PASCAL VOC has computed it since 2010 (Everingham et al. 2015, doi 10.1007/s11263-014-0733-5). With one kind of
object the mean over kinds, mAP, is AP. `ap_50_95` is the mean over the thresholds 0.50, 0.55 .. 0.95 of COCO (Lin et
al. 2014, arXiv 1405.0312), each by the sum above, where COCO takes the precision at 101 recalls.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from metrics.objects.boxes import iou

THRESHOLDS = tuple(np.arange(50, 100, 5) / 100)
Found = tuple[Tensor, Tensor]  # boxes (K, 4) of one image and their confidences (K,)


def average_precision(found: Sequence[Found], truths: Sequence[Tensor], threshold: float = 0.5) -> float:
    """The detections and the boxes (M, 4) of each image -> AP. ValueError for other lengths, and where no box is."""
    boxes = sum(map(len, truths))
    if len(found) != len(truths) or not boxes:
        raise ValueError(
            f"AP needs detections and boxes of the same images, one box at least, found {len(found)} and {len(truths)} "
            f"images with {boxes} boxes"
        )
    confidence = torch.cat([confidences for _, confidences in found])
    image = torch.cat([torch.full((len(own),), i) for i, (own, _) in enumerate(found)])
    candidates = torch.cat([own for own, _ in found])
    taken, right = [set() for _ in truths], []
    for k in confidence.argsort(descending=True, stable=True).tolist():
        i = int(image[k])
        overlap = iou(candidates[k : k + 1], truths[i])[0] if len(truths[i]) else torch.zeros(1)
        best = int(overlap.argmax())
        right.append(bool(overlap[best] >= threshold) and best not in taken[i])
        if right[-1]:
            taken[i].add(best)
    hits = np.cumsum(right)
    precision, recall = hits / np.arange(1, len(hits) + 1), hits / boxes
    envelope = np.maximum.accumulate(precision[::-1])[::-1]  # max_{j >= k} P_j
    return float((np.diff(recall, prepend=0) * envelope).sum())


def precisions(found: Sequence[Found], truths: Sequence[Tensor]) -> dict[str, float]:
    """ap_50, and ap_50_95."""
    values = [average_precision(found, truths, threshold) for threshold in THRESHOLDS]
    return {"ap_50": values[0], "ap_50_95": sum(values) / len(values)}
