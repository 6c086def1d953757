"""The table that ends a run: is it what was asked for, is it like the real images, is it a copy."""

from .features import embed
from .kid import kid
from .nearest import copy_report, turned


def measure(network, names: list[str], fake, fake_labels, held_out, train, classes: list[str]) -> dict:
    """Numbers about samples; images (N, 3, S, S) in [-1, 1], fake_labels (N,) positions in `classes`.

    network, names: a Features network and the names of its outputs. The share of samples that it takes for their own
    class, among `classes`, is told only if it knows them all. held_out, train: real images not seen and seen.
    """
    network = network.eval()
    f_fake, logits = embed(network, fake)
    f_held, f_train, f_turned = (embed(network, x)[0] for x in (held_out, train, turned(train)))
    numbers = {"samples": len(fake)}
    numbers |= {"kid_x1000": 1000 * kid(f_fake, f_held), "kid_real_x1000": 1000 * kid(f_train, f_held)}
    numbers |= copy_report(f_fake, f_held, f_turned)
    pixels = copy_report(*(x.flatten(1) for x in (fake, held_out, turned(train))))
    numbers |= {f"{name}_pixels": value for name, value in pixels.items()}
    right = recognised(logits, names, fake_labels, classes)
    if right is not None:
        numbers["asked_state"] = right.mean().item()
        by_class = {name: right[fake_labels == i].mean().item() for i, name in enumerate(classes)}
        numbers["asked_state_by_class"] = by_class
    return numbers


def recognised(logits, names: list[str], labels, classes: list[str]):
    """(N,) 1 where an image is taken for the class of its label, among `classes`; None if `names` lack one of them.

    logits (N, len(names)); labels (N,) positions in `classes`.
    """
    if not set(classes) <= set(names):
        return None
    among = logits[:, [names.index(name) for name in classes]]                                  # (N, classes)
    return (among.argmax(1).cpu() == labels.cpu()).double()


def as_text(numbers: dict) -> str:
    """Two columns, name and value, classes indented under their mean."""
    lines = []
    for name, value in numbers.items():
        if isinstance(value, dict):
            lines += [f"  {key:<26}{v:8.3f}" for key, v in value.items()]
        else:
            lines.append(f"{name:<28}" + (f"{value:8.3f}" if isinstance(value, float) else f"{value:>8}"))
    return "\n".join(lines)
