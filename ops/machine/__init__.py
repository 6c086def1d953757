"""The machine that a program runs on: its processes, its memory, the pages of its files, its terminal."""
