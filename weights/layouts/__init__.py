"""Which model and which layout a file holds: the names of its tensors, its config, its JSON files."""
