"""Claims about what to train, from where, and on how many images."""
