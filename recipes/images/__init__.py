"""Images as a model is trained on them: pixels or latents, in buckets of shapes, with masks, sizes and digests."""
