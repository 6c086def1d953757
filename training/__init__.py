"""What a training run has beside its loop: its log, its state on disk, the monitor of its samples, plot and report."""
