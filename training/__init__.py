"""What a training run has beside its loop."""
