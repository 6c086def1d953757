"""Folders on disk: the tree of files, the layout of its classes, and the mask and the caption of each image."""
