"""Claims about classifiers that learn from samples."""
