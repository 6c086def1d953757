"""The fine-tuning methods by name, each a file of its own: METHODS[name](model, generator, *, options).

A method specialises layers of a frozen model and marks what trains. Its keyword-only parameters, with annotations,
are the options that a spec may name. To add one, write its file and its line here; tests/adapters/test_contract.py then
holds it to what all methods promise.
"""

from adapters.methods import (
    bitfit,
    bnn,
    bottleneck,
    classes,
    crossattn,
    difffit,
    dora,
    full,
    lora,
    modulate,
    norm,
    oft,
    tokens,
    vpt,
)

METHODS = {
    "full": full.full,
    "bitfit": bitfit.bitfit,
    "norm": norm.norm,
    "classes": classes.classes,
    "difffit": difffit.difffit,
    "lora": lora.lora,
    "dora": dora.dora,
    "oft": oft.oft,
    "modulate": modulate.modulate,
    "bnn": bnn.bnn,
    "bottleneck": bottleneck.bottleneck,
    "vpt": vpt.vpt,
    "crossattn": crossattn.crossattn,
    "tokens": tokens.tokens,
}
