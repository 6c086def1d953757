"""What conditions the model, one kind a file: class labels of a DiT, captions of a Stable Diffusion.

Both answer the same questions, so that every objective is written once:

    model, vae, schedule        what trains, in which latents, with which noise; model(x_t, t, cond)
    images, names               what it is trained on, and one name for each image of a pass
    header                      what the adapter file says of the base and the conditions
    methods(specs)              the specs that are attached to train them
    batches(...)                latents with their conditions, some of them replaced by the null condition
    held_out(...)               the same of held-out images, as they are
    null                        the condition that guidance leads away from, for the objective
    columns, sample(...)        the names over a grid of samples, and the samples
    rates                       learning rates of parts of the model, where they differ
"""
