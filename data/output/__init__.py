"""What a run writes: files that are whole or absent, grids of images, and folders of samples, which are read back."""
