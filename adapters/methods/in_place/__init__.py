"""Parameters that the model has train, and nothing is added but the scale and shift of a norm without them."""
