"""A table of numbers in words: rows that explain themselves, and what so few images cannot tell."""

from math import ceil

WORDS = {  # key: (name of the row, its meaning)
    "network": ("measured in", ""),
    "samples": ("samples", ""),
    "real": ("real images, held out", ""),
    "train": ("training images", ""),
    "class_accuracy": ("samples that show their class", "by a classifier that knows the classes"),
    "class_accuracy_real": ("  the same of real images", "what it recognises at best"),
    "class_accuracy_decoded": ("  the same of decoded ones", "real images through the autoencoder"),
    "inception_score": ("inception score", "1: all of one class, or unsure; at most the number of classes"),
    "nearest_class": ("samples of their class, by patches", "share whose nearest training image is of their class"),
    "nearest_class_real": ("  the same of real images", ""),
    "swd": ("distance of textures", "sliced Wasserstein distance of patches to the real images; 0: the same"),
    "swd_real": ("  the same among real images", "a few of them to the others"),
    "patch_distance": ("distance, real images' own = 1", "above 2: noise, fog or blur"),
    "varied": ("distance apart, real images' = 1", "between samples of a class; near 0: all alike"),
    "nearest_patches": ("patches, distance to training", "of the median sample to its nearest training image"),
    "nearest_patches_real": ("  the same of real images", ""),
    "copies_patches": ("copies, by patches", "share nearer to a training image than 0.95 of the real ones"),
    "kid_x1000": ("KID x 1000", "kernel distance to the real images; 0: none"),
    "kid_deviation_x1000": ("  its deviation", "under other images of as many"),
    "kid_real_x1000": ("  the same of training images", "what a perfect copy has"),
    "fid": ("FID", "Frechet distance to the real images; few images reward copies"),
    "precision": ("precision", "share of samples among real images"),
    "recall": ("recall", "share of real images among samples"),
    "density": ("density", "1: samples lie as dense as real images"),
    "coverage": ("coverage", "share of real images with a sample near"),
    "diversity": ("diversity", "distance between samples nearest to one training image; 0: copies"),
    "clusters": ("  training images with 2 samples", ""),
    "single": ("  with one", ""),
    "empty": ("  with none", ""),
    "nearest": ("features, distance to training", "of the median sample to its nearest training image"),
    "nearest_real": ("  the same of real images", ""),
    "copies": ("copies, in features", "share nearer to a training image than 0.95 of the real ones"),
    "authentic": ("authentic", "share further from its training image than that is from another"),
    "ratio": ("nearest over near", "near 0: one training image stands out, a copy"),
    "nearest_pixels": ("pixels, distance to training", ""),
    "nearest_real_pixels": ("  the same of real images", ""),
    "copies_pixels": ("copies, in pixels", ""),
    "drift": ("drift", "change of what was not trained: 0 none, 1 as far as two unrelated pictures"),
    "clip_i": ("CLIP-I", "mean cosine of samples to the real images, as published"),
    "clip_i_real": ("  the same of real images", "above it: copies"),
    "dino": ("DINO", "mean cosine of samples to the real images, as published"),
    "dino_real": ("  the same of real images", "above it: copies"),
    "dinov2": ("DINOv2 score", "as DINO, in DINOv2"),
    "dinov2_real": ("  the same of real images", "above it: copies"),
    "drift_cosine": ("  in cosine", ""),
    "gain": ("accuracy of a classifier", "balanced, with and without the samples"),
    "classifier": ("classifier", ""),
    "clip_t": ("CLIP-T", "mean cosine of samples to their prompts"),
    "clip_iqa": ("CLIP-IQA", "0.5: neither a good photo nor a bad one"),
    "by_class": ("by class", ""),
    "left_out": ("left out", ""),
}
SHARES = 100  # images after which a share is known to about 0.1


def as_text(numbers: dict) -> str:
    """A line for each number: name, value, meaning; classes, and what was left out, are indented; then the doubts."""
    lines = []
    for key, value in numbers.items():
        name, meaning = WORDS.get(key, (key, ""))
        if isinstance(value, dict):
            lines += [] if key == "class_accuracy_by_class" else [name]
            lines += [f"  {inner:<34}{formatted(number)}" for inner, number in value.items()]
        else:
            lines.append(f"{name:<36}{formatted(value)}{f'  {meaning}' if meaning else ''}")
    return "\n".join([*lines, *(f"note: {doubt}" for doubt in doubts(numbers))])


def doubts(numbers: dict) -> list[str]:
    """What the numbers of so few images cannot tell, a sentence each, with how many it would take."""
    few, told = min(numbers.get("samples", 0), numbers.get("real", 0)), []
    kid, deviation = numbers.get("kid_x1000"), numbers.get("kid_deviation_x1000")
    if kid is not None and deviation and abs(kid) < 2 * deviation:
        # for sets that hardly differ the deviation falls as 1 / images
        enough = f"about {rounded_up(few * 2 * deviation / abs(kid)):,} of each could tell one of this size"
        told.append(
            f"KID {kid:.3g} +- {deviation:.3g} (x 1000) of {few} images tells no difference; "
            + (enough if kid > 0 else "only more could tell one")
        )
    width = numbers.get("width")
    if "fid" in numbers and width and few <= width:
        told.append(f"FID of {few} images in {width} features ranks nothing: it takes {width + 1:,} of each at least")
    if 0 < few < SHARES and any(key in numbers for key in ("precision", "copies", "copies_patches", "class_accuracy")):
        told.append(
            f"a share of {few} images is known to +-{1 / few**0.5:.2f} (two deviations); {SHARES} would make it +-0.10"
        )
    return told


def rounded_up(value: float) -> int:
    """To one digit: 2,132 is about 3,000."""
    step = 10 ** max(len(str(int(value))) - 1, 0)
    return ceil(value / step) * step


def formatted(value: float | int | str | dict) -> str:
    """A value of the table; numbers fill a column of 8 characters."""
    if isinstance(value, dict):
        return " ".join(f"{key} {formatted(inner).strip()}" for key, inner in value.items())
    if isinstance(value, str):
        return f"{value:>8}"
    return f"{value:8.3f}" if isinstance(value, float) else f"{value:8}"
