"""The losses: what a batch must be, and what the model is asked to do with it. One objective a file."""
