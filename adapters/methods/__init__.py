"""The fine-tuning methods by name, each a file of its own: METHODS[name](model, generator, *, options).

    in_place/    parameters that the model has train: all of them, or the biases, the norms, the class table, ...
    low_rank/    beside a frozen W, or in a product with it, factors that hold few numbers train
    *.py         scales, rotations, deviations, prompts, words and small networks of their own

A method specialises layers of a frozen model and marks what trains. Its keyword-only parameters, with annotations,
are the options that a spec may name. To add one, write its file and its line here; tests/adapters/test_contract.py then
holds it to what all methods promise.
"""

from adapters.methods import bnn, bottleneck, difffit, oft, tokens, vpt
from adapters.methods.in_place import bitfit, classes, crossattn, full, norm
from adapters.methods.low_rank import dora, lokr, lora, modulate, tlora

METHODS = {
    "full": full.full,
    "bitfit": bitfit.bitfit,
    "norm": norm.norm,
    "classes": classes.classes,
    "difffit": difffit.difffit,
    "lora": lora.lora,
    "dora": dora.dora,
    "lokr": lokr.lokr,
    "tlora": tlora.tlora,
    "oft": oft.oft,
    "modulate": modulate.modulate,
    "bnn": bnn.bnn,
    "bottleneck": bottleneck.bottleneck,
    "vpt": vpt.vpt,
    "crossattn": crossattn.crossattn,
    "tokens": tokens.tokens,
}
