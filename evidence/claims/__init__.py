"""One file a claim of a paper, in the folder of its subject; NAME.toml beside it is the comparison that it runs."""
