"""Does a classifier of real images gain from synthetic ones: a network that is trained, and a linear probe."""
