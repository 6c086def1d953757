"""One step: which images its micro-batches have, whose gradients are summed, how far the weights go."""
