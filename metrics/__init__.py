"""How good, how diverse and how close to the training images are the samples."""
