"""Text as Stable Diffusion reads it: prompts, tokens by byte pairs, the states of one text encoder or two."""
