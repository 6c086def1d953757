"""Distances of images that need no network: of their patches, scale by scale."""
