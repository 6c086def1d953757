"""What samples look like: the share of each of a few styles, by a network that knows them.

    share_s = mean_i [s = argmax_s' cos(f_i, f_s')]       f_i: CLIP's features of sample i, f_s of the text of style s

of a classifier: the share of samples whose class one of the style's patterns names ("bottle/*"; commas between several,
the first style that fits), and as "other" that of the rest. So a study of full fine-tuning against LoRA counted
realistic, half cartoon and cartoon pictures, by eye (Saulys and Slivinskas).
"""

from fnmatch import fnmatchcase

from torch import Tensor
from torch.nn import functional as F

from metrics.networks.registry import Network


def shares(network: Network, images: Tensor, styles: dict[str, str]) -> dict[str, float]:
    """images (N, 3, S, S) in [-1, 1] -> {style: share}. styles: name -> text, or patterns of classes.

    The entry "network" of styles is passed over. ValueError for a network that knows neither texts nor classes, and for
    a pattern that fits none of its classes.
    """
    styles = {name: text for name, text in styles.items() if name != "network"}
    if network.texts is not None:
        f_s = F.normalize(network.texts(list(styles.values())))  # (styles, D)
        chosen = (F.normalize(network.embed(images)) @ f_s.T).argmax(1)  # (N,)
        return {name: (chosen == i).float().mean().item() for i, name in enumerate(styles)}
    if not network.classes:
        raise ValueError(f"styles: {network.name} knows neither texts, as a CLIP does, nor names of classes")
    style_of = {}
    for style, text in styles.items():
        fits = [name for name in network.classes if any(fnmatchcase(name, word.strip()) for word in text.split(","))]
        if not fits:
            raise ValueError(f"styles: {text!r} fits no class of {network.name}, as {network.classes[0]!r} is one")
        style_of = dict.fromkeys(fits, style) | style_of
    shown = [style_of.get(network.classes[i], "other") for i in network.logits(images).argmax(1).tolist()]
    return {style: shown.count(style) / len(shown) for style in (*styles, "other")}
