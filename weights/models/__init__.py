"""A whole model from a file, and a whole model into one."""
