"""Measurements of speed and memory, all by one command: python -m bench."""
