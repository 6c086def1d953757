"""Tools of some claims: a network that finds defects, and photographs of magnetic tiles as few-shot data."""
